"""How text is read, where more than one way makes sense: the options that `prepare` and `evaluate` share.

The comment under a field is its help on the command line. Nothing heavy is imported here, for that help must be quick.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

from minigpt.errors import ConfigError

FileFormat: TypeAlias = Literal["text", "jsonl", "json", "csv", "tsv", "parquet"]


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Which files are read, as what, and what is a document.

    Raises:
        ConfigError: an option cannot work.
    """

    pattern: tuple[str, ...] = ()
    "Which files of a folder to read, as '*.py'; may be repeated. Without it: .txt, .md, .rst, .jsonl, .parquet, ..."
    exclude: tuple[str, ...] = ()
    "Files and folders inside of a folder to leave out, as 'drafts' or '*.log'; may be repeated."
    format: FileFormat | None = None
    "Read every file, and standard input, as this; else its name and first bytes decide. gzip is unpacked anyway."
    text_column: str = "text"
    "The column or field that holds the text, in JSON, CSV, TSV, Parquet and hub data sets."
    split_at: str | None = None
    "Begin a new document wherever this string stands, as '<|endoftext|>'; the string itself goes."
    split_lines: bool = False
    "Make each line a document; blank lines are skipped."

    def __post_init__(self) -> None:
        if self.format not in (None, *get_args(FileFormat)):
            formats = ", ".join(get_args(FileFormat))
            raise ConfigError("There is no such format", got=self.format, remedy=f"Choose one of {formats}.")
        if self.split_at == "":
            raise ConfigError("--split-at is empty", remedy="Give the string between documents, as '<|endoftext|>'.")
        if self.split_at is not None and self.split_lines:
            raise ConfigError("--split-at and --split-lines do not go together", remedy="Leave one of them out.")

    def words(self) -> list[str]:
        """Returns the options that are not the usual ones, as the words of a command."""
        found: list[str] = []
        for each in fields(self):
            value, option = getattr(self, each.name), f"--{each.name.replace('_', '-')}"
            if value != each.default:
                values = value if isinstance(value, tuple) else (value,)
                found += [word for one in values for word in ([option] if one is True else [option, one])]
        return found


USUAL = SourceOptions()
"""How text is read when nothing else is asked for."""
