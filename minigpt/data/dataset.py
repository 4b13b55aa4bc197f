"""A prepared data set: a folder with the tokens of both splits, the tokenizer that made them, and the report.

    train.tokens   val.tokens   train.documents   val.documents   tokenizer_config.json (tokenizer.json)   meta.json

The documents' names are missing where the split was drawn by sequences.
Not here: making one (prepare.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from minigpt.data.dataset_card import DatasetCard
from minigpt.data.documents import SUFFIX, Documents, read_documents
from minigpt.data.token_file import TokenFile
from minigpt.errors import TokenizerError
from minigpt.schema import Count
from minigpt.tokenizers import Tokenizer, load_tokenizer

TRAIN_FILE = "train.tokens"
VAL_FILE = "val.tokens"


class Split(TypedDict):
    """What tells the tokens of a split from others."""

    tokens: Count
    text_bytes: Count
    sha256: str


class TokenizerNote(TypedDict):
    """What tells a tokenizer from another."""

    spec: str
    identity: str


class Fingerprint(TypedDict):
    """What tells a data set from another: where it was, its tokenizer, its splits, none if there is no data set."""

    folder: str
    tokenizer: TokenizerNote
    splits: dict[str, Split]


@dataclass(frozen=True)
class Dataset:
    """An open data set.

    Attributes:
        folder: where it is.
        train: the training tokens.
        val: the validation tokens.
        tokenizer: what made them.
        report: how they were made.
    """

    folder: Path
    train: TokenFile
    val: TokenFile
    tokenizer: Tokenizer
    report: DatasetCard

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> Dataset:
        """Opens a folder that `minigpt prepare` made, and checks that its parts belong together.

        Args:
            folder: the folder.
            verify: also compare the checksums of the tokens, at about 2 GB/s.

        Raises:
            DataError: the folder is missing, or something in it is missing or damaged.
            TokenizerError: the tokenizer is damaged, or is not the one that made the tokens.
        """
        folder = Path(folder)
        report = DatasetCard.load(folder)
        tokenizer = load_tokenizer(folder)
        train, val = (TokenFile.open(folder / name, verify=verify) for name in (TRAIN_FILE, VAL_FILE))
        for shard in (train, val):
            if (shard.identity, shard.vocab_size) != (tokenizer.identity, tokenizer.vocab_size):
                raise TokenizerError(
                    f"{shard.path} was not made by the tokenizer beside it",
                    got=f"{shard.vocab_size:,} ids of {shard.identity[:12]}..., the {tokenizer.spec} tokenizer has "
                    f"{tokenizer.vocab_size:,} and is {tokenizer.identity[:12]}...",
                    remedy="Put the right tokenizer files back, or prepare the data again.",
                )
        return cls(folder, train, val, tokenizer, report)

    def documents(self, shard: TokenFile) -> Documents | None:
        """The names of the documents of a split, `train` or `val`; None where nobody knows them.

        Raises:
            DataError: their file is damaged.
        """
        return None if shard.segment_length else read_documents(shard.path.with_suffix(SUFFIX), shard.n_documents)

    def identity(self) -> Fingerprint:
        """What tells this data set from another."""
        return {
            "folder": str(self.folder.resolve()),
            "tokenizer": {"spec": self.tokenizer.spec, "identity": self.tokenizer.identity},
            "splits": {
                name: {"tokens": shard.n_tokens, "text_bytes": shard.n_bytes, "sha256": shard.sha256}
                for name, shard in (("train", self.train), ("val", self.val))
            },
        }
