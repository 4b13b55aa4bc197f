"""The dataset card: what `minigpt prepare` did, in numbers. Saved as meta.json with the tokens, and shown as a table.

Printing the table: cli/prepare.py.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import DataError, did_you_mean_folder
from minigpt.files import is_missing, read_json, why
from minigpt.schema import Count, NonNegative, validate
from minigpt.source_options import DEFAULT_SOURCE_OPTIONS, SourceOptions
from minigpt.text_utils import pluralize, shell_word
from minigpt.tokenizers import utf8

FILE = "meta.json"
FORMAT = 3

SPLIT_NAMES = {
    "document": "by whole documents",
    "tail": "validation is the end of the text",
    "sequence": "by sequences",
    "files": "your own validation files",
}


@dataclass(frozen=True)
class SplitCard:
    """The numbers of one split."""

    documents: Count  # how many, parts of one included
    text_bytes: Count  # UTF-8 bytes of text
    tokens: Count  # how many, end-of-text tokens included
    sequences: Count  # how many of `block_size` tokens, the last one padded

    def summary(self, all_tokens: int) -> str:
        """The numbers in words, with the share of all tokens."""
        documents, sequences = pluralize(self.documents, "document"), pluralize(self.sequences, "sequence")
        return f"{pluralize(self.tokens, 'token')} ({self.tokens / all_tokens:.1%}), {documents}, {sequences}"


@dataclass(frozen=True)
class DatasetCard:
    """What a data set was made from, how, and what came out."""

    sources: tuple[str, ...]  # what was read
    val_sources: tuple[str, ...]  # the user's own validation files; none where validation was drawn from the sources
    tokenizer: str  # the spec of the tokenizer
    vocab_size: Count  # its number of ids
    vocab_in_train: Count  # how many of them occur in the training tokens
    block_size: Count  # the length that sequences are counted in
    seed: int  # what the split was drawn with
    val_fraction: NonNegative | None  # the requested share of validation; None with validation files of the user's own
    split_by: str  # the requested split: `document` or `sequence`
    split: str  # the actual one: `document`, `tail`, `sequence` or `files`
    documents: Count  # the different, non-empty ones
    duplicates: Count  # documents dropped because an equal one came before
    empty: Count  # documents dropped because they were blank
    also_in_val: Count  # training documents dropped because an equal one is in the user's own validation files
    unknown_characters: Count  # characters that the vocabulary does not have (`char` only)
    contamination: NonNegative  # the share of validation's 32-token windows that also occur in the training tokens
    contamination_windows: Count  # how many windows were looked up
    disk_bytes: Count  # the size of both token files
    seconds: NonNegative  # how long preparing took
    train: SplitCard  # the training split
    val: SplitCard  # the validation split
    notes: tuple[str, ...] = ()  # what the user should know, as sentences
    skipped: tuple[str, ...] = ()  # what folders contain and was not read, in words
    source_options: SourceOptions = DEFAULT_SOURCE_OPTIONS  # the options with which the sources were read

    @property
    def tokens(self) -> int:
        """The tokens of both splits."""
        return self.train.tokens + self.val.tokens

    @property
    def text_bytes(self) -> int:
        """The UTF-8 bytes of text of both splits."""
        return self.train.text_bytes + self.val.text_bytes

    @property
    def bytes_per_token(self) -> float:
        """How many bytes of text a token stands for, on average."""
        return self.text_bytes / self.tokens

    @property
    def split_words(self) -> str:
        """How the text was split, in words."""
        words = SPLIT_NAMES.get(self.split, self.split)
        return words if self.val_sources else f"{words}, seed {self.seed}"

    @property
    def documents_words(self) -> str:
        """How many documents there are, and were dropped."""
        dropped = [
            words
            for count, words in (
                (self.duplicates, pluralize(self.duplicates, "duplicate")),
                (self.empty, f"{self.empty:,} empty"),
                (self.also_in_val, f"{self.also_in_val:,} also in validation"),
            )
            if count
        ]
        return f"{self.documents:,} (dropped: {', '.join(dropped)})" if dropped else f"{self.documents:,}"

    def rows(self) -> list[tuple[str, str]]:
        """The card as pairs of a name and a value, for a table."""
        windows = pluralize(self.contamination_windows, "validation window")
        rows = (
            ("sources", ", ".join(self.sources)),
            ("validation from", ", ".join(self.val_sources)),
            ("skipped", ", ".join(self.skipped)),
            ("documents", self.documents_words),
            ("text", f"{pluralize(self.text_bytes, 'byte')}, {self.bytes_per_token:.2f} per token"),
            ("tokens", f"{self.tokens:,}"),
            ("sequences", f"{self.train.sequences + self.val.sequences:,} of {pluralize(self.block_size, 'token')}"),
            ("vocabulary", f"{self.tokenizer}, {self.vocab_size:,} ids; {self.vocab_in_train:,} occur in training"),
            ("split", self.split_words),
            ("training", self.train.summary(self.tokens)),
            ("validation", self.val.summary(self.tokens)),
            ("contamination", f"{self.contamination:.2%} of {windows} also occur in training"),
            ("unknown", pluralize(self.unknown_characters, "character") if self.unknown_characters else ""),
            ("on disk", f"{self.disk_bytes:,} bytes"),
            ("time", f"{self.seconds:.1f} s, {self.text_bytes / 1e6 / self.seconds:.1f} MB/s"),
        )
        return [(name, value) for name, value in rows if value]

    def save(self, folder: Path) -> None:
        """Writes meta.json."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / FILE).write_bytes(utf8(text))  # file names need not be UTF-8

    @classmethod
    def load(cls, folder: Path) -> DatasetCard:
        """Reads meta.json.

        Raises:
            DataError: it, or the folder, is missing; it is damaged, or of another version.
        """
        path = folder / FILE
        remedy = "Prepare the data again."
        try:
            content = read_json(path)
            version = validate(int, content.pop("format"))
            if version == FORMAT:
                return validate(cls, content)
        except OSError as error:
            if is_missing(error):
                raise _no_dataset(folder) from error
            got = f"{path}: {why(error)}"
            raise DataError("The data set cannot be read", got=got, remedy="Check its permissions.") from error
        except (ValueError, KeyError) as error:
            raise DataError(f"{path} is damaged", got=why(error), remedy=remedy) from error
        raise DataError(
            f"{path} was written by {'a newer' if version > FORMAT else 'an older'} Mini-GPT",
            got=f"format {version}, not {FORMAT}",
            remedy="Update Mini-GPT, or prepare the data again." if version > FORMAT else remedy,
        )


def _no_dataset(folder: Path) -> DataError:
    """Returns what is wrong with a path that is not a data set, and the command that makes one, if any may."""
    near, name = did_you_mean_folder(folder, FILE), shell_word(folder)
    make = f"minigpt prepare {name} --out {shell_word(f'data/{folder.absolute().stem}')}"
    if any(folder.glob("*.tokens")):
        what, remedy = f"The data set has no {FILE}", "Prepare the data again."
    elif (folder / "config.toml").is_file():
        what, remedy = "This is a run, not a data set", f"{near}Give the folder that `minigpt prepare` made."
    elif folder.is_dir():
        what, remedy = "Not a data set: meta.json not found", f"{near}If the folder contains your text: {make}"
    elif folder.exists():
        what, remedy = "This is a file, not a data set", f"If it is your text: {make}"
    else:
        what, remedy = "No such data set", f"{near}To make it from a text: minigpt prepare TEXT --out {name}"
    return DataError(what, got=folder, remedy=remedy)
