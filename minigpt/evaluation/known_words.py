"""The words of a text, in any script, and which of them the training text knows.

A word is letters, their marks (accents, vowel signs), digits and underscores in a row, parts of it joined by
apostrophes: `don't`, `naïve`, `block_size`, `हिन्दी`. Upper and lower case are one. Chinese, Japanese, Thai, Lao, Khmer
and Burmese put no spaces between words; there every character with its marks is taken for a word. One character says
little about whether a text knows a language, so of these the training text is asked for pairs of neighbours, as search
engines do.

Broken characters (U+FFFD) count as letters, so that a word with one in it is known nowhere.
"""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise

from minigpt.data import TokenFile
from minigpt.tokenizers import Tokenizer

TOKENS_AT_ONCE = 2**18
MOST_SEEN, LONGEST_SEEN = 2**19, 64
"""So many strings are known again when they come back, none longer; in characters."""
LONGEST = 2**20
"""So many characters without a space are cut, to hold no more of them."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai and Lao, Burmese, Khmer
    *((0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),  # Japanese
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),  # Chinese characters
)


class _Patterns:
    """Regular expressions, whose character classes take 0.1 s to collect."""

    def __init__(self) -> None:
        marks = _character_class(range(sys.maxunicode + 1), "M")
        unspaced = _character_class((code for low, high in _UNSPACED for code in range(low, high + 1)), "L")
        word = rf"[\w{marks}{_BROKEN}]+(?:'[\w{marks}{_BROKEN}]+)*"
        self.word = re.compile(word)
        self.piece = re.compile(rf"{word}|\S")
        self.unspaced = re.compile(f"[{unspaced}]")
        self.character = re.compile(f"[{unspaced}][{marks}]*")
        self.part = re.compile(f"(?:[{unspaced}][{marks}]*)+|[^{unspaced}]+")


@cache
def _patterns() -> _Patterns:
    return _Patterns()


def _character_class(codes: Iterable[int], category: str) -> str:
    """What stands between the brackets of a class of the characters of one category."""
    ranges: list[list[int]] = []
    for code in codes:
        if unicodedata.category(chr(code))[0] == category:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)


def _plain(text: str) -> str:
    """The text with one case and one apostrophe."""
    return text.casefold().replace("’", "'")


def pieces(text: str) -> list[str]:
    """Returns a text's words and its other characters that are not white space, in their order."""
    found: list[str] = []
    for piece in _patterns().piece.findall(_plain(text)):
        for part in _parts(piece):
            found += _patterns().character.findall(part) if _patterns().unspaced.match(part) else [part]
    return found


def words(text: str) -> list[str]:
    """Returns the words to look for in the training text, in their order.

    Numbers are left out, and so is a word at the very beginning or end: it may be cut.
    """
    text = f"{_BROKEN}{_plain(text)}{_BROKEN}"  # which become part of a word that may be cut
    found = []
    for match in _patterns().word.finditer(text):
        parts = _parts(match.group())
        for number, part in enumerate(parts):
            cut = (match.start() == 0 and number == 0) or (match.end() == len(text) and number == len(parts) - 1)
            if _patterns().unspaced.match(part):
                found += _pairs(part)
            elif not cut and any(character.isalpha() for character in part):
                found.append(part)
    return found


def _parts(word: str) -> list[str]:
    """A word where it changes between scripts with spaces between words, and those without."""
    return _patterns().part.findall(word) if not word.isascii() and _patterns().unspaced.search(word) else [word]


def _pairs(part: str) -> list[str]:
    """The pairs of neighbours in a row of characters, or the only one."""
    characters = _patterns().character.findall(part)
    return [first + second for first, second in pairwise(characters)] or characters


def known_words(
    shard: TokenFile,
    tokenizer: Tokenizer,
    wanted: Iterable[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> set[str]:
    """Returns which words occur in a split. Goes through its text once, or until all are found.

    Args:
        shard: the training split.
        tokenizer: what made it.
        wanted: words, as `words` returns them.
        on_progress: told how many tokens are done, of how many.
    """
    left = set(wanted)
    found: set[str] = set()
    seen: set[str] = set()
    for done, text in _texts(shard, tokenizer):
        if not left:
            break
        new = set(text.split()) - seen  # of a few MB of prose, a tenth is left to look into
        if len(seen) < MOST_SEEN:
            seen.update(string for string in new if len(string) <= LONGEST_SEEN)
        here = set(_patterns().word.findall(_plain(" ".join(new))))
        for word in [word for word in here if not word.isascii() and _patterns().unspaced.search(word)]:
            for part in _parts(word):
                here.update(_pairs(part) if _patterns().unspaced.match(part) else [part])
        found |= left & here
        left -= here
        on_progress(done, shard.n_tokens)
    return found


def _texts(shard: TokenFile, tokenizer: Tokenizer) -> Iterator[tuple[int, str]]:
    """Yields the text of a split in parts, cut between words, and how many tokens are done with each.

    A document's end is a new line. At a seam stands a broken character, so that the words it cuts are no words.
    """
    table = list(tokenizer.vocabulary)
    table[tokenizer.end_of_text] = b"\n"
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    step = (
        max(1, TOKENS_AT_ONCE // shard.segment_length) * shard.segment_length
        if shard.segment_length
        else TOKENS_AT_ONCE
    )
    rest = ""
    for start in range(0, shard.n_tokens, step):
        ids = shard.read(start, start + step).tolist()
        width = shard.segment_length or step
        stretches = (b"".join(map(table.__getitem__, ids[i : i + width])) for i in range(0, len(ids), width))
        data = b"\xff".join(stretches) + (b"\xff" if shard.segment_length else b"")
        text = rest + decoder.decode(data, final=start + step >= shard.n_tokens)
        last = start + step >= shard.n_tokens
        cut = len(text) if last else max(text.rfind(" "), text.rfind("\n")) + 1
        rest = text[cut:]
        if len(rest) > LONGEST:  # far too long for a word; of its characters the last make pairs with what comes
            cut, rest = len(text), _BROKEN + rest[-8:]
        yield min(start + step, shard.n_tokens), text[:cut]
