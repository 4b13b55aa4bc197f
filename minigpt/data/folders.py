"""Which files of a folder are read, and which are skipped: counted by kind, with the options that include them.

Skipped and counted are hidden files and folders, links to folders (they may form a loop), broken links, pipes and other
things that are not files, and Mini-GPT's own runs and data sets. A file that is to be read but not accessible is an
error when its turn comes; a folder that is not accessible is one at once. Reading the files: sources.py.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePath

from minigpt.atomic import LOCK, PARTIAL
from minigpt.data.opening import cannot_read, kind_of, opened
from minigpt.errors import DataError
from minigpt.sniff import FORMATS, HEAD_BYTES, RECORDS, advice, sniff
from minigpt.source_options import SourceOptions
from minigpt.text_utils import pluralize, shell_line, shell_word

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".rst", ".text", ".jsonl", ".ndjson", ".parquet")
READ_SUFFIXES = tuple(suffix + packed for suffix in TEXT_SUFFIXES for packed in ("", ".gz"))
"""What is read without --pattern. Tables and other JSON are not: most of them contain no text to train on."""

MAX_GROUPS = 8  # suffixes that are reported one by one
MAX_SUFFIX = 12  # characters; what is longer is not a suffix but the end of a sentence


@dataclass
class SkippedFiles:
    """Files with the same suffix that are skipped because of it."""

    suffix: str  # it, or the file's name if it has none
    example: str  # the path of one
    count: int = 0  # how many
    size: int = 0  # their bytes


@dataclass
class FolderListing:
    """What a folder contains."""

    folder: str  # its path
    files: list[str] = field(default_factory=list)  # the paths to read, in order
    by_suffix: dict[str, SkippedFiles] = field(default_factory=dict)  # the files skipped because of their names
    # how many things of each other kind are skipped, as {"linked folder": 1}
    others: Counter[str] = field(default_factory=Counter)
    unused: list[str] = field(default_factory=list)  # patterns of --exclude that nothing matches

    def skipped(self) -> Iterator[str]:
        """Yields what is skipped, in words."""
        groups = self._by_size()
        for group in groups[:MAX_GROUPS]:
            yield f"{group.count:,} {group.suffix} ({group.size / 1000:,.0f} kB)"
        if more := groups[MAX_GROUPS:]:
            files, size = sum(group.count for group in more), sum(group.size for group in more)
            yield f"{pluralize(files, 'file')} with {len(more):,} other suffixes ({size / 1000:,.0f} kB)"
        yield from (pluralize(number, kind) for kind, number in self.others.items())

    def notes(self, options: SourceOptions) -> Iterator[str]:
        """Yields how to include the files that are skipped because of their names."""
        for pattern in self.unused:
            yield f"--exclude {shell_word(pattern)} matches nothing in {self.folder}."
        if options.pattern:
            return
        found = [(group, _sniffed(group.example)) for group in self._by_size()[:MAX_GROUPS]]
        readable = [group for group, form in found if form == "text" or form in RECORDS]
        if readable:
            names = dict.fromkeys([*(_ending(path) for path in self.files), *(group.suffix for group in readable)])
            patterns = (f"--pattern {shell_word('*' * (name[0] == '.') + glob.escape(name))}" for name in names)
            files = pluralize(sum(group.count for group in readable), "file")
            yield f"Skipped because of the name: {files} in {self.folder}. To read them too: {' '.join(patterns)}"
        for group, form in found:
            if how := advice(form, group.example):
                yield f"{group.example} is {FORMATS[form].title}. {how}"

    def _by_size(self) -> list[SkippedFiles]:
        return sorted(self.by_suffix.values(), key=lambda group: -group.size)


def list_folder(folder: str, options: SourceOptions) -> FolderListing:
    """Finds the files to read, in the order of their names, a folder's own before those of its folders.

    Raises:
        DataError: a folder is not accessible, or the folder itself is a run or a data set.
    """
    listing, used = FolderListing(folder), set[str]()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        entries = _entries(current, folder)
        if own := _mini_gpt_folder({entry.name for entry in entries}):
            if current == folder:
                raise DataError(
                    f"{folder} is a {own}, not text", remedy="Name the text itself, or files in the folder."
                )
            listing.others[own] += 1
            continue
        subfolders = []
        for entry in entries:
            if entry.name.endswith((PARTIAL, PARTIAL + LOCK)):
                continue  # being written, perhaps by this very command
            kind, inside = _kind(entry), PurePath(entry.path).relative_to(folder).as_posix()
            if matching := _matching(options.exclude, entry.name, inside):
                used |= matching
                listing.others[f"excluded {kind}"] += 1
            elif entry.name.startswith("."):
                listing.others[f"hidden {kind}"] += 1
            elif kind == "folder":
                subfolders.append(entry.path)
            elif kind != "file":
                listing.others[kind] += 1
            elif _is_read(entry.name, inside, options):
                listing.files.append(entry.path)
            else:
                ending = _ending(entry.name)
                group = listing.by_suffix.setdefault(ending.lower(), SkippedFiles(ending, entry.path))
                group.count += 1
                with suppress(OSError):
                    group.size += entry.stat().st_size
        waiting += reversed(subfolders)
    listing.unused = [pattern for pattern in options.exclude if pattern not in used]
    return listing


def no_files(listing: FolderListing, options: SourceOptions) -> DataError:
    """The error for a folder without any file to read."""
    skipped = ", ".join(listing.skipped())
    got = f"nothing that matches {' or '.join(options.pattern) or 'a text suffix'}" + f", but {skipped}" * bool(skipped)
    remedy = "Give a folder with text files, or choose its files by their names: --pattern '*.EXTENSION'."
    if bare := [pattern for pattern in options.pattern if not set(pattern) & set("*?[.")]:
        remedy = f"A pattern matches whole names: --pattern {shell_word(f'*.{bare[0]}')}"
    elif any(kind.startswith("excluded") for kind in listing.others):
        remedy = f"Exclude less than {' '.join(shell_line(['--exclude', each]) for each in options.exclude)}."
    return DataError(f"The folder {listing.folder} has no file to read", got=got, remedy=remedy)


def _entries(folder: str, root: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        failure = cannot_read(folder, error)
        raise (failure if folder == root else or_excluded(failure, folder)) from error


def or_excluded(error: DataError, path: str) -> DataError:
    """The same error for a file or folder inside a folder, which can be excluded."""
    option = f"--exclude {shell_word(glob.escape(os.path.basename(path)))}"
    return DataError(error.what, got=error.got, remedy=f"{error.remedy} To skip it, or after converting it: {option}")


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is: "file", "folder", "linked folder", "broken link", "named pipe", "socket", "device"."""
    try:
        kind = kind_of(entry.path)
    except DataError:  # a link that forms a loop, or leads through a folder without access
        kind = ""
    return "broken link" if not kind else f"linked {kind}" if kind == "folder" and entry.is_symlink() else kind


def _mini_gpt_folder(names: set[str]) -> str:
    """Which of Mini-GPT's own folders contains these names, if any."""
    if {"meta.json", "train.tokens"} <= names:
        return "Mini-GPT data set"
    if "config.toml" in names and names & {"metrics.jsonl", "checkpoints"}:
        return "Mini-GPT run"
    return ""


def _matching(patterns: Iterable[str], name: str, inside: str) -> set[str]:
    """The patterns that match a name, or the path inside the folder, in upper or lower case."""
    names = name.lower(), inside.lower()
    return {each for each in patterns if any(fnmatchcase(part, each.lower().rstrip("/")) for part in names)}


def _is_read(name: str, inside: str, options: SourceOptions) -> bool:
    if options.pattern:
        return bool(_matching(options.pattern, name, inside))
    return name.lower().endswith(READ_SUFFIXES)


def suffix_of(name: str) -> str:
    """The suffix of a file in lower case, including what precedes .gz; "" if there is none."""
    stem, suffix = os.path.splitext(os.path.basename(name).lower())
    if suffix == ".gz":
        suffix = os.path.splitext(stem)[1] + suffix
    return suffix if 1 < len(suffix) <= MAX_SUFFIX and " " not in suffix else ""


def _ending(path: str) -> str:
    return suffix_of(path) or os.path.basename(path)


def _sniffed(path: str) -> str:
    try:
        with opened(path) as file:
            return sniff(file.read(HEAD_BYTES))
    except DataError:
        return "binary"
