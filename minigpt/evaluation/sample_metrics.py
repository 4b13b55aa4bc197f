"""How diverse and how repetitive samples are, whether their words are real, and how much of them is copied.

None of these figures has a target of its own. A model is healthy when its figures are near those of real text cut into
as many samples of the same length (`real_samples`): diversity falls with length, self-BLEU rises with the number of
samples, and training text shares boilerplate with everything of its kind.

A figure is None where there is nothing to compute it from. N-grams are of words and punctuation marks
(`known_words.word_units`), not of tokens, so figures compare between tokenizers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from minigpt.data import Dataset, TokenFile
from minigpt.evaluation.known_words import known_words, whole_words, word_units
from minigpt.evaluation.memorization import CopyStats, find_copies

LONGEST_LOOP_PERIOD = 64
"""Loops are detected if the repeated passage has at most this many words."""

Name = TypeVar("Name")
Ids = Sequence[int]
Words = Sequence[str]


@dataclass(frozen=True)
class SampleMetrics:
    """The figures of a group of samples. Shares are from 0 to 1.

    Attributes:
        n_samples: the number of samples.
        n_words: the number of words and punctuation marks in them.
        distinct_1, distinct_2, distinct_3: `distinct` for single words, pairs and triples.
        self_bleu: `self_bleu`.
        repetition: the mean of `repetition`.
        loop: the longest of `longest_loop`.
        known_words: the share of words (`known_words.whole_words`) that occur in the training text.
        copied: what of each sample occurs in the training text.
    """

    n_samples: int
    n_words: int
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    self_bleu: float | None
    repetition: float | None
    loop: int | None
    known_words: float | None
    copied: tuple[CopyStats, ...]

    @property
    def longest_copy(self) -> int | None:
        """The length of the longest copied passage, in tokens."""
        return max((copied.longest.length for copied in self.copied), default=None)

    @property
    def mean_longest_copy(self) -> float | None:
        """The mean length of the samples' longest copied passages, in tokens."""
        return _mean([copied.longest.length for copied in self.copied])

    @property
    def copied_share(self) -> float | None:
        """The share of 8-grams of tokens that occur in the training text: the mean over samples that have one."""
        return _mean([share for copied in self.copied if (share := copied.share()) is not None])


def sample_metrics(
    groups: Mapping[Name, Sequence[Ids]],
    dataset: Dataset,
    on_progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> dict[Name, SampleMetrics]:
    """Returns the figures of several groups of samples, for which the training text is read once.

    Args:
        groups: the samples of each group, as tokens; without their prompts, which the model did not choose.
        dataset: what the model was trained on.
        on_progress: called with the phase ("copies", "words"), and the training tokens done and in all.
    """
    texts = {name: [dataset.tokenizer.decode(sample) for sample in samples] for name, samples in groups.items()}
    every_sample = [sample for samples in groups.values() for sample in samples]
    copied = iter(find_copies(dataset.train, every_sample, partial(on_progress, "copies")))
    wanted = {word for group in texts.values() for text in group for word in whole_words(text)}
    known = known_words(dataset.train, dataset.tokenizer, wanted, partial(on_progress, "words"))
    return {name: _metrics(texts[name], [next(copied) for _ in samples], known) for name, samples in groups.items()}


def real_samples(split: TokenFile, n_samples: int, length: int) -> list[list[int]]:
    """Returns passages of a split at fixed positions, evenly spread, to compare samples with.

    Args:
        split: the validation split.
        n_samples: the number of passages; fewer if the split has no room for them without overlap.
        length: tokens in each; fewer if the split or its segments (see `TokenFile.segment_length`) are shorter.
    """
    segment = split.segment_length or split.n_tokens
    length = min(length, segment, split.n_tokens)
    if not length:
        return []
    n_samples = min(n_samples, split.n_tokens // length)
    starts = np.linspace(0, split.n_tokens - length, n_samples).astype(np.int64)
    starts = np.minimum(starts, starts // segment * segment + segment - length)  # none crosses a segment's end
    return [split.read(start, start + length).tolist() for start in starts.tolist()]


def distinct(samples: Sequence[Words], n: int) -> float | None:
    """Returns the share of distinct n-grams among all n-grams of a group (distinct-n, Li et al. 2016)."""
    grams = [gram for sample in samples for gram in _grams(sample, n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(sample: Words, n: int = 4) -> float | None:
    """Returns the share of a sample's n-grams that repeat an earlier one (seq-rep-4, Welleck et al. 2020)."""
    grams = _grams(sample, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def longest_loop(sample: Words) -> int | None:
    """Returns how many words the longest loop has: a passage three or more times in a row; 0 if there is none."""
    if not sample:
        return None
    ids = np.unique(np.asarray(sample, dtype=object), return_inverse=True)[1]
    longest = 0
    for period in range(1, min(LONGEST_LOOP_PERIOD, len(ids) // 3) + 1):
        differ = np.flatnonzero(ids[period:] != ids[:-period])
        alike = int(np.diff(differ, prepend=-1, append=len(ids) - period).max()) - 1
        if alike >= 2 * period:
            longest = max(longest, alike + period)
    return longest


def self_bleu(samples: Sequence[Words]) -> float | None:
    """Returns how similar samples are: the mean BLEU of each with all others as references (Zhu et al. 2018).

    BLEU (Papineni et al. 2002) is the geometric mean of the precisions of n-grams, n from 1 to 4, times a penalty for
    being shorter than the references. No match counts as a tenth of one (Chen and Cherry 2014, method 1), but BLEU is 0
    if not even one word matches. Samples of fewer than four words are skipped; None for fewer than two samples.
    """
    samples = [sample for sample in samples if len(sample) >= 4]
    if len(samples) < 2:
        return None
    lengths = [len(sample) for sample in samples]
    logs = np.zeros(len(samples))
    for n in range(1, 5):
        counts = [Counter(_grams(sample, n)) for sample in samples]
        most, second = _two_highest(counts)
        for number, own in enumerate(counts):
            # The highest count among the others: the highest of all, unless that is this sample's own.
            matches = sum(
                min(count, second[gram] if count == most[gram] else most[gram]) for gram, count in own.items()
            )
            if n == 1 and not matches:
                logs[number] = -math.inf
            logs[number] += math.log((matches or 0.1) / own.total()) / 4
    for number, length in enumerate(lengths):
        others = lengths[:number] + lengths[number + 1 :]
        nearest = min(others, key=lambda other: (abs(other - length), other))
        logs[number] += min(0.0, 1 - nearest / length)
    return float(np.exp(logs).mean())


def _two_highest(counts: list[Counter[tuple[str, ...]]]) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
    """The highest count of each n-gram in any sample, and the second highest, which may be equal."""
    most: Counter[tuple[str, ...]] = Counter()
    second: Counter[tuple[str, ...]] = Counter()
    for own in counts:
        for gram, count in own.items():
            if count > most[gram]:
                most[gram], second[gram] = count, most[gram]
            elif count > second[gram]:
                second[gram] = count
    return most, second


def _grams(sample: Words, n: int) -> list[tuple[str, ...]]:
    return list(zip(*(sample[start:] for start in range(n)), strict=False))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _metrics(texts: Sequence[str], copied: Sequence[CopyStats], known: set[str]) -> SampleMetrics:
    samples = [word_units(text) for text in texts]
    to_check = [word for text in texts for word in whole_words(text)]
    return SampleMetrics(
        n_samples=len(samples),
        n_words=sum(map(len, samples)),
        distinct_1=distinct(samples, 1),
        distinct_2=distinct(samples, 2),
        distinct_3=distinct(samples, 3),
        self_bleu=self_bleu(samples),
        repetition=_mean([share for sample in samples if (share := repetition(sample)) is not None]),
        loop=max((loop for sample in samples if (loop := longest_loop(sample)) is not None), default=None),
        known_words=_mean([word in known for word in to_check]),
        copied=tuple(copied),
    )
