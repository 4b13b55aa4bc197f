"""All places of a text in the order of what stands there: a suffix array cut at a depth, in bounded memory.

Two places are compared by the tokens that follow, the first `depth` of them; what is alike so far stays in the order
of the text. A code is a token's id + 1, and 0 behind the end of the text or behind a seam, where the text does not go
on. As many codes as fit make one 64-bit word, so that comparing a word compares, say, four tokens.

Places are sorted part by part, a part being a range of words that no more than PLACES_AT_ONCE places begin with: one
pass counts how many begin with which words, another writes each place to its part in a scratch file. A part that is
still too large is divided in the same way, by its next word if all its places have the same (a run of spaces in a text
of characters). So the work grows as the text does, nearly.

Not here: looking something up (memorization.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from minigpt.data import TokenFile
from minigpt.data.permutation import U64
from minigpt.evaluation.eval_text import Ints

DEPTH = 32
"""At least so many tokens are compared. Eight would do for words; of characters, millions of places share eight."""
PLACES_AT_ONCE = 2**21
"""The most places sorted at a time: 150 MB."""
TOKENS_AT_ONCE = 2**17  # what is worked on stays in the cache
BINS = 2**16


def place_dtype(n_tokens: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The narrowest type, little-endian on every machine, that holds all places of a text."""
    return np.dtype("<u4") if n_tokens < 2**32 else np.dtype("<u8")


Progress = Callable[[int, int], None]


class IndexedText:
    """The tokens of a split as codes and words.

    Args:
        shard: the split.

    Attributes:
        n: the number of tokens, and so of places.
        depth: how many tokens are compared.
    """

    def __init__(self, shard: TokenFile) -> None:
        self.shard, self.n = shard, shard.n_tokens
        self._bits = shard.vocab_size.bit_length()  # for codes from 0 to vocab_size
        self.per_word = 64 // self._bits
        self.n_words = -(-DEPTH // self.per_word)
        self.depth = self.n_words * self.per_word

    def codes(self, places: Ints, offset: int | Ints) -> U64:
        """Returns what stands `offset` tokens behind places; the two are broadcast."""
        segment_length = self.shard.segment_length
        end = np.minimum((places // segment_length + 1) * segment_length, self.n) if segment_length else self.n
        where = places + offset
        codes = self.shard.tokens.take(where, mode="clip").astype(np.uint64)
        codes += np.uint64(1)
        codes *= where < end
        return codes

    def words(self, places: Ints, number: int) -> U64:
        """Returns the first, second, ... (0, 1, ...) word behind each place, shape (n_places,)."""
        words = np.zeros(len(places), dtype=np.uint64)
        for offset in range(number * self.per_word, (number + 1) * self.per_word):
            words <<= np.uint64(self._bits)
            words |= self.codes(places, offset)
        return words


class SuffixPart(NamedTuple):
    """Places that belong together: alike in their first words, and the next is from `low` to `high`.

    Attributes:
        read: gives the first, second, ... (0, 1, ...) to before the last of two, in the order of the text.
        n_places: how many they are.
        n_alike: in how many words they are alike.
        low, high: the range of the next.
    """

    read: Callable[[int, int], Ints]
    n_places: int
    n_alike: int = 0
    low: int = 0
    high: int = 2**64 - 1


def suffix_array(shard: TokenFile, folder: Path, on_progress: Progress = lambda done, total: None) -> Iterator[Ints]:
    """Yields all places of a split in the order of the tokens that follow, in pieces of at most PLACES_AT_ONCE.

    Args:
        shard: the split. Its tokens are read often and its memory map touched, which the system can take back.
        folder: where a scratch file finds room, about as large as all places are in `place_dtype`. Nothing stays.
        on_progress: told how many places are done, of how many.

    Raises:
        OSError: there is no room.
    """
    text = IndexedText(shard)
    done = 0
    for piece in _in_order(text, SuffixPart(np.arange, text.n), folder) if text.n else ():
        yield piece
        done += len(piece)
        on_progress(done, text.n)


def _in_order(text: IndexedText, part: SuffixPart, folder: Path) -> Iterator[Ints]:
    """Yields the places of a part in their order."""
    if part.low == part.high:
        part = SuffixPart(part.read, part.n_places, part.n_alike + 1)
    if part.n_alike == text.n_words:  # to the last token compared: they are in order already
        yield from _chunks(part)
    elif part.n_places <= PLACES_AT_ONCE:
        yield _sorted(text, part.read(0, part.n_places), part.n_alike)
    else:
        parts = _divided(text, part)
        if len(parts) == 1:
            yield from _in_order(text, parts[0], folder)
            return
        with tempfile.TemporaryFile(dir=folder) as file:
            for smaller in _scattered(text, part, parts, file):
                yield from _in_order(text, smaller, folder)


def _chunks(part: SuffixPart) -> Iterator[Ints]:
    for start in range(0, part.n_places, TOKENS_AT_ONCE):
        yield part.read(start, min(start + TOKENS_AT_ONCE, part.n_places))


def _divided(text: IndexedText, whole: SuffixPart) -> list[SuffixPart]:
    """Cuts a part's range of words into BINS, and puts neighbours together as long as there is room."""
    shift = max(0, (whole.high - whole.low).bit_length() - BINS.bit_length() + 1)
    counts = np.zeros(BINS, dtype=np.int64)
    for places in _chunks(whole):
        bins = (text.words(places, whole.n_alike) - np.uint64(whole.low)) >> np.uint64(shift)
        counts += np.bincount(bins.astype(np.int64), minlength=BINS)
    parts: list[SuffixPart] = []
    for number in np.flatnonzero(counts).tolist():
        low = whole.low + (number << shift)
        high, n_places = low + (1 << shift) - 1, int(counts[number])
        if parts and parts[-1].n_places + n_places <= PLACES_AT_ONCE:
            low, n_places = parts[-1].low, parts[-1].n_places + n_places
            parts.pop()
        parts.append(SuffixPart(whole.read, n_places, whole.n_alike, low, high))
    return parts


def _scattered(text: IndexedText, whole: SuffixPart, parts: list[SuffixPart], file: IO[bytes]) -> list[SuffixPart]:
    """Writes the places of a part to a file, those of each smaller part in a row, and returns these."""
    dtype = place_dtype(text.n)
    lows = np.array([part.low for part in parts], dtype=np.uint64)
    starts = np.cumsum([0, *(part.n_places for part in parts[:-1])])
    ends = starts.copy()  # of what is written
    for places in _chunks(whole):
        which = np.searchsorted(lows, text.words(places, whole.n_alike), side="right") - 1
        which = which.astype(np.uint16)  # there are BINS at most, and these are sorted quickly
        data = places[np.argsort(which, kind="stable")].astype(dtype)
        counts = np.bincount(which, minlength=len(parts))
        stops = np.cumsum(counts)
        for number in np.flatnonzero(counts).tolist():
            file.seek(int(ends[number]) * dtype.itemsize)
            file.write(data[stops[number] - counts[number] : stops[number]].data)
        ends += counts

    def read(first: int, start: int, stop: int) -> Ints:
        file.seek((first + start) * dtype.itemsize)
        return np.frombuffer(file.read((stop - start) * dtype.itemsize), dtype=dtype).astype(np.int64)

    return [part._replace(read=partial(read, start)) for part, start in zip(parts, starts.tolist(), strict=True)]


def _sorted(text: IndexedText, places: Ints, n_alike: int) -> Ints:
    """Returns places that are alike in their first words, given in the order of the text, in their own."""
    words = text.words(places, n_alike)
    order = np.argsort(words, kind="stable")
    places, words = places[order], words[order]
    first = np.diff(words, prepend=~words[:1]) != 0  # whether a group of places that are alike begins here
    for number in range(n_alike + 1, text.n_words):
        tied = np.flatnonzero(~first | ~np.append(first[1:], True))  # in a group of two or more
        if not len(tied):
            break
        group, words = np.cumsum(first[tied]), text.words(places[tied], number)
        order = np.lexsort((words, group))
        places[tied] = places[tied[order]]
        words = words[order]
        first[tied[1:]] |= np.diff(words) != 0  # groups stay where they are, and `first` knows their beginnings
    return places
