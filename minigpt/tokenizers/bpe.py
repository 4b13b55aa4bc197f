"""Byte-pair encoding on bytes, the way of GPT-2: both its own vocabulary and ones we train.

The text is split by GPT-2's pattern into words with their leading space, numbers, punctuation and white
space; inside each of these the pair of neighbours that was merged earliest in training is merged first, until
none is left. tiktoken does it, 8 times as fast as Hugging Face's tokenizers and outside the GIL, so that
threads help.

tiktoken knows the *results* of merges and their order, Hugging Face's `tokenizer.json` the merged *pairs*.
For a vocabulary that was trained, both say the same: whatever stands around it, a stretch of text that ends
up as one token goes through the same merges, so a token is reached by one pair only.
tests/tokenizers/test_bpe.py checks it.

Not here: training (bpe_train.py) and GPT-2's files (gpt2.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from minigpt.tokenizers.base import END_OF_TEXT, Ids, Tokenizer, utf8

# Contractions, letters, digits, anything else that is no white space; the last three leave the final one of
# several spaces to the word that follows. Possessive quantifiers (`++`) match the same and cannot backtrack.
SPLIT_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

# Unicode's White_Space, which is what `\s` means above; Python's `\s` has four control characters more.
WHITE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_LONG_BLANK = re.compile(f"[{WHITE}]{{1000,}}+")


def byte_to_character() -> dict[int, str]:
    """The character that GPT-2's files write for each byte: its own if printable, else one from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(printable))
    return table


def vocabulary_from_characters(tokens: Mapping[str, int]) -> list[bytes]:
    """The bytes of every id, from tokens as `encoder.json` and `tokenizer.json` spell them; end-of-text has
    none.

    Raises:
        ValueError: the ids are not 0, 1, 2, ... or a token holds a character that stands for no byte.
    """
    byte_of = {character: byte for byte, character in byte_to_character().items()}
    vocabulary: list[bytes | None] = [None] * len(tokens)
    for token, index in tokens.items():
        if not 0 <= index < len(tokens) or vocabulary[index] is not None:
            raise ValueError(f"the id {index} is repeated or out of range")
        try:
            vocabulary[index] = b"" if token == END_OF_TEXT else bytes(byte_of[c] for c in token)
        except KeyError as error:
            raise ValueError(f"token {index} is not spelled in bytes: {token!r}") from error
    return [token for token in vocabulary if token is not None]


class BytePairTokenizer(Tokenizer):
    """Byte-pair encoding with a given vocabulary, whose ids are in the order of the merges.

    Args:
        spec: `gpt2` or `bpe:N`.
        vocabulary: the bytes of every id; all 256 single bytes are among them.
        end_of_text: the id of the document separator, whose entry in `vocabulary` is `b""`.
        files: further files to save, by name.
        fields: further entries for `tokenizer_config.json`.
    """

    def __init__(
        self,
        spec: str,
        vocabulary: Sequence[bytes],
        end_of_text: int,
        *,
        files: Mapping[str, bytes] | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        import tiktoken

        self.spec, self.vocabulary, self.end_of_text = spec, vocabulary, end_of_text
        self._saved_files, self._saved_fields = dict(files or {}), dict(fields or {})
        ranks = {token: index for index, token in enumerate(vocabulary) if index != end_of_text}
        self._encoding = tiktoken.Encoding(
            spec, pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: end_of_text}
        )

    def encode(self, text: str) -> Ids:
        """The ids of a text: uint32, shape (n_tokens,)."""
        try:
            return self._encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            return self.encode(utf8(text).decode())
        except ValueError:
            # `\s+(?!\S)` has to step back once, and after about a million blanks tiktoken's stack for that
            # is full. Cut before the last blank of a long row, where the pattern cuts anyhow.
            ends = [blank.end() for blank in _LONG_BLANK.finditer(text)]
            cuts = [0, *(end - 1 for end in ends if end < len(text)), len(text)]
            if len(cuts) == 2:
                raise
            parts = [text[start:stop] for start, stop in pairwise(cuts)]
            return np.concatenate([self._encoding.encode_to_numpy(part, disallowed_special=()) for part in parts])

    def _files(self) -> Mapping[str, bytes]:
        return self._saved_files

    def _fields(self) -> Mapping[str, object]:
        return self._saved_fields
