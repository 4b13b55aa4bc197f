"""The two tokenizers without an algorithm: one id per byte, and one id per character.

`byte` can encode everything with 257 ids; `char` has the characters of its training text, as in the tutorials on Tiny
Shakespeare, and one id for all others.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minigpt.tokenizers.base import Ids, Tokenizer, utf8

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
N_CODE_POINTS = 0x110000


class ByteTokenizer(Tokenizer):
    """One id per byte of UTF-8 (0 to 255), then `end_of_text` (256)."""

    spec = "byte"
    end_of_text = 256

    def __init__(self) -> None:
        self.vocabulary = [*(bytes([value]) for value in range(256)), b""]

    def encode(self, text: str) -> Ids:
        """The bytes of the text's UTF-8 as ids: uint32, shape (n_bytes,)."""
        return np.frombuffer(utf8(text), dtype=np.uint8).astype(np.uint32)


class CharTokenizer(Tokenizer):
    """One id per known character, in code point order; then `end_of_text`; then `unknown`, which decodes to U+FFFD.

    Args:
        characters: the known characters, in any order; repeats count once.
    """

    spec = "char"

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = "".join(sorted(set(characters)))
        self.fields = {"characters": self.characters}
        self.end_of_text = len(self.characters)
        self.unknown = self.end_of_text + 1
        self.vocabulary = [*(utf8(character) for character in self.characters), b"", utf8(REPLACEMENT)]
        codes = _code_points(self.characters)
        # By code point. The last entry is for all code points above the highest known one.
        self._ids = np.full(int(codes.max(initial=0)) + 2, self.unknown, dtype=np.uint32)
        self._ids[codes] = np.arange(len(codes), dtype=np.uint32)

    @classmethod
    def from_text(cls, texts: Iterable[str]) -> CharTokenizer:
        """The tokenizer that knows all characters of the texts, which are read once."""
        occurs = np.zeros(N_CODE_POINTS, dtype=bool)
        for text in texts:
            occurs[_code_points(text)] = True
        occurs[0xD800:0xE000] = False  # surrogates: UTF-8 has no bytes for them
        return cls(chr(code) for code in np.flatnonzero(occurs))

    def encode(self, text: str) -> Ids:
        """One id per character: uint32, shape (n_characters,)."""
        return self._ids[np.minimum(_code_points(text), len(self._ids) - 1)]


def _code_points(text: str) -> Ids:
    """The code points of a text, shape (n_characters,). A hundred times as fast as a loop over `ord`."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
