"""Baselines: the loss of simple models without a network, to compare a model's loss with.

    uniform   all tokens of the vocabulary are equally likely: ln(vocab_size) nats
    unigram   how often each token occurs in the training split
    bigram    how often it follows the token before it

Counts are exact. Tokens and pairs that do not occur in training get their probability by interpolated absolute
discounting, with a fixed discount D = 0.75 (about the amount by which counts in new text are lower, Church and Gale
1991):

    unigram(w)   = max(c(w) - D, 0) / N  +  D T / N  x  1 / vocab_size         T of N tokens are distinct
    bigram(w|v)  = max(c(vw) - D, 0) / c(v)  +  D T(v) / c(v)  x  follower(w)  T(v) distinct tokens follow v

where follower(w) is a unigram model of the number of distinct tokens before w instead of w's count: interpolated
Kneser-Ney smoothing (Kneser and Ney 1995; in this form Chen and Goodman 1999). Each sums to 1 over the vocabulary.

Memory is bounded: pairs are sorted and counted for one range of first tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from minigpt.data import TokenFile
from minigpt.evaluation.eval_text import Ints
from minigpt.evaluation.scores import Floats

DISCOUNT = 0.75
PAIRS_AT_ONCE = 2**23  # 64 MB, and a few times as much to sort and count them
TOKENS_AT_ONCE = 2**21

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Baselines:
    """The results of simple models of the training split for each token; arrays of shape (n_targets,).

    Attributes:
        count: how often the token occurs in training.
        unigram, bigram: negative log-likelihood, in nats.
    """

    count: Ints
    unigram: Floats
    bigram: Floats


def baselines(
    train: TokenFile, previous: Ints, targets: Ints, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Baselines:
    """Returns the losses of unigram and bigram models of a training split.

    Args:
        train: the split to count in.
        previous: the token before each target, (n_targets,).
        targets: the tokens to predict, (n_targets,).
        on_progress: called with the parts of the work done and in all.
    """
    size = train.vocab_size
    counts, firsts = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for start in range(0, train.n_tokens, TOKENS_AT_ONCE):
        counts += np.bincount(train.read(start, start + TOKENS_AT_ONCE), minlength=size)
    for before, _ in _pairs(train):
        firsts += np.bincount(before, minlength=size)  # (vocab_size,)

    wanted = previous * size + targets
    seen = np.zeros(len(targets), dtype=np.int64)  # counts of the wanted pairs in training
    followers, preceders = np.zeros_like(counts), np.zeros_like(counts)  # distinct tokens after, and before, each
    ranges = _ranges(firsts)
    for number, (low, high) in enumerate(ranges, start=1):
        pairs = np.concatenate([np.empty(0, dtype=np.int64), *_keys(train, low, high)])
        keys, repeats = np.unique(pairs, return_counts=True)
        followers += np.bincount(keys // size, minlength=size)
        preceders += np.bincount(keys % size, minlength=size)
        here = np.flatnonzero((previous >= low) & (previous < high))
        seen[here] = _look_up(keys, repeats, wanted[here])
        on_progress(number, len(ranges))

    rest = np.divide(DISCOUNT * followers, firsts, out=np.ones(size), where=firsts > 0)  # (vocab_size,)
    known = np.maximum(seen - DISCOUNT, 0) / np.maximum(firsts[previous], 1)
    bigram = known + rest[previous] * _discounted(preceders)[targets]
    unigram = _discounted(counts)[targets]
    return Baselines(counts[targets], *(-np.log(p).astype(np.float32) for p in (unigram, bigram)))


def _discounted(counts: Ints) -> Reals:
    """Returns the probabilities of ids from their counts, discounted and interpolated with the uniform distribution."""
    size, total = len(counts), counts.sum()
    if not total:
        return np.full(size, 1 / size)
    rest = DISCOUNT * np.count_nonzero(counts) / total
    probabilities: Reals = np.maximum(counts - DISCOUNT, 0) / total + rest / size
    return probabilities


def _pairs(split: TokenFile) -> Iterator[tuple[Ints, Ints]]:
    """Yields all pairs of neighbouring tokens that are targets: the first ones, and the second ones."""
    for start in range(0, split.n_tokens - 1, TOKENS_AT_ONCE):
        ids = split.read(start, start + TOKENS_AT_ONCE + 1).astype(np.int64)
        before, after = ids[:-1], ids[1:]
        if split.segment_length:
            inside = np.arange(start + 1, start + len(ids)) % split.segment_length != 0
            before, after = before[inside], after[inside]
        yield before, after


def _keys(split: TokenFile, low: int, high: int) -> Iterator[Ints]:
    """Yields the pairs whose first id is in [low, high), each as one number."""
    for before, after in _pairs(split):
        inside = (before >= low) & (before < high)
        yield before[inside] * split.vocab_size + after[inside]


def _ranges(counts: Ints) -> list[tuple[int, int]]:
    """Returns ranges of ids in order, each with about PAIRS_AT_ONCE counts at most."""
    group = np.cumsum(counts) // PAIRS_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(counts)]
    return list(pairwise(edges))


def _look_up(keys: Ints, repeats: Ints, wanted: Ints) -> Ints:
    """Returns how often each wanted key occurs; the keys are sorted."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, repeats[place], 0)
