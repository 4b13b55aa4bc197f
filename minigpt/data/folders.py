"""Which files of a folder are read, and what is left out: counted by kind, with how to take it.

Files and folders whose names begin with a dot, links to folders (they may lead in a circle), broken links, pipes and
other things that are not files, and Mini-GPT's own runs and data sets are left out and counted. A file that is to be
read and may not be is an error when its turn comes; so is, at once, a folder that may not be looked into.

Not here: reading the files (sources.py).
"""

from __future__ import annotations

import glob
import os
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
from minigpt.text_utils import pluralize, shell_word

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".rst", ".text")
RECORD_SUFFIXES = (".jsonl", ".ndjson", ".parquet")
TAKEN = tuple(suffix + packed for suffix in (*TEXT_SUFFIXES, *RECORD_SUFFIXES) for packed in ("", ".gz"))
"""Suffixes that need no --pattern. Tables and other JSON do: most of those hold no text to train on."""

UNFINISHED = (PARTIAL, PARTIAL + LOCK)  # what is being written, perhaps by this very command

FEW = 8  # suffixes that are named one by one
LONG_SUFFIX = 12  # what is longer is not a suffix but the end of a sentence


@dataclass
class FileGroup:
    """Files left out for their names, which end alike.

    Attributes:
        name: their ending, or their name if it has none.
        first: the path of one.
        files: how many.
        size: their bytes.
    """

    name: str
    first: str
    files: int = 0
    size: int = 0


@dataclass
class Listing:
    """What a folder holds.

    Attributes:
        folder: its path.
        files: the paths to read, in order.
        groups: the files left out for their names, by suffix, or by name where there is none.
        others: how many things of each other kind are left out, as {"linked folder": 1}.
        unused: patterns of --exclude that nothing fits.
    """

    folder: str
    files: list[str] = field(default_factory=list)
    groups: dict[str, FileGroup] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def leave_out(self, kind: str) -> None:
        """Counts one thing that is left out."""
        self.others[kind] = self.others.get(kind, 0) + 1

    def left_out(self) -> Iterator[str]:
        """Yields what is left out, in words."""
        groups = self._by_size()
        for group in groups[:FEW]:
            yield f"{group.files:,} {group.name} ({group.size / 1000:,.0f} kB)"
        if more := groups[FEW:]:
            files, size = sum(group.files for group in more), sum(group.size for group in more)
            yield f"{pluralize(files, 'file')} with {len(more):,} other suffixes ({size / 1000:,.0f} kB)"
        yield from (pluralize(number, kind) for kind, number in self.others.items())

    def notes(self, options: SourceOptions) -> Iterator[str]:
        """Yields how to take what is left out for its name."""
        for pattern in self.unused:
            yield f"--exclude {shell_word(pattern)} fits nothing in {self.folder}."
        if options.pattern:
            return
        found = [(group, _sniffed(group.first)) for group in self._by_size()[:FEW]]
        readable = [group for group, form in found if form == "text" or form in RECORDS]
        if readable:
            taken = dict.fromkeys([*(_ending(path) for path in self.files), *(group.name for group in readable)])
            patterns = (
                f"--pattern {shell_word(('*' if name[0] == '.' else '') + glob.escape(name))}" for name in taken
            )
            files = pluralize(sum(group.files for group in readable), "file")
            yield f"Not read, to judge by the name: {files} in {self.folder}. To read them too: {' '.join(patterns)}"
        for group, form in found:
            if how := advice(form, group.first):
                yield f"{group.first} is {FORMATS[form].title}. {how}"

    def _by_size(self) -> list[FileGroup]:
        return sorted(self.groups.values(), key=lambda group: -group.size)


def list_folder(folder: str, options: SourceOptions) -> Listing:
    """Finds the files to read, in the order of their names, a folder's own before those of its folders.

    Raises:
        DataError: a folder may not be looked into, or the folder itself is a run or a data set.
    """
    listing, used = Listing(folder), set[str]()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        entries = _entries(current, folder)
        if own := _own({entry.name for entry in entries}):
            if current == folder:
                raise DataError(
                    f"{folder} is a {own}, not text", remedy="Name the text itself, or files in the folder."
                )
            listing.leave_out(own)
            continue
        below = []
        for entry in entries:
            if entry.name.endswith(UNFINISHED):
                continue
            kind, inside = _kind(entry), PurePath(entry.path).relative_to(folder).as_posix()
            if fitting := _fitting(options.exclude, entry.name, inside):
                used |= fitting
                listing.leave_out(f"excluded {kind}")
            elif entry.name.startswith("."):
                listing.leave_out(f"hidden {kind}")
            elif kind == "folder":
                below.append(entry.path)
            elif kind != "file":
                listing.leave_out(kind)
            elif _fitting(options.pattern, entry.name, inside) if options.pattern else _is_taken(entry.name):
                listing.files.append(entry.path)
            else:
                ending = _ending(entry.name)
                group = listing.groups.setdefault(ending.lower(), FileGroup(ending, entry.path))
                group.files += 1
                with suppress(OSError):
                    group.size += entry.stat().st_size
        waiting += reversed(below)
    listing.unused = [pattern for pattern in options.exclude if pattern not in used]
    return listing


def _entries(folder: str, whole: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        trouble = cannot_read(folder, error)
        if folder == whole:
            raise trouble from error
        raise or_excluded(trouble, folder) from error


def or_excluded(error: DataError, path: str) -> DataError:
    """The same error of a file or folder inside of a folder, which may be left out."""
    way = f"Or leave it out: --exclude {shell_word(glob.escape(os.path.basename(path)))}"
    return DataError(error.what, got=error.got, remedy=f"{error.remedy} {way}")


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is: "file", "folder", "linked folder", "broken link", "named pipe", "socket", "device"."""
    link = entry.is_symlink()
    try:
        kind = kind_of(entry.path)
    except DataError:  # a link that leads in a circle, or through a folder that is closed to us
        kind = ""
    return "broken link" if not kind else f"linked {kind}" if link and kind == "folder" else kind


def _own(names: set[str]) -> str:
    """Which folder of Mini-GPT's own one with these names is, if it is one."""
    if {"meta.json", "train.tokens"} <= names:
        return "Mini-GPT data set"
    if "config.toml" in names and names & {"metrics.jsonl", "checkpoints"}:
        return "Mini-GPT run"
    return ""


def _fitting(patterns: Iterable[str], name: str, inside: str) -> set[str]:
    """The patterns that fit a name, or the path inside of the folder. Capital and small letters are the same."""
    names = name.lower(), inside.lower()
    return {each for each in patterns if any(fnmatchcase(part, each.lower().rstrip("/")) for part in names)}


def _is_taken(name: str) -> bool:
    return name.lower().endswith(TAKEN)


def suffix_of(name: str) -> str:
    """The suffix of a file in small letters, with what stands before .gz; "" if there is none."""
    stem, suffix = os.path.splitext(os.path.basename(name).lower())
    if suffix == ".gz":
        suffix = os.path.splitext(stem)[1] + suffix
    return suffix if 1 < len(suffix) <= LONG_SUFFIX and " " not in suffix else ""


def _ending(path: str) -> str:
    return suffix_of(path) or os.path.basename(path)


def _sniffed(path: str) -> str:
    try:
        with opened(path) as file:
            return sniff(file.read(HEAD_BYTES))
    except DataError:
        return "binary"
