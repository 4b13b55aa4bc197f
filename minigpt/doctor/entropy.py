"""What counting tokens achieves on a text: the losses that a model must beat to have learned more than frequencies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from minigpt.data import Dataset, TokenFile
from minigpt.evaluation.baselines import baselines

UNIGRAM_TOKENS, NGRAM_TOKENS = 2**24, 2**19
"""Tokens of the training split that are counted at most, alone and with those before them: 0.1 s."""

TRAIN_TOKENS, VAL_TOKENS = 2**23, 2**20
"""Tokens of training that are counted, and of validation that are predicted, for the bigram loss: 1 s."""

CHUNK_TOKENS = 2**20


def unigram_entropy(train: TokenFile) -> float:
    """Returns the entropy, in nats, of how often each token occurs in the training split, or in its beginning."""
    counts = np.zeros(train.vocab_size, np.int64)
    end = min(train.n_tokens, UNIGRAM_TOKENS)
    for start in range(0, end, CHUNK_TOKENS):  # bincount widens what it counts
        counts += np.bincount(train.read(start, min(end, start + CHUNK_TOKENS)), minlength=train.vocab_size)
    return _entropy(counts)


def conditional_entropy(train: TokenFile, length: int) -> float:
    """Returns the entropy of a token given the `length` - 1 tokens before it, in the training split's beginning.

    Each distinct n-gram adds 1 / (2 * tokens): small samples look more orderly than their source (Miller 1955).
    """
    ids = train.read(0, NGRAM_TOKENS).astype(np.int64)
    places = max(0, len(ids) - length + 1)

    def counts(size: int) -> npt.NDArray[np.int64]:
        keys = np.zeros(places, np.int64)
        for place in range(size):
            keys = keys * train.vocab_size + ids[place : place + places]
        return np.unique(keys, return_counts=True)[1]

    whole, context = counts(length), counts(length - 1)
    return _entropy(whole) - _entropy(context) + (len(whole) - len(context)) / (2 * max(1, places))


def bigram_val_loss(dataset: Dataset) -> float:
    """Returns the validation loss of a bigram model of the training split; of long splits, their beginnings."""
    train = replace(dataset.train, tokens=dataset.train.tokens[:TRAIN_TOKENS])
    ids = dataset.val.read(0, VAL_TOKENS).astype(np.int64)
    inside = np.arange(1, len(ids)) % (dataset.val.segment_length or len(ids) + 1) != 0
    return float(baselines(train, ids[:-1][inside], ids[1:][inside]).bigram.mean(dtype=np.float64))


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum())
