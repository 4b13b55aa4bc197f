"""Does a sample stand in the training text? An exact index over the tokens of a split, built once and kept.

The index is the list of all places of the text in the order of the tokens that follow (suffixes.py), so that every
sequence of tokens is found by binary search. It is kept beside the tokens, `train.index` beside `train.tokens`; where
that cannot be written, in the user's cache folder. Four bytes a token:

    offset  bytes
         0      8  magic word: "MINIIDX\\n"
         8      4  version of this format
        12      4  bytes of one place: 4, or 8 if there are 2^32 tokens or more
        16      8  number of tokens, and so of places
        24      4  how many tokens were compared
        28      4  seam of the tokens it belongs to, and
        32     32  their SHA-256, both as in their own file
        64     32  SHA-256 of the places
        96     28  zeros
       124      4  CRC-32 of the 124 bytes above
       128         the places

All numbers are unsigned and little-endian. It is written under a temporary name and renamed, so that programs that
build at once do not meet; one that is damaged or of other tokens is built anew.

A run of tokens across the end of a document holds `end_of_text`, and is found for a sample that holds it too. Across
a seam (see `Shard`) the text does not go on, and nothing is found there.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigpt.data import Shard
from minigpt.data.permutation import U64
from minigpt.errors import DataError
from minigpt.evaluation.material import Ints
from minigpt.evaluation.suffixes import Text, sorted_places

MAGIC = b"MINIIDX\n"
VERSION = 1
HEADER_BYTES = 128
_FIELDS = struct.Struct("<8sIIQII32s32s28x")
_PLACES_AT_ONCE = 2**20
_QUERIES_AT_ONCE = 2**12

Places = npt.NDArray[np.unsignedinteger[Any]]
Progress = Callable[[int, int], None]


class Run(NamedTuple):
    """Tokens of a sample that stand in the training text in a row.

    Attributes:
        start: where in the sample they begin.
        length: how many they are; 0 if none of the sample's tokens occurs.
        place: where in the training text they stand, or None; if in several places, one of them.
    """

    start: int = 0
    length: int = 0
    place: int | None = None


class Copied(NamedTuple):
    """How much of a sample stands in the training text.

    Attributes:
        longest: its longest run that does.
        share: of its n-grams, how many do, from 0 to 1; None if it is too short to have one.
    """

    longest: Run
    share: float | None


@dataclass(frozen=True)
class CopyIndex:
    """An open index.

    Attributes:
        shard: the tokens it belongs to.
        places: all places of these, ordered by the tokens that follow; memory-mapped, shape (n_tokens,).
        path: where it is kept.
    """

    shard: Shard
    places: Places
    path: Path

    @classmethod
    def open(cls, shard: Shard, on_progress: Progress = lambda done, total: None) -> CopyIndex:
        """Opens the index of a split, or builds it first.

        Args:
            shard: the split, as `Dataset.train`.
            on_progress: told how many tokens are sorted, of how many; never, if there is an index already.

        Raises:
            DataError: there is no room for it, neither beside the tokens nor in the cache folder.
        """
        kept = shard.path.with_suffix(".index"), _cache_folder() / f"{shard.sha256}.index"
        for path in kept:
            places = _read(path, shard)
            if places is not None:
                return cls(shard, places, path)
        problems = []
        for path in kept:
            try:
                _build(path, shard, on_progress)
            except OSError as error:
                problems.append(f"{path.parent}: {error.strerror or error}")
            places = _read(path, shard)
            if places is not None:
                return cls(shard, places, path)
        raise DataError(
            "The index of the training text could not be written",
            seen="; ".join(problems),
            remedy=f"It takes {HEADER_BYTES + shard.n_tokens * _dtype(shard.n_tokens).itemsize:,} bytes on the disk.",
        )

    @property
    def depth(self) -> int:
        """The longest n-gram that `share` can look up."""
        return self._text.depth

    @cached_property
    def _text(self) -> Text:
        return Text(self.shard)

    def longest(self, ids: Sequence[int] | npt.ArrayLike) -> Run:
        """Returns the longest run of a sample's tokens that stands in the training text; the first of several."""
        return self.copied(ids, 1).longest

    def share(self, ids: Sequence[int] | npt.ArrayLike, n: int = 8) -> float | None:
        """Returns the share of a sample's n-grams that stand in the training text, None if it has no n-gram."""
        return self.copied(ids, n).share

    def copied(self, ids: Sequence[int] | npt.ArrayLike, n: int = 8) -> Copied:
        """Returns both, at the price of one.

        Args:
            ids: the sample's tokens, shape (n_tokens,).
            n: the length of n-grams, from 1 to `depth`.
        """
        assert 1 <= n <= self.depth, n
        sample = np.asarray(ids, dtype=np.int64).reshape(-1)
        if not len(sample) or not self.shard.n_tokens:
            return Copied(Run(), 0.0 if len(sample) >= n else None)
        queries = self._queries(sample)
        rank = np.concatenate([self._rank(part) for part in _split(queries)])
        lengths, places = self._nearest(queries, rank)
        share = float((lengths[: len(sample) - n + 1] >= n).mean()) if len(sample) >= n else None
        start = int(lengths.argmax())
        run = Run(start, int(lengths[start]), int(places[start])) if lengths[start] else Run()
        if run.length == self.depth:
            run = self._beyond_depth(sample, queries, rank, lengths, run)
        return Copied(run, share)

    def document(self, place: int, end_of_text: int) -> int:
        """Returns where the document begins that holds a place of the training text."""
        for stop in range(place, 0, -_PLACES_AT_ONCE):
            start = max(0, stop - _PLACES_AT_ONCE)
            ends = np.flatnonzero(self.shard.read(start, stop) == end_of_text)
            if len(ends):
                return start + int(ends[-1]) + 1
        return 0

    def _queries(self, sample: Ints) -> U64:
        """The tokens from each place of a sample on, as codes, shape (n_tokens, depth). No text has unknown ids."""
        size = self.shard.vocab_size
        known = (sample >= 0) & (sample < size)
        codes = np.zeros(len(sample) + self.depth - 1, dtype=np.uint64)
        codes[: len(sample)] = np.where(known, sample, size) + 1
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

    def _beyond_depth(self, sample: Ints, queries: U64, rank: Ints, lengths: Ints, best: Run) -> Run:
        """The longest run: every place that has the sample's next `depth` tokens is followed further.

        A place whose token before is the sample's, too, belongs to a longer run, which is followed from its beginning.
        No run goes on behind a start that has no match of `depth` tokens, beyond the match that it has.
        """
        starts = np.flatnonzero(lengths == self.depth)
        ends = (np.arange(len(sample)) + lengths)[lengths < self.depth]  # the last start is always one of these
        most = ends[np.searchsorted(np.flatnonzero(lengths < self.depth), np.arange(len(sample)))] - np.arange(
            len(sample)
        )
        last = np.concatenate([self._rank(part, after=True) for part in _split(queries[starts])])
        for low, high in sorted(set(zip(rank[starts].tolist(), last.tolist(), strict=True))):
            same = starts[rank[starts] == low].tolist()  # a text of one token many times starts alike at all of them
            for places in self._in_parts(low, high):
                before = self._before(places)
                fresh = {
                    token: places[before != token] for token in {int(sample[start - 1]) for start in same if start}
                }
                for start in same:
                    if best.length < most[start]:
                        mine = fresh[int(sample[start - 1])] if start else places
                        mine = mine[self._text.codes(mine, best.length) == np.uint64(sample[start + best.length] + 1)]
                        best = max(best, self._follow(sample, start, mine), key=lambda run: run.length)
        return best

    def _in_parts(self, low: int, high: int) -> Iterator[Ints]:
        """A range of the order; the first parts are short, since a long run found early spares most of the work."""
        size = 2**6
        while low < high:
            yield self.places[low : min(low + size, high)].astype(np.int64)
            low, size = low + size, min(16 * size, _PLACES_AT_ONCE)

    def _before(self, places: Ints) -> Ints:
        """The token before each place, or -1 where the text begins."""
        first = places % self.shard.seam == 0 if self.shard.seam else places == 0
        return np.where(first, -1, self.shard.tokens[np.maximum(places - 1, 0)].astype(np.int64))

    def _follow(self, sample: Ints, start: int, places: Ints) -> Run:
        """The longest run from a start, given places that have its first `depth` tokens."""
        length, run = self.depth, Run()
        while len(places):
            run = Run(start, length, int(places[0]))
            if start + length == len(sample):
                break
            places = places[self._text.codes(places, length) == np.uint64(sample[start + length] + 1)]
            length += 1
        return run


def _split(queries: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Queries in parts, so that memory stays small; at least one part."""
    return [queries[start : start + _QUERIES_AT_ONCE] for start in range(0, max(1, len(queries)), _QUERIES_AT_ONCE)]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minigpt"


def _dtype(n_tokens: int) -> np.dtype[np.unsignedinteger[Any]]:
    return np.dtype("<u4") if n_tokens < 2**32 else np.dtype("<u8")


def _header(shard: Shard, sha256: bytes) -> bytes:
    form = MAGIC, VERSION, _dtype(shard.n_tokens).itemsize, shard.n_tokens, Text(shard).depth
    head = _FIELDS.pack(*form, shard.seam, bytes.fromhex(shard.sha256), sha256)
    return head + struct.pack("<I", zlib.crc32(head))


def _build(path: Path, shard: Shard, on_progress: Progress) -> None:
    """Writes the index of a split; one that is there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    digest = hashlib.sha256()
    try:
        with temporary.open("xb") as file:
            file.write(bytes(HEADER_BYTES))
            for places in sorted_places(shard, on_progress):
                data = places.astype(_dtype(shard.n_tokens))
                digest.update(data.data)
                file.write(data.data)
            file.seek(0)
            file.write(_header(shard, digest.digest()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, shard: Shard) -> Places | None:
    """The places in an index, or None if it is not there, damaged, or of other tokens."""
    dtype = _dtype(shard.n_tokens)
    try:
        if path.stat().st_size != HEADER_BYTES + shard.n_tokens * dtype.itemsize:
            return None
        with path.open("rb") as file:
            header, digest = file.read(HEADER_BYTES), hashlib.sha256()
            while data := file.read(_PLACES_AT_ONCE * dtype.itemsize):
                digest.update(data)
                if np.frombuffer(data, dtype=dtype).max() >= shard.n_tokens:
                    return None
        if header != _header(shard, digest.digest()):
            return None
        if not shard.n_tokens:
            return np.empty(0, dtype=dtype)  # nothing cannot be mapped
        return np.memmap(path, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(shard.n_tokens,))
    except OSError:
        return None
