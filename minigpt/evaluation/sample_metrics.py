"""What a group of samples is like: how diverse, how repetitive, which words, how much of it copied.

None of these has a target of its own. A model is healthy when its figures are near those of real text cut to the same
number of pieces of the same length, which `real_samples` gives: diversity falls with length, self-BLEU rises with the
number of samples, and training text shares boilerplate with everything of its kind.

A figure is None where there is nothing to compute it from. `words.pieces` says what a piece is: a word, or another
character that is not white space; so figures compare between tokenizers.
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
from minigpt.evaluation.known_words import known_words, pieces, words
from minigpt.evaluation.memorization import CopyIndex, CopyStats

LONGEST_PASSAGE = 64
"""A loop that says more pieces than these again and again is not looked for."""

Name = TypeVar("Name")
Ids = Sequence[int]
Pieces = Sequence[str]


@dataclass(frozen=True)
class SampleMetrics:
    """The figures of a group of samples. Shares are from 0 to 1.

    Attributes:
        n_samples: how many samples.
        n_pieces: how many words and other marks they have.
        distinct_1, distinct_2, distinct_3: `distinct` for single pieces, pairs and triples.
        self_bleu: `self_bleu`.
        repetition: the mean of `repetition`.
        loop: the longest of `longest_loop`.
        known_words: the share of words (`words.words`) that the training text knows.
        copied: of each sample, its longest run in the training text and the share of its 8-grams that stand there.
    """

    n_samples: int
    n_pieces: int
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
        """How many tokens the longest run of all has."""
        return max((copied.longest.length for copied in self.copied), default=None)

    @property
    def mean_longest_copy(self) -> float | None:
        """How many tokens the samples' longest runs have on average."""
        return _mean([copied.longest.length for copied in self.copied])

    @property
    def copied_share(self) -> float | None:
        """The share of 8-grams that stand in the training text, on average over samples that have one."""
        return _mean([copied.share for copied in self.copied if copied.share is not None])


def sample_metrics(
    groups: Mapping[Name, Sequence[Ids]],
    dataset: Dataset,
    on_progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> dict[Name, SampleMetrics]:
    """Returns the figures of several groups of samples, which share one look at the training text.

    Args:
        groups: the samples of each group, as tokens; without their prompts, which the model did not choose.
        dataset: what the model was trained on.
        on_progress: told what is done ("indexing", "words"), how much of it, and of how much, in training tokens.

    Raises:
        DataError: the index of the training text cannot be written.
    """
    texts = {name: [dataset.tokenizer.decode(sample) for sample in samples] for name, samples in groups.items()}
    index = CopyIndex.open(dataset.train, partial(on_progress, "indexing"))
    wanted = {word for group in texts.values() for text in group for word in words(text)}
    known = known_words(dataset.train, dataset.tokenizer, wanted, partial(on_progress, "words"))
    return {name: _figures(samples, texts[name], index, known) for name, samples in groups.items()}


def real_samples(shard: TokenFile, n_samples: int, length: int) -> list[list[int]]:
    """Returns pieces of a split at fixed places, evenly spread, as a yardstick beside samples.

    Args:
        shard: the validation split.
        n_samples: how many; fewer, if the split has no room for so many side by side.
        length: how many tokens each has; fewer, if the split or its stretches (see `TokenFile.segment_length`) are
        shorter.
    """
    stretch = shard.segment_length or shard.n_tokens
    length = min(length, stretch, shard.n_tokens)
    if not length:
        return []
    n_samples = min(n_samples, shard.n_tokens // length)
    starts = np.linspace(0, shard.n_tokens - length, n_samples).astype(np.int64)
    starts = np.minimum(starts, starts // stretch * stretch + stretch - length)  # none crosses a seam
    return [shard.read(start, start + length).tolist() for start in starts.tolist()]


def distinct(samples: Sequence[Pieces], n: int) -> float | None:
    """Returns how many of a group's n-grams are different, as a share of all (Li et al. 2016)."""
    grams = [gram for sample in samples for gram in _grams(sample, n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(sample: Pieces, n: int = 4) -> float | None:
    """Returns the share of a sample's n-grams that occurred in it before ("seq-rep-4", Welleck et al. 2020)."""
    grams = _grams(sample, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def longest_loop(sample: Pieces) -> int | None:
    """Returns how many pieces in a row are one passage said three times or more; 0 if there is none."""
    if not sample:
        return None
    ids = np.unique(np.asarray(sample, dtype=object), return_inverse=True)[1]
    longest = 0
    for period in range(1, min(LONGEST_PASSAGE, len(ids) // 3) + 1):
        differ = np.flatnonzero(ids[period:] != ids[:-period])
        alike = int(np.diff(differ, prepend=-1, append=len(ids) - period).max()) - 1
        if alike >= 2 * period:
            longest = max(longest, alike + period)
    return longest


def self_bleu(samples: Sequence[Pieces]) -> float | None:
    """Returns how much samples say the same: the mean BLEU of each with all others as references (Zhu et al. 2018).

    BLEU (Papineni et al. 2002) is the geometric mean of the precisions of n-grams, n from 1 to 4, times a penalty for
    being shorter than the references. No match counts as a tenth of one (Chen and Cherry 2014, method 1), but without a
    single piece in common BLEU is 0. Samples of fewer than four pieces are left out, and one alone has no self-BLEU.
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
    """The highest count of every n-gram in a sample, and the second highest, which may be as high."""
    most: Counter[tuple[str, ...]] = Counter()
    second: Counter[tuple[str, ...]] = Counter()
    for own in counts:
        for gram, count in own.items():
            if count > most[gram]:
                most[gram], second[gram] = count, most[gram]
            elif count > second[gram]:
                second[gram] = count
    return most, second


def _grams(sample: Pieces, n: int) -> list[tuple[str, ...]]:
    return list(zip(*(sample[start:] for start in range(n)), strict=False))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _figures(samples: Sequence[Ids], texts: Sequence[str], index: CopyIndex, known: set[str]) -> SampleMetrics:
    said = [pieces(text) for text in texts]
    spoken = [word for text in texts for word in words(text)]
    return SampleMetrics(
        n_samples=len(samples),
        n_pieces=sum(map(len, said)),
        distinct_1=distinct(said, 1),
        distinct_2=distinct(said, 2),
        distinct_3=distinct(said, 3),
        self_bleu=self_bleu(said),
        repetition=_mean([share for sample in said if (share := repetition(sample)) is not None]),
        loop=max((loop for sample in said if (loop := longest_loop(sample)) is not None), default=None),
        known_words=_mean([word in known for word in spoken]),
        copied=tuple(index.copied(sample) for sample in samples),
    )
