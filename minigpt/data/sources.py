"""Where text comes from: files, folders, records, the hub, standard input, the standard library.

A source is named by a word on the command line and yields documents in bounded pieces, the same ones every time it is
read, for preparing reads twice. The table `SOURCES` at the bottom lists all kinds; the first that fits a name reads it.

Newlines and everything else stay byte for byte. What is no text is refused with its place, never guessed at or mended.
"""

from __future__ import annotations

import fnmatch
import gzip
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from minigpt.characters import own_name
from minigpt.data import pylib
from minigpt.data.pieces import Origin, Piece, decode_utf8, pieces_of, record_pieces
from minigpt.errors import DataError, MissingExtraError, did_you_mean

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".rst", ".text", ".txt.gz")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
PARQUET_SUFFIXES = (".parquet",)
KNOWN_SUFFIXES = TEXT_SUFFIXES + JSON_SUFFIXES + PARQUET_SUFFIXES

CHUNK_BYTES = 2**18
MAX_LINE_BYTES = 2**28  # of a JSON line: more is no record but a mistake, or a bomb
ROWS_AT_ONCE = 16  # of a Parquet file or the hub: documents can be whole books


@dataclass(frozen=True)
class Options:
    """How sources are read.

    Args:
        text_column: the field of a record that holds the text.
        pattern: which files of a folder, as `*.py`; None for the known extensions.
        stdin: standard input, spooled to a file that can be read again.
    """

    text_column: str = "text"
    pattern: str | None = None
    stdin: IO[bytes] | None = None


@dataclass(frozen=True)
class Source:
    """Documents that can be read again and again.

    Args:
        name: what the user wrote.
        kind: the key of `SOURCES` that reads it.
        read: starts from the first document, every time it is called.
    """

    name: str
    kind: str
    read: Callable[[], Iterator[Piece]]


@contextmanager
def open_sources(
    names: Iterable[str], *, text_column: str = "text", pattern: str | None = None
) -> Iterator[list[Source]]:
    """Finds out what each name means. Standard input, if named, is kept in a temporary file until the block ends.

    Args:
        names: words of the command line.
        text_column: the field of a record that holds the text.
        pattern: which files of a folder, as `*.py`; None for the known extensions.

    Raises:
        DataError: no kind of source fits a name.
    """
    names = list(names)
    with ExitStack() as stack:
        stdin = stack.enter_context(_spooled_stdin()) if "-" in names else None
        options = Options(text_column, pattern, stdin)
        yield [_source(name, options) for name in names]


def _source(name: str, options: Options) -> Source:
    kind = next((kind for kind, entry in SOURCES.items() if entry.fits(name)), None)
    if kind is not None:
        return Source(name, kind, lambda: SOURCES[kind].read(name, options))
    parent = Path(name).parent
    beside = [str(path) for path in parent.iterdir()] if parent.is_dir() else []
    guess = did_you_mean(name, [*SOURCES, *beside]).rstrip()
    remedy = guess or "Name a file, a folder, hf:owner/name, pylib, or - for stdin."
    raise DataError("There is no such file, folder or source", seen=name, remedy=remedy)


@contextmanager
def _spooled_stdin() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as spool:
        while chunk := sys.stdin.buffer.read(CHUNK_BYTES):
            spool.write(chunk)
        yield spool


def read_stdin(name: str, options: Options) -> Iterator[Piece]:
    """Standard input as one document."""
    assert options.stdin is not None
    options.stdin.seek(0)
    return pieces_of(decode_utf8(_chunks(options.stdin), "Standard input"), Origin("standard input"))


def read_text(name: str, options: Options) -> Iterator[Piece]:
    """A UTF-8 file, or one packed with gzip, as one document."""
    with _opened(name) as file:
        yield from pieces_of(decode_utf8(_chunks(file), name), Origin(own_name(name)))


def read_json_lines(name: str, options: Options) -> Iterator[Piece]:
    """A document a line: JSON objects, whose field `text_column` is the text. Empty lines are skipped."""
    with _opened(name) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            where = f"{name}, line {number:,}"
            if len(line) == MAX_LINE_BYTES:
                raise DataError(f"{where} is too long", seen=f"{len(line):,} bytes", remedy="Split the record.")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield from record_pieces(
                    _field(line, options.text_column, where), where, Origin(own_name(name), number)
                )


def _field(line: bytes, column: str, where: str) -> object:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON", seen=error, remedy="Mend or remove the line.") from error
    if not isinstance(record, dict) or column not in record:
        seen = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise DataError(f"{where} has no field {column!r}", seen=seen, remedy="Name its field: --text-column NAME.")
    return record[column]


def read_parquet(name: str, options: Options) -> Iterator[Piece]:
    """A document a row: the column `text_column`. A null is an empty document."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Reading Parquet", "data") from error
    column, row = options.text_column, 0
    try:
        with pyarrow.parquet.ParquetFile(name) as file:
            columns = file.schema_arrow.names
            if column not in columns:
                raise DataError(
                    f"{name} has no column {column!r}",
                    seen=", ".join(columns),
                    remedy="Name the column: --text-column NAME.",
                )
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield from record_pieces(
                        "" if text is None else text, f"{name}, row {row:,}", Origin(own_name(name), row)
                    )
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} cannot be read as Parquet", seen=error, remedy="Copy or download it anew.") from error


def read_folder(name: str, options: Options) -> Iterator[Piece]:
    """The files of a folder and its folders, in the order of their names; a text file is a document.

    Hidden files and folders are left out, and so are links to folders, which may lead in a circle.
    """
    paths = folder_files(Path(name), options.pattern)
    if not paths:
        wanted = options.pattern or ", ".join(KNOWN_SUFFIXES)
        remedy = "Choose its files: --pattern '*.py'."
        raise DataError(f"The folder {name} holds no file to read", seen=f"none of {wanted}", remedy=remedy)
    for path in paths:
        kind = next(kind for kind in ("jsonl", "parquet", "text") if SOURCES[kind].fits(str(path)))
        origin = f"{own_name(name)}/{path.relative_to(name).as_posix()}"
        for piece in SOURCES[kind].read(str(path), options):
            yield piece._replace(origin=piece.origin._replace(name=origin))


def folder_files(folder: Path, pattern: str | None) -> list[Path]:
    """The files that `read_folder` reads. A pattern is held against the name, and against the path in the folder."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            inside = path.relative_to(folder).as_posix()
            if name.startswith("."):
                continue
            if pattern is None and name.lower().endswith(KNOWN_SUFFIXES):
                found.append(path)
            if pattern is not None and (fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(inside, pattern)):
                found.append(path)
    return found


def read_hub(name: str, options: Options) -> Iterator[Piece]:
    """A data set of the Hugging Face hub, `hf:owner/name[:config][@split]`, streamed; or of a local folder,
    `hf:./folder`.

    The split is `train` unless another is named. Nothing that a data set brings is run.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("Reading the Hugging Face hub", "data") from error
    rest, _, split = name.removeprefix("hf:").partition("@")
    path, config = (rest, "") if Path(rest).exists() else rest.partition(":")[::2]
    shown = own_name(rest if Path(rest).exists() else name)
    try:
        rows = datasets.load_dataset(path, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(cast("Iterable[dict[str, Any]]", rows), start=1):
            where = f"{name}, row {number:,}"
            if options.text_column not in row:
                raise DataError(
                    f"{where} has no column {options.text_column!r}",
                    seen=", ".join(row),
                    remedy="Name the column: --text-column NAME.",
                )
            text = row[options.text_column]
            yield from record_pieces("" if text is None else text, where, Origin(shown, number))
    except DataError:
        raise
    except Exception as error:  # the library raises whatever its many back ends raise
        remedy = "Check the name (hf:owner/name, hf:owner/name:config@split) and the network."
        raise DataError(f"{name} cannot be read", seen=f"{type(error).__name__}: {error}", remedy=remedy) from error


def read_pylib(name: str, options: Options) -> Iterator[Piece]:
    """The documentation of Python's standard library; a module or a reference topic is a document."""
    for module, text in pylib.library_documentation():
        yield from record_pieces(text, name, Origin(module))


def read_pylib_code(name: str, options: Options) -> Iterator[Piece]:
    """The source of Python's standard library; a module is a document."""
    for module, text in pylib.library_code():
        yield from record_pieces(text, name, Origin(module))


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    """A file, unpacked as it is read if its name ends in .gz."""
    try:
        opened = gzip.open(name) if name.lower().endswith(".gz") else open(name, "rb")  # noqa: SIM115
        with cast("IO[bytes]", opened) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be read", seen=error, remedy="Check the file and its permissions.") from error


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Args:
        summary: a line for the help.
        fits: whether a name means this kind.
        read: yields the documents' pieces.
    """

    summary: str
    fits: Callable[[str], bool]
    read: Callable[[str, Options], Iterator[Piece]]


def _is_file(name: str, suffixes: tuple[str, ...] = ("",)) -> bool:
    return name.lower().endswith(suffixes) and Path(name).is_file()


SOURCES: dict[str, SourceKind] = {
    "-": SourceKind("standard input", lambda name: name == "-", read_stdin),
    "pylib": SourceKind("the documentation of Python's own library", lambda name: name == "pylib", read_pylib),
    "pylib-code": SourceKind("the source of Python's own library", lambda name: name == "pylib-code", read_pylib_code),
    "hf": SourceKind("a data set of the Hugging Face hub", lambda name: name.startswith("hf:"), read_hub),
    "folder": SourceKind("all files of a folder", lambda name: Path(name).is_dir(), read_folder),
    "jsonl": SourceKind("JSON lines, also .gz", lambda name: _is_file(name, JSON_SUFFIXES), read_json_lines),
    "parquet": SourceKind("a Parquet file", lambda name: _is_file(name, PARQUET_SUFFIXES), read_parquet),
    "text": SourceKind("any other UTF-8 file, also .gz", _is_file, read_text),
}
