"""Where text comes from: files, folders, records, the hub, standard input, the standard library.

A source is named by a word on the command line and yields documents in bounded pieces, the same ones every time it is
read, for preparing reads twice. The table `SOURCES` at the bottom lists all kinds; the first that fits a name reads it.

What a file is, its first bytes decide (minigpt/sniff.py), and then its name: tables and records are read by column,
text as one document. Newlines and everything else stay byte for byte. What is not text is refused with the command
that makes text of it, never guessed at or mended.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import IO

from minigpt.data import pylib
from minigpt.data.chunks import ChunkOrigin, TextChunk, decode_utf8, record_pieces, split_at, split_lines, text_chunks
from minigpt.data.folders import Listing, list_folder, or_excluded, suffix_of
from minigpt.data.hub import read_hub
from minigpt.data.opening import cannot_read, chunks_of, kind_of, opened, reading, spooled_stdin, unpacked
from minigpt.data.record_files import READERS
from minigpt.errors import DataError, did_you_mean
from minigpt.sniff import FORMATS, HEAD_BYTES, MARKUP, RECORDS, advice, sniff
from minigpt.source_options import USUAL, SourceOptions
from minigpt.text_utils import display_name, pluralize, shell_word

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[EOS]")
"""What other tools put between documents. Within a text it is ordinary characters, which a model learns to write."""

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
class Findings:
    """What is to be said of a source, beside its text.

    Attributes:
        left_out: what a folder holds and is not read, in words.
        notes: how to take that, and what else the reader should know, as sentences.
        separators: how often each of `SEPARATORS` stands in the documents; known once they were read.
        documents: how many documents there were before and after they were split.
    """

    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    separators: dict[str, int] = field(default_factory=dict)
    documents: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Source:
    """Documents that can be read again and again.

    Args:
        name: what the user wrote.
        kind: the key of `SOURCES` that reads it; for a file its format.
        read: starts from the first document, every time it is called.
        findings: what else there is to say.
    """

    name: str
    kind: str
    read: Callable[[], Iterator[TextChunk]]
    findings: Findings = field(default_factory=Findings)


@contextmanager
def open_sources(names: Iterable[str], options: SourceOptions = USUAL) -> Iterator[list[Source]]:
    """Finds out what each name means. Standard input, if named, is kept in a temporary file until the block ends.

    Args:
        names: words of the command line.
        options: how they are read.

    Raises:
        DataError: no kind of source fits a name, or it cannot be read.
    """
    names = list(names)
    with ExitStack() as stack:
        stdin = stack.enter_context(spooled_stdin()) if "-" in names else None
        yield _told_apart([_source(name, options, stdin) for name in names])


def _told_apart(sources: list[Source]) -> list[Source]:
    """The same; of two whose files have the same name, documents are shown with the folder before it, too."""
    own = Counter(display_name(source.name) for source in sources)
    return [
        replace(source, read=_shown_longer(source)) if own[display_name(source.name)] > 1 else source
        for source in sources
    ]


def _shown_longer(source: Source) -> Callable[[], Iterator[TextChunk]]:
    name = display_name(source.name)
    longer = f"{Path(source.name).absolute().parent.name}/{name}"

    def read() -> Iterator[TextChunk]:
        for piece in source.read():
            shown = piece.origin.name
            if shown.startswith(name):
                piece = piece._replace(origin=piece.origin._replace(name=longer + shown.removeprefix(name)))
            yield piece

    return read


def _source(name: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    kind = next((kind for kind, entry in SOURCES.items() if entry.fits(name)), None)
    if kind is None:
        raise _no_source(name)
    whole = SOURCES[kind].open(name, options, stdin)
    return replace(whole, read=lambda: _documents(whole, options))


def _no_source(name: str) -> DataError:
    kind = kind_of(name)
    if kind:
        pipe = f"Pipe it into the command: `cat {shell_word(name)} | minigpt ... -`."
        remedy = pipe if kind == "named pipe" else "Name a file or a folder."
        return DataError(f"{name} is a {kind}, not a file or folder", remedy=remedy)
    if os.path.islink(name):
        seen = f"{name} -> {os.readlink(name)}"
        return DataError("The link leads to nothing", got=seen, remedy="Mend the link, or name the file itself.")
    beside: list[str] = []
    with suppress(OSError, ValueError):
        beside = [str(path) for path in itertools.islice(Path(name).parent.iterdir(), 1000)]
    remedy = did_you_mean(name, [*SOURCES, *beside]).rstrip()
    remedy = remedy or "Name a file, a folder, hf:owner/name, pylib, or - for standard input."
    return DataError("There is no such file, folder or source", got=name, remedy=remedy)


def _documents(source: Source, options: SourceOptions) -> Iterator[TextChunk]:
    """The documents of a source, split as the options say; what is found in them is counted."""
    before, after, separators = 0, 0, Counter[str]()

    def whole() -> Iterator[TextChunk]:
        nonlocal before
        for piece in source.read():
            before += piece.last
            yield piece

    pieces = whole()
    if options.split_at is not None:
        pieces = split_at(pieces, options.split_at)
    if options.split_lines:
        pieces = split_lines(pieces)
    try:
        for piece in pieces:
            after += piece.last
            for sign in SEPARATORS:
                if sign in piece.text:
                    separators[sign] += piece.text.count(sign)
            yield piece
    except OSError as error:
        raise cannot_read(source.name, error) from error
    source.findings.separators, source.findings.documents = dict(separators), (before, after)


def source_notes(sources: Sequence[Source], options: SourceOptions) -> Iterator[str]:
    """Yields what the reader should know about sources that were read, as sentences."""
    separators = Counter[str]()
    before = after = 0
    for source in sources:
        yield from source.findings.notes
        separators.update(source.findings.separators)
        before, after = before + source.findings.documents[0], after + source.findings.documents[1]
    if (options.pattern or options.exclude) and not any(source.kind == "folder" for source in sources):
        yield "--pattern and --exclude choose among the files of folders, and no folder was named."
    if options.split_at is not None and before == after:
        yield f"--split-at {shell_word(options.split_at)} fits nothing: the string does not occur in the text."
    for sign, number in separators.items():
        yield (
            f"{sign} occurs {pluralize(number, 'time')} in the text, as ordinary characters: the model will learn to "
            f"write it. If documents end there: --split-at {shell_word(sign)}"
        )


def open_stdin(name: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """Standard input, as a file."""
    assert stdin is not None
    with reading(STDIN):
        kind = _format(unpacked(stdin).read(HEAD_BYTES), "", options)

    def read() -> Iterator[TextChunk]:
        with reading(STDIN):
            yield from _read_file(unpacked(stdin), STDIN, STDIN.lower(), kind, options)

    return Source(name, kind, read)


def open_file(name: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """A file: a document, or the documents of its records."""
    with opened(name) as file:
        kind = _format(file.read(HEAD_BYTES), name, options)
    return Source(name, kind, lambda: _read_path(name, display_name(name), options))


def open_folder(name: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """The files of a folder and its folders."""
    listing = list_folder(name, options)
    left_out = tuple(listing.left_out())
    if not listing.files:
        wanted = " or ".join(options.pattern) or "text by its name"
        seen = f"nothing that is {wanted}" + (f", but {', '.join(left_out)}" if left_out else "")
        remedy = "Choose its files: --pattern '*.py'."
        raise DataError(f"The folder {name} holds no file to read", got=seen, remedy=remedy)
    found = Findings(left_out, tuple(listing.notes(options)))
    return Source(name, "folder", lambda: _read_folder(listing, options), found)


def _read_folder(listing: Listing, options: SourceOptions) -> Iterator[TextChunk]:
    for path in listing.files:
        shown = f"{display_name(listing.folder)}/{PurePath(path).relative_to(listing.folder).as_posix()}"
        try:
            yield from _read_path(path, shown, options)
        except DataError as error:
            raise or_excluded(error, path) from error


def _read_path(path: str, shown: str, options: SourceOptions) -> Iterator[TextChunk]:
    with opened(path) as file:
        kind = _format(file.read(HEAD_BYTES), path, options)
        file.seek(0)
        yield from _read_file(file, path, shown, kind, options)


def _read_file(file: IO[bytes], where: str, shown: str, kind: str, options: SourceOptions) -> Iterator[TextChunk]:
    if kind == "text":
        return text_chunks(decode_utf8(chunks_of(file), where), ChunkOrigin(shown))
    return READERS[kind](file, where, shown, options.text_column)


def _format(head: bytes, name: str, options: SourceOptions) -> str:
    """What a file is to be read as: a key of `READERS`, or `text`.

    Raises:
        DataError: it cannot be read, or might be meant in two ways.
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
            f"{where} holds {FORMATS[found].title}",
            got=head[:60].splitlines()[0].decode(errors="replace"),
            remedy=f"Read a column of it: --format {found} --text-column NAME. Read it as it stands: --format text.",
        )
    remedy = advice(found, name) or "There is no text in it to train on."
    if found in MARKUP:
        remedy += " Or train on it as it stands: --format text."
    title = FORMATS[found].title + " twice" * (found == "gzip")
    raise DataError(f"{where} is {title}", remedy=remedy)


def open_hub(name: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """A data set of the Hugging Face hub, a row a document."""
    return Source(name, "hf", lambda: read_hub(name, options.text_column))


def open_pylib(name: str, options: SourceOptions, stdin: IO[bytes] | None) -> Source:
    """The standard library's documentation, a module or a reference topic a document; or its source."""
    texts = pylib.library_documentation if name == "pylib" else pylib.library_code

    def read() -> Iterator[TextChunk]:
        for module, text in texts():
            yield from record_pieces(text, name, ChunkOrigin(module))

    return Source(name, name, read)


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Args:
        summary: a line for the help.
        fits: whether a name means this kind.
        open: makes the source of a name, the options, and standard input.
    """

    summary: str
    fits: Callable[[str], bool]
    open: Callable[[str, SourceOptions, IO[bytes] | None], Source]


SOURCES: dict[str, SourceKind] = {
    "-": SourceKind("standard input", lambda name: name == "-", open_stdin),
    "pylib": SourceKind("the documentation of Python's own library", lambda name: name == "pylib", open_pylib),
    "pylib-code": SourceKind("the source of Python's own library", lambda name: name == "pylib-code", open_pylib),
    "hf": SourceKind("a data set of the Hugging Face hub", lambda name: name.startswith("hf:"), open_hub),
    "folder": SourceKind("the files of a folder", lambda name: kind_of(name) == "folder", open_folder),
    "file": SourceKind("a file of text, JSON, CSV, TSV or Parquet", lambda name: kind_of(name) == "file", open_file),
}
