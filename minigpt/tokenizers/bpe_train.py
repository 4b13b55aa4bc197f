"""A vocabulary of our own: byte-pair encoding trained on the text at hand.

Hugging Face's `tokenizers` trains it (bpe_process.py) and writes `tokenizer.json`, which any Hugging Face program
reads; encoding is bpe_train.py's. Training is deterministic: the same text and size give the same file, byte
for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from minigpt.errors import TokenizerError
from minigpt.files import parse_json, read_bytes
from minigpt.tokenizers.base import END_OF_TEXT, OnNote
from minigpt.tokenizers.bpe import BytePairTokenizer, vocabulary_from_characters
from minigpt.tokenizers.bpe_process import learn

FILE = "tokenizer.json"
MIN_VOCAB_SIZE = 257  # every byte, and end-of-text

# So that `transformers.AutoTokenizer.from_pretrained(folder)` reads the folder too.
HUGGING_FACE_FIELDS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "unk_token": END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
}


def train_bpe(vocab_size: int, texts: Iterable[str], on_note: OnNote) -> BytePairTokenizer:
    """Trains a vocabulary on the first 256 MB of the texts, or fewer where they have no words (bpe_process.py).

    Args:
        vocab_size: the number of ids wanted, `end_of_text` (id 0) among them; at least 257.
        texts: the training text, in pieces that were cut at safe places.
        on_note: told what of it was not taken as it is.

    Returns:
        The tokenizer. Its `vocab_size` is smaller than the one wanted if the text has too few different
        words.

    Raises:
        TokenizerError: `vocab_size` is too small, or learning was ended from outside.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise TokenizerError(
            "A byte-pair vocabulary holds at least the 256 bytes and end-of-text",
            got=vocab_size,
            remedy=f"Ask for bpe:{MIN_VOCAB_SIZE} or more; bpe:4096 suits a few MB of text.",
        )
    return bpe_from_json(f"bpe:{vocab_size}", learn(vocab_size, texts, on_note))


def load_bpe(spec: str, folder: Path) -> BytePairTokenizer:
    """Reads the `tokenizer.json` of a folder.

    Raises:
        ValueError: it is not the byte-level vocabulary that `train_bpe` writes.
        OSError: it cannot be read.
    """
    return bpe_from_json(spec, read_bytes(folder / FILE))


def bpe_from_json(spec: str, content: bytes) -> BytePairTokenizer:
    """Makes a tokenizer of the content of a `tokenizer.json`.

    Raises:
        ValueError: it is not the byte-level vocabulary that `train_bpe` writes.
    """
    tokens: dict[str, int] = parse_json(content)["model"]["vocab"]
    vocabulary = vocabulary_from_characters(tokens)
    if missing := {bytes([byte]) for byte in range(256)} - set(vocabulary):  # tiktoken would panic at such a byte
        raise ValueError(f"{len(missing)} of the 256 bytes are not among its tokens")
    return BytePairTokenizer(spec, vocabulary, tokens[END_OF_TEXT], files={FILE: content}, fields=HUGGING_FACE_FIELDS)
