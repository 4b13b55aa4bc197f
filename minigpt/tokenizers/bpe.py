"""Byte-pair encoding on bytes, as in GPT-2: with its own vocabulary, or with one that we train (bpe_train.py).

GPT-2's pattern splits text into words with their leading space, numbers, punctuation and white space; in each of these
the pair of neighbours that was merged earliest in training is merged first, until none is left. tiktoken does it, 8
times as fast as Hugging Face's tokenizers and outside the GIL, so that threads help.

tiktoken knows the *results* of merges and their order, Hugging Face's `tokenizer.json` the merged *pairs*. In a trained
vocabulary both are the same: a stretch of text that becomes one token goes through the same merges in any context, so
that only one pair makes it. tests/tokenizers/test_bpe.py checks that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from minigpt.errors import TokenizerError
from minigpt.files import parse_json
from minigpt.tokenizers import bpe_train
from minigpt.tokenizers.base import END_OF_TEXT, WHITE_SPACE, Ids, OnNote, Tokenizer, utf8

FILE = "tokenizer.json"
MIN_VOCAB_SIZE = 257  # every byte, and end-of-text

# Contractions, letters, digits, anything else that is not white space; the last three leave the final one of several
# spaces to the word that follows. Possessive quantifiers (`++`) match the same and cannot backtrack.
SPLIT_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

_LONG_BLANK = re.compile(f"[{WHITE_SPACE}]{{1000,}}+")

# So that `transformers.AutoTokenizer.from_pretrained(folder)` reads the folder too.
HUGGING_FACE_FIELDS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "unk_token": END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
}


def byte_to_character() -> dict[int, str]:
    """The character that GPT-2's files write for each byte: its own if printable, otherwise one from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def vocabulary_from_characters(tokens: Mapping[str, int]) -> list[bytes]:
    """The bytes of each id, from tokens as `encoder.json` and `tokenizer.json` spell them; end-of-text has none.

    Raises:
        ValueError: the ids are not 0, 1, 2, ... or a token contains a character that stands for no byte.
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
        vocabulary: the bytes of each id; all 256 single bytes are among them.
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
        self.files, self.fields = files or {}, fields or {}
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
            # `\s+(?!\S)` has to step back once, and about a million blanks fill tiktoken's stack for that. Cut before
            # the last blank of a long run, where the pattern cuts anyway.
            ends = [blank.end() for blank in _LONG_BLANK.finditer(text)]
            cuts = [0, *(end - 1 for end in ends if end < len(text)), len(text)]
            if len(cuts) == 2:
                raise
            parts = [text[start:stop] for start, stop in pairwise(cuts)]
            return np.concatenate([self._encoding.encode_to_numpy(part, disallowed_special=()) for part in parts])


def train_bpe(vocab_size: int, texts: Iterable[str], on_note: OnNote) -> BytePairTokenizer:
    """Trains a vocabulary on the first 256 MB of the texts, or less where they have no words (bpe_train.py).

    The same texts and size always give the same vocabulary.

    Args:
        vocab_size: the number of ids wanted, `end_of_text` (id 0) included; at least 257.
        texts: the training text, in parts that were cut at safe places.
        on_note: called with what of it is not used as it is.

    Returns:
        The tokenizer. Its `vocab_size` is smaller than the one wanted if the text has too few different words.

    Raises:
        TokenizerError: `vocab_size` is too small, or training was ended from outside.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise TokenizerError(
            f"A byte-pair vocabulary has at least {MIN_VOCAB_SIZE} ids: the 256 bytes and end-of-text",
            got=vocab_size,
            remedy=f"Use bpe:{MIN_VOCAB_SIZE} or more; bpe:4096 suits a few MB of text.",
        )
    return bpe_from_json(f"bpe:{vocab_size}", bpe_train.train(vocab_size, texts, on_note))


def bpe_from_json(spec: str, content: bytes) -> BytePairTokenizer:
    """Makes a tokenizer from the content of a `tokenizer.json`.

    Raises:
        ValueError: it is not a byte-level vocabulary as `train_bpe` makes it.
    """
    tokens: dict[str, int] = parse_json(content)["model"]["vocab"]
    vocabulary = vocabulary_from_characters(tokens)
    if missing := {bytes([byte]) for byte in range(256)} - set(vocabulary):  # tiktoken would panic at such a byte
        raise ValueError(f"{len(missing)} of the 256 bytes are not among its tokens")
    return BytePairTokenizer(spec, vocabulary, tokens[END_OF_TEXT], files={FILE: content}, fields=HUGGING_FACE_FIELDS)
