"""How text is read: the options that `prepare` and `evaluate` share.

The string below a field is its help on the command line. The help must be quick, so nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

from minigpt.errors import ConfigError, did_you_mean

FileFormat: TypeAlias = Literal["text", "jsonl", "json", "csv", "tsv", "parquet"]


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Which files are read, in which format, and what makes a document.

    Raises:
        ConfigError: an option is invalid.
    """

    pattern: tuple[str, ...] = ()
    "Read these files of a folder, as '*.py'. May be repeated. Default: .txt, .md, .rst, .jsonl, .parquet, ..."
    exclude: tuple[str, ...] = ()
    "Skip these files and folders inside a folder, as 'drafts' or '*.log'. May be repeated."
    format: FileFormat | None = None
    "Read all files, and standard input, in this format instead of detecting it. gzip is always unpacked."
    text_column: tuple[str, ...] = ("text",)
    "The column or field that holds the text of a record. May be repeated: the first one that a record has is read."
    split_at: str | None = None
    "Start a new document at each occurrence of this string, as '<|endoftext|>', and drop the string."
    split_lines: bool = False
    "Make each line a document; blank lines are skipped."

    def __post_init__(self) -> None:
        formats = get_args(FileFormat)
        if self.format not in (None, *formats):
            remedy = f"{did_you_mean(str(self.format), formats)}Choose one of {', '.join(formats)}."
            raise ConfigError("Unknown format", got=self.format, remedy=remedy)
        if self.split_at == "":
            raise ConfigError("--split-at is empty", remedy="Give the string between documents, as '<|endoftext|>'.")
        if self.split_at is not None and self.split_lines:
            raise ConfigError("--split-at and --split-lines exclude each other", remedy="Use one of them.")

    def arguments(self) -> list[str]:
        """Returns the options that differ from their defaults, as words of a command line."""
        words: list[str] = []
        for each in fields(self):
            value, option = getattr(self, each.name), f"--{each.name.replace('_', '-')}"
            if value != each.default:
                values = value if isinstance(value, tuple) else (value,)
                words += [word for one in values for word in ([option] if one is True else [option, one])]
        return words


DEFAULT_SOURCE_OPTIONS = SourceOptions()
