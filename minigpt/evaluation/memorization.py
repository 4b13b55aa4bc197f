"""Does a sample stand in the training text? Exact answers, by binary search in the order of all its places.

The order is built once and kept (suffix_array_file.py). A sequence of tokens has its longest match beside the place
where it
would stand itself; matches longer than what the order compares are followed token by token.

A run of tokens across the end of a document holds `end_of_text`, and is found for a sample that holds it too. Across
a seam (see `TokenFile`) the text does not go on, and nothing is found there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigpt.data import TokenFile
from minigpt.data.permutation import U64
from minigpt.evaluation.eval_text import Ints
from minigpt.evaluation.suffix_array import IndexedText, Progress
from minigpt.evaluation.suffix_array_file import Places, open_suffix_array

_PLACES_AT_ONCE = 2**20
_QUERIES_AT_ONCE = 2**12


class CopiedRun(NamedTuple):
    """Tokens of a sample that stand in the training text in a row.

    Attributes:
        start: where in the sample they begin.
        length: how many they are; 0 if none of the sample's tokens occurs.
        place: where in the training text they stand, or None; if in several places, one of them.
    """

    start: int = 0
    length: int = 0
    place: int | None = None


class CopyStats(NamedTuple):
    """How much of a sample stands in the training text.

    Attributes:
        longest: its longest run that does.
        share: of its n-grams, how many do, from 0 to 1; None if it is too short to have one.
    """

    longest: CopiedRun
    share: float | None


@dataclass(frozen=True)
class CopyIndex:
    """An open index.

    Attributes:
        shard: the tokens it belongs to.
        places: all places of these, ordered by the tokens that follow; memory-mapped, shape (n_tokens,).
        path: where it is kept.
    """

    shard: TokenFile
    places: Places
    path: Path

    @classmethod
    def open(cls, shard: TokenFile, on_progress: Progress = lambda done, total: None) -> CopyIndex:
        """Opens the index of a split, or builds it first.

        Args:
            shard: the split, as `Dataset.train`.
            on_progress: told how many tokens are sorted, of how many; never, if there is an index already.

        Raises:
            DataError: there is no room for it, neither beside the tokens nor in the cache folder.
        """
        return cls(shard, *open_suffix_array(shard, on_progress))

    @property
    def depth(self) -> int:
        """The longest n-gram that `share` can look up."""
        return self._text.depth

    @cached_property
    def _text(self) -> IndexedText:
        return IndexedText(self.shard)

    def longest(self, ids: Sequence[int] | npt.ArrayLike) -> CopiedRun:
        """Returns the longest run of a sample's tokens that stands in the training text; the first of several."""
        return self.copied(ids, 1).longest

    def share(self, ids: Sequence[int] | npt.ArrayLike, n: int = 8) -> float | None:
        """Returns the share of a sample's n-grams that stand in the training text, None if it has no n-gram."""
        return self.copied(ids, n).share

    def copied(self, ids: Sequence[int] | npt.ArrayLike, n: int = 8) -> CopyStats:
        """Returns both, at the price of one.

        Args:
            ids: the sample's tokens, shape (n_tokens,).
            n: the length of n-grams, from 1 to `depth`.
        """
        assert 1 <= n <= self.depth, n
        lengths, places = self._matches(self._known(ids))
        runs = _maximal(lengths, places)
        share = float((lengths[: len(lengths) - n + 1] >= n).mean()) if len(lengths) >= n else None
        return CopyStats(max(runs, key=lambda run: run.length, default=CopiedRun()), share)

    def copies(self, ids: Sequence[int] | npt.ArrayLike, n: int = 8) -> list[CopiedRun]:
        """Returns all runs of a sample's tokens that stand in the training text and that no longer one contains.

        Args:
            ids: the sample's tokens, shape (n_tokens,).
            n: the length of the shortest run to return, 1 or more.

        Returns:
            By their starts, and so by their ends; neighbours may overlap.
        """
        return [run for run in _maximal(*self._matches(self._known(ids))) if run.length >= n]

    def document(self, place: int, end_of_text: int) -> int:
        """Returns where the document begins that holds a place of the training text, or its stretch (see
        `TokenFile`)."""
        first = place // self.shard.segment_length * self.shard.segment_length if self.shard.segment_length else 0
        for stop in range(place, first, -_PLACES_AT_ONCE):
            start = max(first, stop - _PLACES_AT_ONCE)
            ends = np.flatnonzero(self.shard.read(start, stop) == end_of_text)
            if len(ends):
                return start + int(ends[-1]) + 1
        return first

    def _known(self, ids: Sequence[int] | npt.ArrayLike) -> Ints:
        """A sample's tokens; unknown ids, which no text has, are the vocabulary's size."""
        sample, size = np.asarray(ids, dtype=np.int64).reshape(-1), self.shard.vocab_size
        return np.where((sample >= 0) & (sample < size), sample, size)

    def _matches(self, sample: Ints) -> tuple[Ints, Ints]:
        """The length of the longest match at each start of a sample, and its place, both of shape (n_tokens,).

        A match that an earlier start's match contains may be given too short, but not below `depth`.
        """
        if not len(sample) or not self.shard.n_tokens:
            return np.zeros(len(sample), dtype=np.int64), np.zeros(len(sample), dtype=np.int64)
        queries = self._queries(sample)
        rank = np.concatenate([self._rank(part) for part in _split(queries)])
        lengths, places = self._nearest(queries, rank)
        if (lengths == self.depth).any():
            self._go_beyond_depth(sample, queries, rank, lengths, places)
        return lengths, places

    def _queries(self, sample: Ints) -> U64:
        """The tokens from each place of a sample on, as codes, shape (n_tokens, depth)."""
        codes = np.zeros(len(sample) + self.depth - 1, dtype=np.uint64)
        codes[: len(sample)] = sample + 1
        return np.lib.stride_tricks.sliding_window_view(codes, self.depth)

    def _rank(self, queries: U64, *, after: bool = False) -> Ints:
        """How many places stand before each query in the order, shape (n,); or before and at it."""
        text, columns, rows = self._text, np.arange(self.depth), np.arange(len(queries))
        low, high = np.zeros(len(queries), dtype=np.int64), np.full(len(queries), text.n)
        while (open_ := low < high).any():
            middle = np.minimum((low + high) // 2, text.n - 1)
            codes = text.codes(self.places[middle].astype(np.int64)[:, None], columns)  # (n, depth)
            first = (codes != queries).argmax(axis=1)
            theirs, ours = codes[rows, first], queries[rows, first]
            before = theirs <= ours if after else theirs < ours
            low, high = np.where(open_ & before, middle + 1, low), np.where(open_ & ~before, middle, high)
        return low

    def _nearest(self, queries: U64, rank: Ints) -> tuple[Ints, Ints]:
        """The longest match of each query, up to `depth`, and its place: it stands beside the query in the order."""
        text, columns = self._text, np.arange(self.depth)
        room = np.minimum(len(queries) - np.arange(len(queries)), self.depth)  # a sample ends, too
        lengths, places = np.zeros(len(queries), dtype=np.int64), np.zeros(len(queries), dtype=np.int64)
        for neighbour in (rank, rank - 1):
            found = self.places[np.clip(neighbour, 0, text.n - 1)].astype(np.int64)
            for rows in _split(np.arange(len(queries))):
                same = text.codes(found[rows, None], columns) == queries[rows]  # (n, depth)
                length = np.minimum(np.cumprod(same, axis=1).sum(axis=1), room[rows])
                better = rows[length > lengths[rows]]
                lengths[better], places[better] = length[length > lengths[rows]], found[better]
        return lengths, places

    def _go_beyond_depth(self, sample: Ints, queries: U64, rank: Ints, lengths: Ints, places: Ints) -> None:
        """Corrects matches of `depth` tokens: every place that has these is followed further.

        A place whose token before is the sample's, too, belongs to a longer match, which is followed from its
        beginning. What does not reach beyond the matches of earlier starts is not followed. No match goes on behind a
        start that has no match of `depth` tokens, beyond the match that it has.
        """
        starts, others = np.flatnonzero(lengths == self.depth), np.flatnonzero(lengths < self.depth)
        stop = others[np.searchsorted(others, starts)]  # there is one behind each: the sample's end leaves no room
        most = dict(zip(starts.tolist(), (stop + lengths[stop]).tolist(), strict=True))
        reach = np.maximum.accumulate(np.arange(len(sample)) + lengths)  # where the matches found so far end
        last = np.concatenate([self._rank(part, after=True) for part in _split(queries[starts])])
        for low, high in dict.fromkeys(zip(rank[starts].tolist(), last.tolist(), strict=True)):
            same = starts[rank[starts] == low].tolist()  # a text of one token many times starts alike at all of them
            for part in self._in_parts(low, high):
                before = self._before(part)
                tokens = {int(sample[start - 1]) for start in same if start}
                fresh = {token: part[before != token] for token in tokens}
                for start in same:
                    end = int(reach[start])
                    if end == most[start]:
                        continue
                    mine = fresh[int(sample[start - 1])] if start else part
                    mine = mine[self._text.codes(mine, end - start) == np.uint64(sample[end] + 1)]
                    run = self._follow(sample, start, mine)
                    if start + run.length > end and run.place is not None:
                        lengths[start], places[start] = run.length, run.place
                        reach[start:] = np.maximum(reach[start:], start + run.length)

    def _in_parts(self, low: int, high: int) -> Iterator[Ints]:
        """A range of the order; the first parts are short, since a long run found early spares most of the work."""
        size = 2**6
        while low < high:
            yield self.places[low : min(low + size, high)].astype(np.int64)
            low, size = low + size, min(16 * size, _PLACES_AT_ONCE)

    def _before(self, places: Ints) -> Ints:
        """The token before each place, or -1 where the text begins."""
        first = places % self.shard.segment_length == 0 if self.shard.segment_length else places == 0
        return np.where(first, -1, self.shard.tokens[np.maximum(places - 1, 0)].astype(np.int64))

    def _follow(self, sample: Ints, start: int, places: Ints) -> CopiedRun:
        """The longest run from a start, given places that have its first `depth` tokens."""
        length, run = self.depth, CopiedRun()
        while len(places):
            run = CopiedRun(start, length, int(places[0]))
            if start + length == len(sample):
                break
            places = places[self._text.codes(places, length) == np.uint64(sample[start + length] + 1)]
            length += 1
        return run


def _maximal(lengths: Ints, places: Ints) -> list[CopiedRun]:
    """The matches that none of an earlier start contains. A later start's match never ends before."""
    ends = np.arange(len(lengths)) + lengths
    new = np.diff(np.maximum.accumulate(ends), prepend=0) > 0
    starts = np.flatnonzero(new & (lengths > 0))
    return [CopiedRun(start, int(lengths[start]), int(places[start])) for start in starts.tolist()]


def _split(queries: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Queries in parts, so that memory stays small; at least one part."""
    return [queries[start : start + _QUERIES_AT_ONCE] for start in range(0, max(1, len(queries)), _QUERIES_AT_ONCE)]
