"""The metrics of an evaluation, with confidence intervals, from the scores of each token (scores.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from minigpt.evaluation.baselines import Baselines, Reals
from minigpt.evaluation.eval_text import EvalText, Ints
from minigpt.evaluation.loss import perplexity
from minigpt.evaluation.scores import Scores

VERSION = 4
"""Raised when the same model and text give other metrics or notes; cached evaluations are then measured again."""

RESAMPLES = 1_000
BLOCK_TOKENS = 1_000
FEWEST_BLOCKS = 10
FEW_DOCUMENTS = 10
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval, None if the text is too short for one."""

    value: float
    interval: tuple[float, float] | None = None

    def map(self, function: Callable[[float], float]) -> Estimate:
        """Returns an increasing function of the metric, interval included."""
        low_high = self.interval and (function(self.interval[0]), function(self.interval[1]))
        return Estimate(function(self.value), low_high)


@dataclass(frozen=True)
class Bucket:
    """Tokens that have something in common.

    Attributes:
        name: what they have in common; of a document its file, or else its first words.
        tokens: how many they are.
        loss: their mean loss, in nats.
        accuracy: the share that was the model's first guess.
        bigram: the bigram model's loss on them; None without training data.
        beginning: of a document whose file is known, its first words.
    """

    name: str
    tokens: int
    loss: float
    accuracy: float
    bigram: float | None
    beginning: str = ""

    def shortened(self, length: int) -> str:
        """Returns the name in at most `length` characters: the end of a file's name, or the beginning of words."""
        if len(self.name) <= length:
            return self.name
        return f"…{self.name[1 - length :]}" if self.beginning else f"{self.name[: length - 1]}…"


@dataclass(frozen=True)
class Bin:
    """Tokens whose first guess had about the same probability.

    Attributes:
        tokens: how many they are.
        confidence: mean probability of the first guess.
        accuracy: the share for which it was right.
    """

    tokens: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class EvalMetrics:
    """How well a model predicts a text.

    Attributes:
        tokens: the number of predicted tokens.
        documents: the number of documents they come from.
        bytes_per_token: mean number of UTF-8 bytes of text per token.
        loss: mean negative log-likelihood of a token, in nats.
        perplexity: exp(loss).
        bits_per_byte: bits needed to encode a byte of text; comparable between tokenizers.
        accuracy: share of tokens that were the model's first guess.
        top5_accuracy: share of tokens among its first five.
        calibration_error: expected calibration error: the mean gap between confidence and accuracy over 15 bins of
            equal width (Naeini et al. 2015, Guo et al. 2017).
        calibration: those bins, without empty ones.
        baselines: the loss of the models of baselines.py, by name.
        by_context: by the number of tokens of context, in powers of two.
        by_frequency: by the token's count in training, in powers of ten; None without training data.
        by_document: by document, in order.
        interval_from: what was resampled for the intervals; None if there are none.
    """

    tokens: int
    documents: int
    bytes_per_token: float
    loss: Estimate
    perplexity: Estimate
    bits_per_byte: Estimate
    accuracy: Estimate
    top5_accuracy: Estimate
    calibration_error: float
    calibration: tuple[Bin, ...]
    baselines: dict[str, Estimate]
    by_context: tuple[Bucket, ...]
    by_frequency: tuple[Bucket, ...] | None
    by_document: tuple[Bucket, ...]
    interval_from: str | None


def eval_metrics(text: EvalText, scores: Scores, simple: Baselines | None = None) -> EvalMetrics:
    """Returns the metrics of a model on a text.

    Args:
        text: the text.
        scores: the model's results.
        simple: those of unigram and bigram models, if the training data is available.
    """
    n_tokens = len(scores.nll)
    right, among_five = scores.rank == 0, scores.rank < 5
    lengths = np.array([len(token) for token in text.tokenizer.vocabulary])
    columns = [np.ones(n_tokens), scores.nll, right, among_five, lengths[text.tokens[scores.positions]]]
    if simple:
        columns += [simple.unigram, simple.bigram]

    document = np.searchsorted(text.documents, scores.positions, side="right") - 1  # (n_tokens,)
    present, document = np.unique(document, return_inverse=True)
    unit, interval_from = _units(document, len(present))
    table: Reals = np.stack(
        [np.bincount(unit, weights=column.astype(np.float64)) for column in columns], axis=1
    )  # (units, columns)
    totals, resampled = table.sum(axis=0), bootstrap(table) if interval_from else None

    def mean(column: int) -> Estimate:
        return _ratio(totals, resampled, column, 0)

    loss = mean(1)
    # The vocabulary's bytes are those of the text, except for its first token and unknown characters.
    real_bytes = n_tokens * text.bytes_per_token
    bits = _ratio(totals, resampled, 1, 4).map(lambda ratio: ratio * float(totals[4]) / real_bytes / math.log(2))
    bins, error = _calibration(scores.confidence, right)
    baselines = {"uniform": Estimate(math.log(len(lengths)))}
    if simple:
        baselines |= {"unigram": mean(5), "bigram": mean(6)}

    def buckets(key: Ints, names: Sequence[str]) -> tuple[Bucket, ...]:
        return _buckets(key, names, scores.nll, right, simple.bigram if simple else None)

    beginnings = [text.beginning(number) for number in present]
    by_document = buckets(document, beginnings)
    if (known := text.names) is not None:
        named = zip(by_document, present.tolist(), strict=True)
        by_document = tuple(replace(one, name=known[number], beginning=one.name) for one, number in named)

    return EvalMetrics(
        tokens=n_tokens,
        documents=len(present),
        bytes_per_token=text.bytes_per_token,
        loss=loss,
        perplexity=loss.map(perplexity),
        bits_per_byte=bits,
        accuracy=mean(2),
        top5_accuracy=mean(3),
        calibration_error=error,
        calibration=bins,
        baselines=baselines,
        by_context=buckets(*_by_context(scores.context)),
        by_frequency=buckets(*_by_frequency(simple.count)) if simple else None,
        by_document=by_document,
        interval_from=interval_from,
    )


def bootstrap(table: Reals, resamples: int = RESAMPLES, seed: int = 0) -> Reals:
    """Returns the column sums of tables with as many rows, drawn with replacement (Efron 1979).

    Args:
        table: (units, columns).
        resamples: the number of tables.
        seed: the same seed draws the same rows.

    Returns:
        (resamples, columns)
    """
    random, units = np.random.default_rng(seed), len(table)
    draws = (np.bincount(random.integers(units, size=units), minlength=units) for _ in range(resamples))
    return np.stack([times @ table for times in draws])


def _units(document: Ints, n_documents: int) -> tuple[Ints, str | None]:
    """Returns the bootstrap unit of each token, and a description of the units; None if there are too few.

    Tokens of a document depend on each other, so whole documents are drawn. A single document is cut into blocks.
    """
    if n_documents > 1:
        return document, f"{n_documents:,} documents"
    block = np.arange(len(document)) // BLOCK_TOKENS
    n_blocks = len(document) // BLOCK_TOKENS
    if n_blocks < FEWEST_BLOCKS:
        return document, None
    return np.minimum(block, n_blocks - 1), f"{n_blocks:,} blocks of {BLOCK_TOKENS:,} tokens of this document"


def _ratio(totals: Reals, resampled: Reals | None, above: int, below: int) -> Estimate:
    """Returns the ratio of two columns' sums, with the middle 95 % of its resampled values."""
    value = float(totals[above] / totals[below]) if totals[below] else math.nan
    if resampled is None or not (resampled[:, below] > 0).all():
        return Estimate(value)
    low, high = np.percentile(resampled[:, above] / resampled[:, below], [2.5, 97.5])
    return Estimate(value, (float(low), float(high)))


def _calibration(confidence: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> tuple[tuple[Bin, ...], float]:
    """Returns the non-empty bins, and the expected calibration error."""
    bin_of = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    count = np.bincount(bin_of, minlength=CALIBRATION_BINS)
    sure, was_right = (np.bincount(bin_of, weights=part, minlength=CALIBRATION_BINS) for part in (confidence, right))
    bins = tuple(
        Bin(int(count[i]), float(sure[i] / count[i]), float(was_right[i] / count[i])) for i in np.flatnonzero(count)
    )
    return bins, float(np.abs(sure - was_right).sum() / len(confidence))


def _by_context(context: npt.NDArray[np.int32]) -> tuple[Ints, list[str]]:
    """Returns the bucket of each token, and the buckets' names: 1, 2, 3 - 4, 5 - 8, ... tokens of context."""
    most = int(context.max())
    ends = [2**power for power in range((most - 1).bit_length() + 1)]
    names = ["1", *(_span(low + 1, min(high, most)) for low, high in pairwise(ends))]
    return np.digitize(context, ends, right=True), names


def _by_frequency(count: Ints) -> tuple[Ints, list[str]]:
    """Returns the bucket of each token, and the buckets' names: never, 1 - 9, 10 - 99, ... times in training."""
    starts = [10**power for power in range(len(str(count.max())) + 1)]
    return np.digitize(count, starts), ["never", *(_span(low, high - 1) for low, high in pairwise(starts))]


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} - {last:,}"


def _buckets(
    key: Ints,
    names: Sequence[str],
    nll: npt.NDArray[np.float32],
    right: npt.NDArray[np.bool_],
    bigram: npt.NDArray[np.float32] | None,
) -> tuple[Bucket, ...]:
    """Returns the non-empty buckets in the order of their keys, which are indices of `names`."""
    count = np.bincount(key, minlength=len(names))
    loss, accuracy = (np.bincount(key, weights=part, minlength=len(names)) for part in (nll, right))
    simple = None if bigram is None else np.bincount(key, weights=bigram, minlength=len(names))
    return tuple(
        Bucket(
            names[i],
            int(count[i]),
            float(loss[i] / count[i]),
            float(accuracy[i] / count[i]),
            None if simple is None else float(simple[i] / count[i]),
        )
        for i in np.flatnonzero(count).tolist()
    )
