"""What `minigpt prepare` did, as numbers: saved beside the tokens as meta.json, and shown as a table.

Not here: printing (cli/prepare.py).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import DataError, did_you_mean_folder
from minigpt.files import is_missing, read_json, why
from minigpt.schema import Count, NonNegative, validate
from minigpt.source_options import USUAL, SourceOptions
from minigpt.text_utils import pluralize, shell_word
from minigpt.tokenizers import utf8

FILE = "meta.json"
FORMAT = 2

SPLIT_NAMES = {
    "document": "by whole documents",
    "tail": "the end of the text validates",
    "sequence": "by sequences",
    "files": "your own validation files",
}


@dataclass(frozen=True)
class SplitCard:
    """One side of the split.

    Args:
        documents: how many, parts of one included.
        text_bytes: UTF-8 bytes of text.
        tokens: how many, end-of-text tokens included.
        sequences: how many of `block_size` tokens, the last one padded.
    """

    documents: Count
    text_bytes: Count
    tokens: Count
    sequences: Count


@dataclass(frozen=True)
class DatasetCard:
    """What a data set was made from, how, and what came out.

    Args:
        sources: what was read.
        val_sources: the user's own validation files; none where validation was drawn from the sources.
        tokenizer: the spec of the tokenizer.
        vocab_size: its ids.
        vocab_in_train: how many of them occur in the training tokens.
        block_size: the length that sequences are counted in.
        seed: what the split was drawn with.
        val_fraction: the share of validation that was asked for; None with files of the user's own.
        split_by: what was asked for: `document` or `sequence`.
        split: what was done: `document`, `tail`, `sequence` or `files`.
        documents: the different, non-empty ones.
        duplicates: documents left out because an equal one came before.
        empty: documents left out because they held nothing but white space.
        validated: training documents left out because an equal one is in the user's own validation files.
        unknown_characters: characters that the vocabulary cannot say (`char` only).
        overlap: the share of validation's 32-token windows that also stand in the training tokens.
        overlap_windows: how many windows were looked up.
        disk_bytes: the size of both token files.
        seconds: how long it all took.
        train: the training side.
        val: the validation side.
        notes: what the reader should know, as sentences.
        left_out: what folders hold and was not read, in words.
        reading: the options with which the sources were read.
    """

    sources: tuple[str, ...]
    val_sources: tuple[str, ...]
    tokenizer: str
    vocab_size: Count
    vocab_in_train: Count
    block_size: Count
    seed: int
    val_fraction: NonNegative | None
    split_by: str
    split: str
    documents: Count
    duplicates: Count
    empty: Count
    validated: Count
    unknown_characters: Count
    overlap: NonNegative
    overlap_windows: Count
    disk_bytes: Count
    seconds: NonNegative
    train: SplitCard
    val: SplitCard
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    reading: SourceOptions = USUAL

    @property
    def tokens(self) -> int:
        """All tokens of both sides."""
        return self.train.tokens + self.val.tokens

    @property
    def text_bytes(self) -> int:
        """All UTF-8 bytes of text of both sides."""
        return self.train.text_bytes + self.val.text_bytes

    @property
    def bytes_per_token(self) -> float:
        """How many bytes of text a token stands for, on average."""
        return self.text_bytes / self.tokens

    @property
    def megabytes_per_second(self) -> float:
        """The speed of the whole preparation, in 10^6 bytes of text."""
        return self.text_bytes / 1e6 / self.seconds

    @property
    def split_words(self) -> str:
        """What was done, in words."""
        words = SPLIT_NAMES.get(self.split, self.split)
        return words if self.val_sources else f"{words}, seed {self.seed}"

    @property
    def documents_words(self) -> str:
        """How many documents there are, and were left out."""
        copies = pluralize(self.duplicates, "copy", "copies")
        counts = {copies: self.duplicates, f"{self.empty:,} empty": self.empty}
        counts |= {f"{self.validated:,} also in validation": self.validated}
        left_out = ", ".join(words for words, count in counts.items() if count)
        return f"{self.documents:,} (left out: {left_out})" if left_out else f"{self.documents:,}"

    def rows(self) -> list[tuple[str, str]]:
        """The report as pairs of a name and a value, for a table."""
        windows = pluralize(self.overlap_windows, "validation window")
        rows = [
            ("sources", ", ".join(self.sources)),
            *([("validation from", ", ".join(self.val_sources))] if self.val_sources else []),
            *([("left out", ", ".join(self.left_out))] if self.left_out else []),
            ("documents", self.documents_words),
            ("text", f"{pluralize(self.text_bytes, 'byte')}, {self.bytes_per_token:.2f} to a token"),
            ("tokens", f"{self.tokens:,}"),
            ("sequences", f"{self.train.sequences + self.val.sequences:,} of {pluralize(self.block_size, 'token')}"),
            ("vocabulary", f"{self.tokenizer}, {self.vocab_size:,} ids; {self.vocab_in_train:,} occur in training"),
            ("split", self.split_words),
            ("training", _side(self.train, self.train.tokens / self.tokens)),
            ("validation", _side(self.val, self.val.tokens / self.tokens)),
            ("overlap", f"{self.overlap:.2%} of {windows} stand in training"),
        ]
        if self.unknown_characters:
            rows.append(("unknown", pluralize(self.unknown_characters, "character")))
        speed = f"{self.seconds:.1f} s, {self.megabytes_per_second:.1f} MB/s"
        return [*rows, ("on disk", f"{self.disk_bytes:,} bytes"), ("time", speed)]

    def save(self, folder: Path) -> None:
        """Writes meta.json."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / FILE).write_bytes(utf8(text))  # a name may be no UTF-8

    @classmethod
    def load(cls, folder: Path) -> DatasetCard:
        """Reads meta.json.

        Raises:
            DataError: it, or the folder, is missing; it is damaged, or of a newer version.
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
                raise _no_data(folder) from error
            remedy = "Check who may read it."
            raise DataError("The data set cannot be read", got=f"{path}: {why(error)}", remedy=remedy) from error
        except (ValueError, KeyError) as error:
            raise DataError(f"{path} is damaged", got=why(error), remedy=remedy) from error
        raise DataError(
            f"{path} was written by {'a newer' if version > FORMAT else 'an older'} Mini-GPT",
            got=f"format {version}, not {FORMAT}",
            remedy="Update Mini-GPT, or prepare the data again." if version > FORMAT else remedy,
        )


def _no_data(folder: Path) -> DataError:
    """Returns what is wrong with a path that is no data set, and the command that makes one, if any may."""
    near, name = did_you_mean_folder(folder, FILE), shell_word(folder)
    make = f"minigpt prepare {name} --out {shell_word(f'data/{folder.absolute().stem}')}"
    if any(folder.glob("*.tokens")):
        what, remedy = f"{FILE} is missing in the data set", "Prepare the data again."
    elif (folder / "config.toml").is_file():
        what, remedy = "This is a run, not a data set", f"{near}Give the folder that `minigpt prepare` made."
    elif folder.is_dir():
        what, remedy = "The folder holds no prepared data", f"{near}If it holds your text: {make}"
    elif folder.exists():
        what, remedy = "This is a file, not a data set", f"If it is your text: {make}"
    else:
        what, remedy = "There is no such data set", f"{near}To make it of a text: minigpt prepare TEXT --out {name}"
    return DataError(what, got=folder, remedy=remedy)


def _side(side: SplitCard, share: float) -> str:
    documents, sequences = pluralize(side.documents, "document"), pluralize(side.sequences, "sequence")
    return f"{pluralize(side.tokens, 'token')} ({share:.1%}), {documents}, {sequences}"
