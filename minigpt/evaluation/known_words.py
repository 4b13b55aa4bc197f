"""The words of a text, in any script, and which of them occur in the training text.

A word is a sequence of letters with their marks (accents, vowel signs), digits and underscores, whose parts apostrophes
may join: `don't`, `naïve`, `block_size`, `हिन्दी`. Case is ignored. Chinese, Japanese, Thai, Lao, Khmer and Burmese put
no spaces between words; there each character with its marks counts as a word. A single character says little about
whether a model knows a language, so in these scripts pairs of neighbouring characters are looked up, as search engines
do.

Broken characters (U+FFFD) count as letters, so a word that contains one is never known.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import regex

from minigpt.data import TokenFile
from minigpt.tokenizers import Tokenizer

TOKENS_AT_ONCE = 2**18
MAX_SEEN, MAX_SEEN_LENGTH = 2**19, 64
"""How many strings are remembered, so as not to be split into words again, and how long they may be, in characters."""
MAX_WORD = 2**20
"""A longer sequence of characters without a space is cut, to bound memory."""

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_UNSPACED = (
    r"(?=\p{L})["
    r"\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF"  # Thai and Lao, Burmese, Khmer
    r"\u3005-\u3007\u3040-\u30FF\u31F0-\u31FF\uFF66-\uFF9F"  # Japanese
    r"\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U0003FFFF"  # Chinese characters
    r"]"
)
_LETTERS = rf"[\p{{L}}\p{{M}}\p{{N}}_{_BROKEN}]+"
_WORD = regex.compile(rf"{_LETTERS}(?:'{_LETTERS})*")
_WORD_OR_MARK = regex.compile(rf"{_LETTERS}(?:'{_LETTERS})*|\S")
_IS_UNSPACED = regex.compile(_UNSPACED)
_CHARACTER = regex.compile(rf"{_UNSPACED}\p{{M}}*")
_PART = regex.compile(rf"(?:{_UNSPACED}\p{{M}}*)+|(?:(?!{_UNSPACED}).)+", regex.DOTALL)


def _normalized(text: str) -> str:
    """The text in one case and with one kind of apostrophe."""
    return text.casefold().replace("’", "'")


def word_units(text: str) -> list[str]:
    """Returns a text's words and its other characters that are not white space, in order."""
    found: list[str] = []
    for word in _WORD_OR_MARK.findall(_normalized(text)):
        for part in _parts(word):
            found += _CHARACTER.findall(part) if _IS_UNSPACED.match(part) else [part]
    return found


def whole_words(text: str) -> list[str]:
    """Returns the words to look up in the training text, in order.

    Numbers are skipped, and so are words at the very beginning or end, which may be incomplete.
    """
    text = f"{_BROKEN}{_normalized(text)}{_BROKEN}"  # joins a word that may be incomplete
    found = []
    for match in _WORD.finditer(text):
        parts = _parts(match.group())
        for number, part in enumerate(parts):
            first, last = match.start() == 0 and number == 0, match.end() == len(text) and number == len(parts) - 1
            if _IS_UNSPACED.match(part):
                found += _pairs(part)
            elif not (first or last) and any(character.isalpha() for character in part):
                found.append(part)
    return found


def _parts(word: str) -> list[str]:
    """A word, split where it changes between scripts with and without spaces."""
    return _PART.findall(word) if not word.isascii() and _IS_UNSPACED.search(word) else [word]


def _pairs(part: str) -> list[str]:
    """The pairs of neighbouring characters, or the only character."""
    characters = _CHARACTER.findall(part)
    return [first + second for first, second in pairwise(characters)] or characters


def known_words(
    split: TokenFile,
    tokenizer: Tokenizer,
    wanted: Iterable[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> set[str]:
    """Returns which words occur in a split. Reads its text once, or until all are found.

    Args:
        split: the training split.
        tokenizer: the one that made it.
        wanted: words, as `whole_words` returns them.
        on_progress: called with tokens done and in all.
    """
    missing = set(wanted)
    found: set[str] = set()
    seen: set[str] = set()
    for done, text in _texts(split, tokenizer):
        if not missing:
            break
        new = set(text.split()) - seen  # after a few MB of prose, a tenth remains
        if len(seen) < MAX_SEEN:
            seen.update(string for string in new if len(string) <= MAX_SEEN_LENGTH)
        here = set(_WORD.findall(_normalized(" ".join(new))))
        for word in [word for word in here if not word.isascii() and _IS_UNSPACED.search(word)]:
            for part in _parts(word):
                here.update(_pairs(part) if _IS_UNSPACED.match(part) else [part])
        found |= missing & here
        missing -= here
        on_progress(done, split.n_tokens)
    return found


def _texts(split: TokenFile, tokenizer: Tokenizer) -> Iterator[tuple[int, str]]:
    """Yields the text of a split in chunks, cut between words, each with the number of tokens done.

    A document ends with a newline, a segment with a broken character, so that words cut there are not words.
    """
    table = list(tokenizer.vocabulary)
    table[tokenizer.end_of_text] = b"\n"
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    segment = split.segment_length
    step = max(1, TOKENS_AT_ONCE // segment) * segment if segment else TOKENS_AT_ONCE
    rest = ""
    for start in range(0, split.n_tokens, step):
        ids = split.read(start, start + step).tolist()
        width = segment or step
        segments = (b"".join(map(table.__getitem__, ids[i : i + width])) for i in range(0, len(ids), width))
        data = b"\xff".join(segments) + (b"\xff" if segment else b"")
        last = start + step >= split.n_tokens
        text = rest + decoder.decode(data, final=last)
        cut = len(text) if last else max(text.rfind(" "), text.rfind("\n")) + 1
        rest = text[cut:]
        if len(rest) > MAX_WORD:  # too long for a word; its last characters form pairs with what follows
            cut, rest = len(text), _BROKEN + rest[-8:]
        yield min(start + step, split.n_tokens), text[:cut]
