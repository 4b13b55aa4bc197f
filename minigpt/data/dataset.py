"""A prepared data set: a folder with the tokens of both splits, the tokenizer that made them, and the dataset card.

    train.tokens   val.tokens   train.documents   val.documents   tokenizer_config.json (tokenizer.json)   meta.json

The names of documents are missing where the split was drawn by sequences. Making a data set: prepare.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from minigpt.data.dataset_card import DatasetCard
from minigpt.data.document_names import SUFFIX, DocumentNames, read_document_names
from minigpt.data.token_file import TokenFile
from minigpt.errors import TokenizerError
from minigpt.schema import Count
from minigpt.tokenizers import Tokenizer, load_tokenizer

TRAIN_FILE = "train.tokens"
VAL_FILE = "val.tokens"


class Split(TypedDict):
    """What identifies the tokens of a split."""

    tokens: Count
    text_bytes: Count
    sha256: str


class TokenizerNote(TypedDict):
    """What identifies a tokenizer."""

    spec: str
    identity: str


class Fingerprint(TypedDict):
    """What identifies a data set: where it was, its tokenizer, its splits; no splits if there is no data set."""

    folder: str
    tokenizer: TokenizerNote
    splits: dict[str, Split]


@dataclass(frozen=True)
class Dataset:
    """An open data set."""

    folder: Path  # where it is
    train: TokenFile  # the training tokens
    val: TokenFile  # the validation tokens
    tokenizer: Tokenizer  # what made them
    card: DatasetCard  # how they were made

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> Dataset:
        """Opens a folder that `minigpt prepare` made, and checks that its parts belong together.

        Args:
            folder: the folder.
            verify: also verify the checksums of the tokens, at about 2 GB/s.

        Raises:
            DataError: the folder is missing, or something in it is missing or damaged.
            TokenizerError: the tokenizer is damaged, or is not the one that made the tokens.
        """
        folder = Path(folder)
        card = DatasetCard.load(folder)
        tokenizer = load_tokenizer(folder)
        train, val = (TokenFile.open(folder / name, verify=verify) for name in (TRAIN_FILE, VAL_FILE))
        for token_file in (train, val):
            if (token_file.identity, token_file.vocab_size) != (tokenizer.identity, tokenizer.vocab_size):
                raise TokenizerError(
                    f"{token_file.path} was made by another tokenizer than the one in its folder",
                    got=f"{token_file.vocab_size:,} ids of {token_file.identity[:12]}...; the {tokenizer.spec} "
                    f"tokenizer has {tokenizer.vocab_size:,} and is {tokenizer.identity[:12]}...",
                    remedy="Restore the right tokenizer files, or prepare the data again.",
                )
        return cls(folder, train, val, tokenizer, card)

    def documents(self, token_file: TokenFile) -> DocumentNames | None:
        """The names of the documents of a split, `train` or `val`; None where they are not known.

        Raises:
            DataError: their file is damaged.
        """
        if token_file.segment_length:
            return None
        return read_document_names(token_file.path.with_suffix(SUFFIX), token_file.n_documents)

    def fingerprint(self) -> Fingerprint:
        """What identifies this data set."""
        return {
            "folder": str(self.folder.resolve()),
            "tokenizer": {"spec": self.tokenizer.spec, "identity": self.tokenizer.identity},
            "splits": {
                name: {"tokens": split.n_tokens, "text_bytes": split.n_bytes, "sha256": split.sha256}
                for name, split in (("train", self.train), ("val", self.val))
            },
        }
