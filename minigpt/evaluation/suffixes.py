"""All places of a text in the order of what stands there: a suffix array cut at a depth, in bounded memory.

Two places are compared by the tokens that follow, the first `depth` of them; what is alike so far stays in the order
of the text. A code is a token's id + 1, and 0 behind the end of the text or behind a seam, where the text does not go
on. As many codes as fit make one 64-bit word, so that comparing a word compares, say, four tokens.

Places are sorted part by part, a part being a range of words that no more than PLACES_AT_ONCE places begin with. Where
a single word has more (a run of spaces in a text of characters), its places are told apart by the word after it, and
so on. Each part is one pass through the text.

Not here: looking something up (copying.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from minigpt.data import Shard
from minigpt.data.permutation import U64
from minigpt.evaluation.material import Ints

DEPTH = 32
"""At least so many tokens are compared. Eight would do for words; of characters, millions of places share eight."""
PLACES_AT_ONCE = 2**21
"""The most places sorted at a time: 150 MB."""
TOKENS_AT_ONCE = 2**17  # what is worked on stays in the cache
BINS = 2**16

Progress = Callable[[int, int], None]


class Text:
    """The tokens of a split as codes and words.

    Args:
        shard: the split.

    Attributes:
        n: the number of tokens, and so of places.
        depth: how many tokens are compared.
    """

    def __init__(self, shard: Shard) -> None:
        self.shard, self.n = shard, shard.n_tokens
        self._bits = shard.vocab_size.bit_length()  # for codes from 0 to vocab_size
        self.per_word = 64 // self._bits
        self.n_words = -(-DEPTH // self.per_word)
        self.depth = self.n_words * self.per_word

    def codes(self, places: Ints, offset: int | Ints) -> U64:
        """Returns what stands `offset` tokens behind places; the two are broadcast."""
        seam = self.shard.seam
        end = np.minimum((places // seam + 1) * seam, self.n) if seam else self.n
        where = places + offset
        codes = self.shard.tokens[np.minimum(where, self.n - 1)].astype(np.uint64) + np.uint64(1)
        return np.where(where < end, codes, np.uint64(0))

    def words(self, places: Ints, number: int) -> U64:
        """Returns the first, second, ... (0, 1, ...) word behind each place, shape (n_places,)."""
        return self._packed(self.codes(places, number * self.per_word + j) for j in range(self.per_word))

    def stretch(self, start: int, stop: int) -> Iterator[U64]:
        """Yields the first, second, ... word behind all places from `start` to before `stop`: as `words`, but quick."""
        ids = self.shard.read(start, stop + self.depth)
        codes = np.zeros(stop - start + self.depth, dtype=np.uint64)
        codes[: len(ids)] = ids
        codes[: len(ids)] += np.uint64(1)
        seam = self.shard.seam
        room = seam - np.arange(start, stop) % seam if seam else np.full(1, self.depth)  # (n_places,) or (1,)
        for first in range(0, self.depth, self.per_word):
            offsets = range(first, first + self.per_word)
            yield self._packed(np.where(room > j, codes[j : j + stop - start], np.uint64(0)) for j in offsets)

    def _packed(self, columns: Iterable[U64]) -> U64:
        columns = iter(columns)
        words = next(columns).copy()
        for column in columns:
            words <<= np.uint64(self._bits)
            words |= column
        return words


class Part(NamedTuple):
    """Places that belong together: they begin with the words of `prefix`, and the next is from `low` to `high`."""

    prefix: tuple[int, ...] = ()
    low: int = 0
    high: int = 2**64 - 1
    n_places: int = 0

    @property
    def alike(self) -> bool:
        """Whether all its places have the same next word."""
        return self.low == self.high


def sorted_places(shard: Shard, on_progress: Progress = lambda done, total: None) -> Iterator[Ints]:
    """Yields all places of a split in the order of the tokens that follow, in pieces of at most PLACES_AT_ONCE.

    Args:
        shard: the split. Its tokens are read often and its memory map touched, which the system can take back.
        on_progress: told how many places are done, of how many.
    """
    text = Text(shard)
    done = 0
    for part in _parts(text, Part(n_places=text.n)) if text.n else ():
        if part.n_places > PLACES_AT_ONCE:  # alike to the last token compared: in the order of the text already
            pieces: Iterable[Ints] = (places for places, _ in _select(text, part))
        else:
            pieces = [_sorted(text, part)]
        for piece in pieces:
            yield piece
            done += len(piece)
            on_progress(done, text.n)


def _select(text: Text, part: Part) -> Iterator[tuple[Ints, U64]]:
    """Yields the places of a part in the order of the text, with the word behind its prefix, in stretches."""
    low, high = np.uint64(part.low), np.uint64(part.high)
    for start in range(0, text.n, TOKENS_AT_ONCE):
        columns = text.stretch(start, min(start + TOKENS_AT_ONCE, text.n))
        inside = np.array(True)
        for word in part.prefix:
            inside = inside & (next(columns) == np.uint64(word))
        words = next(columns)
        chosen = np.flatnonzero(inside & (words >= low) & (words <= high))
        yield chosen + start, words[chosen]


def _parts(text: Text, whole: Part) -> Iterator[Part]:
    """Yields parts, in order, that make up a part: none has too many places unless they are alike in every word."""
    if whole.n_places <= PLACES_AT_ONCE or (whole.alike and len(whole.prefix) == text.n_words - 1):
        yield whole
        return
    if whole.alike:  # told apart by the next word
        yield from _parts(text, Part((*whole.prefix, whole.low), n_places=whole.n_places))
        return
    for part in _divided(text, whole):
        yield from _parts(text, part)


def _divided(text: Text, whole: Part) -> list[Part]:
    """Cuts a part's range of words into BINS, and puts neighbours together as long as there is room."""
    shift = max(0, (whole.high - whole.low).bit_length() - BINS.bit_length() + 1)
    counts = np.zeros(BINS, dtype=np.int64)
    for _, words in _select(text, whole):
        bins = (words - np.uint64(whole.low)) >> np.uint64(shift)
        counts += np.bincount(bins.astype(np.int64), minlength=BINS)
    parts: list[Part] = []
    for number in np.flatnonzero(counts).tolist():
        low = whole.low + (number << shift)
        high, n_places = low + (1 << shift) - 1, int(counts[number])
        if parts and parts[-1].n_places + n_places <= PLACES_AT_ONCE:
            low, n_places = parts[-1].low, parts[-1].n_places + n_places
            parts.pop()
        parts.append(Part(whole.prefix, low, high, n_places))
    return parts


def _sorted(text: Text, part: Part) -> Ints:
    """Returns the places of a part in their order."""
    places, words = (np.concatenate(arrays) for arrays in zip(*_select(text, part), strict=True))
    order = np.argsort(words, kind="stable")
    places, words = places[order], words[order]
    first = np.diff(words, prepend=~words[:1]) != 0  # whether a group of places that are alike begins here
    for number in range(len(part.prefix) + 1, text.n_words):
        tied = np.flatnonzero(~first | ~np.append(first[1:], True))  # in a group of two or more
        if not len(tied):
            break
        group, words = np.cumsum(first[tied]), text.words(places[tied], number)
        order = np.lexsort((words, group))
        places[tied] = places[tied[order]]
        words = words[order]
        first[tied[1:]] |= np.diff(words) != 0  # groups stay where they are, and `first` knows their beginnings
    return places
