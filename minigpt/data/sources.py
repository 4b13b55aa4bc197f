"""Where text comes from: files, folders, records, the hub, standard input, the standard library.

A source is named by a word on the command line, and yields documents in bounded chunks: the same ones each time it is
read, for preparing reads twice. The table `SOURCES` at the bottom lists all kinds; the first that fits a name reads it.

The first bytes of a file decide what it is (minigpt/sniff.py), then its name: tables and records are read by column,
text as one document. Line ends and everything else stay byte for byte. What is not text is refused with the command
that converts it, never guessed at or repaired.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import IO, NamedTuple

from minigpt.data import pylib
from minigpt.data.chunks import (
    DocumentOrigin,
    TextChunk,
    decode_utf8,
    record_chunks,
    split_at,
    split_lines,
    text_chunks,
)
from minigpt.data.folders import list_folder, no_files, or_excluded, suffix_of
from minigpt.data.hub import read_hub
from minigpt.data.opening import blocks_of, cannot_read, kind_of, opened, reading, spooled_stdin, unpacked
from minigpt.data.record_files import READERS
from minigpt.errors import DataError, did_you_mean
from minigpt.sniff import FORMATS, HEAD_BYTES, MARKUP, RECORDS, advice, sniff
from minigpt.source_options import DEFAULT_SOURCE_OPTIONS, SourceOptions
from minigpt.text_utils import display_name, pluralize, shell_word

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[EOS]")
"""What other tools put between documents. Inside a text it is ordinary characters, which a model learns to write."""

FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
}
STDIN = "Standard input"


@dataclass
class ReadCounts:
    """What was counted while a source was read."""

    separators: dict[str, int] = field(default_factory=dict)  # how often each of `SEPARATORS` occurs in the documents
    read: int = 0  # the documents before they were split
    split: int = 0  # the documents after it


@dataclass(frozen=True)
class Source:
    """Documents that can be read repeatedly."""

    name: str  # what the user wrote
    kind: str  # the key of `SOURCES` that reads it; for a file its format
    read: Callable[[], Iterator[TextChunk]]  # starts from the first document, each time it is called
    skipped: tuple[str, ...] = ()  # what a folder contains and is not read, in words
    notes: tuple[str, ...] = ()  # how to include that, as sentences
    counts: ReadCounts = field(default_factory=ReadCounts)  # complete once the source was read


class SourceKind(NamedTuple):
    """A kind of source."""

    fits: Callable[[str], bool]  # whether a name means this kind
    # makes the source of a name, a label for its documents, the options, and standard input
    open: Callable[[str, str, SourceOptions, IO[bytes] | None], Source]


@contextmanager
def open_sources(names: Iterable[str], options: SourceOptions = DEFAULT_SOURCE_OPTIONS) -> Iterator[list[Source]]:
    """Finds out what each name means. Standard input, if named, is in a temporary file until the block ends.

    Raises:
        DataError: a name does not fit any kind of source, or cannot be read.
    """
    names = list(names)
    labels = Counter(map(display_name, names))
    with ExitStack() as stack:
        stdin = stack.enter_context(spooled_stdin()) if "-" in names else None
        yield [_open(name, labels[display_name(name)] > 1, options, stdin) for name in names]


def _open(name: str, ambiguous: bool, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    kind = next((kind for kind in SOURCES.values() if kind.fits(name)), None)
    if kind is None:
        raise _unknown_source(name)
    label = display_name(name)
    if ambiguous:  # two sources have this name: their documents are named with the folder above, too
        label = f"{Path(name).absolute().parent.name}/{label}"
    source = kind.open(name, label, options, stdin)
    return replace(source, read=lambda: _documents(source, options))


def _unknown_source(name: str) -> DataError:
    if kind := kind_of(name):
        pipe = f"Pipe it into the command: `cat {shell_word(name)} | minigpt ... -`."
        remedy = pipe if kind == "named pipe" else "Name a file or a folder."
        return DataError(f"{name} is a {kind}, not a file or folder", remedy=remedy)
    if os.path.islink(name):
        remedy = "Fix the link, or name the file itself."
        return DataError("The link is broken", got=f"{name} -> {os.readlink(name)}", remedy=remedy)
    neighbours: list[str] = []
    with suppress(OSError, ValueError):
        neighbours = [str(path) for path in itertools.islice(Path(name).parent.iterdir(), 1000)]
    remedy = did_you_mean(name, [*SOURCES, *neighbours]).rstrip()
    remedy = remedy or "Name a file, a folder, hf:owner/name, pylib, or - for standard input."
    return DataError("No such file, folder or source", got=name, remedy=remedy)


def _documents(source: Source, options: SourceOptions) -> Iterator[TextChunk]:
    """The documents of a source, split as the options say, and counted."""
    read = split = 0
    separators = Counter[str]()

    def whole() -> Iterator[TextChunk]:
        nonlocal read
        for chunk in source.read():
            read += chunk.last
            yield chunk

    chunks = whole()
    if options.split_at is not None:
        chunks = split_at(chunks, options.split_at)
    if options.split_lines:
        chunks = split_lines(chunks)
    try:
        for chunk in chunks:
            split += chunk.last
            for separator in SEPARATORS:
                if separator in chunk.text:
                    separators[separator] += chunk.text.count(separator)
            yield chunk
    except OSError as error:
        raise cannot_read(source.name, error) from error
    source.counts.read, source.counts.split, source.counts.separators = read, split, dict(separators)


def source_notes(sources: Sequence[Source], options: SourceOptions) -> Iterator[str]:
    """Yields what the reader should know about sources that were read, as sentences."""
    separators = Counter[str]()
    for source in sources:
        yield from source.notes
        separators.update(source.counts.separators)
    if (options.pattern or options.exclude) and not any(source.kind == "folder" for source in sources):
        yield "--pattern and --exclude have no effect: they choose among the files of a folder."
    if options.split_at is not None and all(source.counts.read == source.counts.split for source in sources):
        yield f"--split-at {shell_word(options.split_at)} has no effect: the string does not occur in the text."
    for separator, number in separators.items():
        yield (
            f"{separator} occurs {pluralize(number, 'time')} in the text, as ordinary characters: the model will learn "
            f"to write it. If documents end there: --split-at {shell_word(separator)}"
        )


def open_stdin(name: str, label: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """Standard input, as a file."""
    assert stdin is not None
    with reading(STDIN):
        kind = _format(unpacked(stdin).read(HEAD_BYTES), "", options)

    def read() -> Iterator[TextChunk]:
        with reading(STDIN):
            yield from _read_file(unpacked(stdin), STDIN, STDIN.lower(), options)

    return Source(name, kind, read)


def open_file(name: str, label: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """A file: one document, or the documents of its records."""
    with opened(name) as file:
        kind = _format(file.read(HEAD_BYTES), name, options)
    return Source(name, kind, lambda: _read_path(name, label, options))


def open_folder(name: str, label: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """The files of a folder and its subfolders."""
    listing = list_folder(name, options)
    if not listing.files:
        raise no_files(listing, options)

    def read() -> Iterator[TextChunk]:
        for path in listing.files:
            try:
                yield from _read_path(path, f"{label}/{PurePath(path).relative_to(name).as_posix()}", options)
            except DataError as error:
                raise or_excluded(error, path) from error

    return Source(name, "folder", read, tuple(listing.skipped()), tuple(listing.notes(options)))


def _read_path(path: str, label: str, options: SourceOptions) -> Iterator[TextChunk]:
    with opened(path) as file:
        yield from _read_file(file, path, label, options)


def _read_file(file: IO[bytes], where: str, label: str, options: SourceOptions) -> Iterator[TextChunk]:
    head = file.read(HEAD_BYTES)
    kind = _format(head, "" if where == STDIN else where, options)
    file.seek(0)
    try:
        if kind == "text":
            yield from text_chunks(decode_utf8(blocks_of(file), where), DocumentOrigin(label))
        else:
            yield from READERS[kind](file, where, label, options.text_column)
    except DataError as error:
        found = sniff(head)
        if options.format is None or found in (options.format, "text", "8-bit"):
            raise
        remedy = f"{where} looks like {FORMATS[found].title}: leave out --format {options.format}."
        raise DataError(error.what, got=error.got, remedy=remedy) from error


def _format(head: bytes, name: str, options: SourceOptions) -> str:
    """What a file is to be read as: a key of `READERS`, or `text`.

    Raises:
        DataError: it cannot be read, or is ambiguous.
    """
    if options.format is not None:
        return options.format
    found, claimed, where = sniff(head), FORMAT_OF_SUFFIX.get(suffix_of(name).removesuffix(".gz")), name or STDIN
    if found in ("text", "8-bit"):  # of the latter, decoding names the first wrong byte
        return claimed if claimed and head else "text"
    if found == "parquet" or (found in RECORDS and claimed):
        return claimed if claimed and {found, claimed} == {"csv", "tsv"} else found
    if found in RECORDS:
        raise DataError(
            f"{where} is {FORMATS[found].title}",
            got=head[:60].splitlines()[0].decode(errors="replace"),
            remedy=f"To read a column of it: --format {found} --text-column NAME. As plain text: --format text.",
        )
    remedy = advice(found, name) or "It contains no text to train on."
    if found in MARKUP:
        remedy += " Or train on it as it is: --format text."
    title = FORMATS[found].title + " twice" * (found == "gzip")
    raise DataError(f"{where} is {title}", remedy=remedy)


def open_hub(name: str, label: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """A data set of the Hugging Face hub, a document per row."""
    return Source(name, "hf", lambda: read_hub(name, options.text_column))


def open_pylib(name: str, label: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """The standard library's documentation, a document per module or reference topic; or its source."""
    texts = pylib.library_documentation if name == "pylib" else pylib.library_code

    def read() -> Iterator[TextChunk]:
        for module, text in texts():
            yield from record_chunks(text, name, DocumentOrigin(module))

    return Source(name, name, read)


SOURCES: dict[str, SourceKind] = {
    "-": SourceKind(lambda name: name == "-", open_stdin),
    "pylib": SourceKind(lambda name: name == "pylib", open_pylib),
    "pylib-code": SourceKind(lambda name: name == "pylib-code", open_pylib),
    "hf": SourceKind(lambda name: name.startswith("hf:"), open_hub),
    "folder": SourceKind(lambda name: kind_of(name) == "folder", open_folder),
    "file": SourceKind(lambda name: kind_of(name) == "file", open_file),
}
