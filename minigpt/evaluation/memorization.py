"""Which passages of a sample also occur in the training text? Exact answers, in one pass over the training tokens.

The samples are small, so they are indexed and the training text is not: all suffixes of the samples are sorted, and
each position of the training text walks down that order, a 64-bit word of tokens at a time, until no suffix agrees with
it. Most positions stop at the first word. Nothing is built or kept on disk, and memory depends on the samples only.

A passage that crosses the end of a document contains `end_of_text`, and is found only for a sample that contains it.
Nothing is found across the segments of a split by sequences (see `TokenFile`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minigpt.data import TokenFile
from minigpt.data.permutation import U64
from minigpt.evaluation.eval_text import Ints

TOKENS_AT_ONCE = 2**17  # what is worked on stays in the cache


class CopiedRun(NamedTuple):
    """Consecutive tokens of a sample that also occur in the training text.

    Attributes:
        start: the position in the sample at which they begin.
        length: how many they are; 0 if none of the sample's tokens occurs.
        position: the position in the training text, one of several; None if the length is 0.
    """

    start: int = 0
    length: int = 0
    position: int | None = None


@dataclass(frozen=True, eq=False)
class CopyStats:
    """What of a sample occurs in the training text.

    Attributes:
        lengths: for each start in the sample, the length of the longest passage that occurs, shape (n_tokens,).
        positions: where it occurs, shape (n_tokens,).
    """

    lengths: Ints
    positions: Ints

    @property
    def longest(self) -> CopiedRun:
        """The longest passage, the first of several."""
        if not self.lengths.any():
            return CopiedRun()
        start = int(self.lengths.argmax())
        return CopiedRun(start, int(self.lengths[start]), int(self.positions[start]))

    def share(self, n: int = 8) -> float | None:
        """Returns the share of the sample's n-grams that occur in the training text, None if it has no n-gram."""
        lengths = self.lengths[: len(self.lengths) - n + 1]
        return float((lengths >= n).mean()) if len(self.lengths) >= n else None

    def runs(self, n: int = 8) -> list[CopiedRun]:
        """Returns all passages of n tokens or more that no longer one contains, by their starts; they may overlap."""
        ends = np.arange(len(self.lengths)) + self.lengths
        maximal = np.diff(np.maximum.accumulate(ends), prepend=0) > 0
        starts = np.flatnonzero(maximal & (self.lengths >= max(n, 1)))
        return [CopiedRun(start, int(self.lengths[start]), int(self.positions[start])) for start in starts.tolist()]


def find_copies(
    train: TokenFile,
    samples: Sequence[Sequence[int] | npt.ArrayLike],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[CopyStats]:
    """Returns for each sample, given as token ids, what of it occurs in the training text.

    Args:
        train: the training split.
        samples: tokens, each of shape (n_tokens,); ids outside the vocabulary occur nowhere.
        on_progress: called with training tokens done and in all.
    """
    index = _SampleIndex([_codes_of(sample, train.vocab_size) for sample in samples], train.vocab_size)
    for start in range(0, train.n_tokens if index.longest else 0, TOKENS_AT_ONCE):
        stop = min(start + TOKENS_AT_ONCE, train.n_tokens)
        index.search(*_codes_in(train, start, stop + index.longest), stop)
        on_progress(stop, train.n_tokens)
    return list(index.stats())


def _codes_of(sample: Sequence[int] | npt.ArrayLike, vocab_size: int) -> U64:
    """A sample as codes: id + 1, or vocab_size + 1 for an id that no text has; 0 is kept for ends."""
    ids = np.asarray(sample, dtype=np.int64).reshape(-1)
    return np.where((ids >= 0) & (ids < vocab_size), ids + 1, vocab_size + 1).astype(np.uint64)


def _codes_in(train: TokenFile, start: int, stop: int) -> tuple[U64, Ints]:
    """A part of the training text as codes, with a 0 at each segment's end, and their positions, shape (n,)."""
    codes = train.read(start, stop).astype(np.uint64) + np.uint64(1)
    positions = np.arange(start, start + len(codes))
    if train.segment_length:
        cuts = np.flatnonzero(positions % train.segment_length == 0)
        codes, positions = np.insert(codes, cuts, 0), np.insert(positions, cuts, positions[cuts])
    return codes, positions


class _SampleIndex:
    """All suffixes of some samples, sorted, each with the longest match found so far.

    A suffix's rank is its position in that order. The suffixes that begin alike are a range of ranks, sorted by what
    follows, so each word of a text narrows the range.
    """

    def __init__(self, samples: Sequence[U64], vocab_size: int) -> None:
        self.longest = max(map(len, samples), default=0)
        self._bits = (vocab_size + 1).bit_length()
        self._per_word = 64 // self._bits
        self._ends = np.cumsum([len(sample) + 1 for sample in samples])
        self._codes = np.concatenate([*(np.append(sample, np.uint64(0)) for sample in samples), np.zeros(1, np.uint64)])
        self._order = _suffix_order(self._codes)
        self._words: list[U64] = []  # the first, second, ... word of the suffix of each rank
        self._length, self._position = np.zeros((2, len(self._codes)), dtype=np.int64)  # by rank

    def _zeros(self) -> U64:
        return np.zeros(self.longest + self._per_word, dtype=np.uint64)

    def search(self, codes: U64, positions: Ints, stop: int) -> None:
        """Finds passages of the samples that begin before position `stop` in a part of the text."""
        at = np.arange(int(np.searchsorted(positions, stop)))
        codes = np.concatenate([codes, self._zeros()])
        low, high = np.zeros(len(at), dtype=np.int64), np.full(len(at), len(self._order))
        depth = 0
        while len(at):
            if depth == len(self._words) * self._per_word:
                self._words.append(self._pack(self._codes, np.minimum(self._order + depth, len(self._codes) - 1)))
            own, text = self._words[depth // self._per_word], self._pack(codes, at + depth)
            rank = _bisect(own, text, low, high) if depth else np.searchsorted(own, text)
            for neighbour, inside in ((rank - 1, rank > low), (rank, rank < high)):
                self._keep(neighbour[inside], own, text[inside], depth, positions[at[inside]])
            ends = (text & np.uint64(2**self._bits - 1)) == 0
            on = np.flatnonzero((rank < high) & ~ends & (own[np.minimum(rank, len(own) - 1)] == text))
            at, low, high = at[on], rank[on], _bisect(own, text[on] + np.uint64(1), rank[on], high[on])
            depth += self._per_word

    def _pack(self, codes: U64, at: Ints) -> U64:
        """The word of codes from each position on; behind a 0 there are only zeros."""
        words, alive = np.zeros(len(at), dtype=np.uint64), np.ones(len(at), dtype=bool)
        for offset in range(self._per_word):
            code = codes.take(at + offset, mode="clip")
            alive &= code != 0
            words <<= np.uint64(self._bits)
            words |= code * alive
        return words

    def _keep(self, rank: Ints, own: U64, text: U64, depth: int, positions: Ints) -> None:
        """Keeps matches that are longer than those found before, given words that follow `depth` tokens alike."""
        better = np.clip(self._length + 1 - depth, 0, self._per_word)  # tokens of a word that must agree
        shift = ((self._per_word - better) * self._bits).astype(np.uint64)
        some = np.flatnonzero((own[rank] ^ text) >> shift[rank] == 0)
        rank, text, positions = rank[some], text[some], positions[some]
        length, alive = np.full(len(rank), depth), np.ones(len(rank), dtype=bool)
        for number in range(self._per_word - 1, -1, -1):
            code, other = (word >> np.uint64(number * self._bits) for word in (text, own[rank]))
            alive &= (code == other) & (code & np.uint64(2**self._bits - 1) != 0)
            length += alive
        order = np.argsort(length, kind="stable")  # of several assignments to one rank the last counts
        order = order[length[order] > self._length[rank[order]]]
        self._length[rank[order]], self._position[rank[order]] = length[order], positions[order]

    def stats(self) -> Iterator[CopyStats]:
        """Yields the result of each sample."""
        length, position = self._length.tolist(), self._position.tolist()
        # What a suffix matches, others match as far as they begin alike: neighbours tell neighbours.
        common = self._common().tolist()  # with the suffix one rank before
        for ranks, step in ((range(1, len(length)), -1), (range(len(length) - 2, -1, -1), 1)):
            for rank in ranks:
                shared = min(length[rank + step], common[max(rank, rank + step)])
                if shared > length[rank]:
                    length[rank], position[rank] = shared, position[rank + step]
        by_start = np.empty((2, len(length)), dtype=np.int64)
        by_start[:, self._order] = length, position
        start = 0
        for end in self._ends.tolist():
            yield CopyStats(*by_start[:, start : end - 1])
            start = end

    def _common(self) -> Ints:
        """How many tokens each rank's suffix has in common with the one before it, shape (n_ranks,)."""
        common, alive, depth = np.zeros(len(self._order), dtype=np.int64), np.arange(1, len(self._order)), 0
        while len(alive):
            one, other = (self._codes[self._order[alive - back] + depth] for back in (0, 1))
            alive = alive[(one == other) & (one != 0)]
            common[alive] += 1
            depth += 1
        return common


def _suffix_order(codes: U64) -> Ints:
    """The starts of all suffixes of an array in their order, by ranks of prefixes of 1, 2, 4, ... codes."""
    n, width = len(codes), 1
    rank = np.unique(codes, return_inverse=True)[1]
    while width < n and rank.max() < n - 1:
        following = np.zeros(n, dtype=np.int64)
        following[:-width] = rank[width:] + 1
        rank = np.unique(rank * (n + 1) + following, return_inverse=True)[1]
        width *= 2
    return np.argsort(rank, kind="stable")


def _bisect(words: U64, wanted: U64, low: Ints, high: Ints) -> Ints:
    """For each wanted word, the first rank from `low` to `high` whose word is not smaller."""
    while (open_ := low < high).any():
        middle = (low + high) // 2
        smaller = words[np.minimum(middle, len(words) - 1)] < wanted
        low, high = np.where(open_ & smaller, middle + 1, low), np.where(open_ & ~smaller, middle, high)
    return low
