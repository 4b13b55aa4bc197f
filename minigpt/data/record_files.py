"""Files of many documents: JSON lines, JSON arrays, CSV and TSV tables, Parquet. One field of each record is the text.

The same holds in all of them: nothing in the field (null) is an empty document; a field that is not a string, or not
there, is an error that names the line or row; blank lines are skipped. Memory holds a few records at a time.

Readers take the open file, its name for messages, its name as shown with its documents (`ChunkOrigin`), and the column.

Not here: opening the files, and deciding what they are (sources.py, minigpt/sniff.py).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import IO, Any, cast

from minigpt.data.chunks import ChunkOrigin, TextChunk, decode_utf8, record_pieces
from minigpt.data.opening import chunks_of
from minigpt.errors import DataError, MissingExtraError
from minigpt.sniff import QUOTING, is_cut_off

MAX_RECORD = 2**26  # bytes or characters: more is not a record but a quote that never closes, or a bomb
MOST_NAMES = 20  # of columns, in a message
ROWS_AT_ONCE = 16  # of a Parquet file: documents can be whole books

_SPACE = re.compile(r"[ \t\r\n]*")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")


def missing_column(where: str, column: str, there: Iterable[str]) -> DataError:
    """The error for records without the column that holds the text."""
    names = [name[:40] for name in islice(there, MOST_NAMES + 1)]
    seen = ", ".join(names[:MOST_NAMES] + ["..."] * (len(names) > MOST_NAMES))
    return DataError(f"{where} has no column {column!r}", got=seen, remedy="Name the column: --text-column NAME.")


def _too_long(place: str) -> DataError:
    remedy = "Split the record, or close the quote or bracket that it opens."
    return DataError(f"{place} is too long", got=f"more than {MAX_RECORD:,} characters", remedy=remedy)


def _field(record: object, column: str, place: str) -> object:
    if not isinstance(record, dict) or column not in record:
        raise missing_column(place, column, record if isinstance(record, dict) else [type(record).__name__])
    return record[column]


def read_json_lines(file: IO[bytes], where: str, shown: str, column: str) -> Iterator[TextChunk]:
    """A document a line: JSON objects."""
    number = 0
    while line := file.readline(MAX_RECORD):
        number += 1
        place = f"{where}, line {number:,}"
        if len(line) == MAX_RECORD:
            raise _too_long(place)
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place} is not JSON", got=error, remedy="Fix or remove the line.") from error
        yield from record_pieces(_field(record, column, place), place, ChunkOrigin(shown, number))


def read_json_array(file: IO[bytes], where: str, shown: str, column: str) -> Iterator[TextChunk]:
    """A document an element: objects, or the strings themselves."""
    array = _JSONArray(decode_utf8(chunks_of(file), where), where)
    for number, element in enumerate(array.elements(), start=1):
        place = f"{where}, element {number:,}"
        text = element if element is None or isinstance(element, str) else _field(element, column, place)
        yield from record_pieces(text, place, ChunkOrigin(shown, number))


class _JSONArray:
    """A JSON array of any length, of whose text no more is kept than its longest element needs.

    Args:
        chunks: its text, cut anywhere.
        where: its name, for messages.
    """

    def __init__(self, chunks: Iterator[str], where: str) -> None:
        self._chunks, self._where = chunks, where
        self._held, self._at, self._number = "", 0, 1
        self._decode = json.JSONDecoder().raw_decode

    def elements(self) -> Iterator[Any]:
        """Yields the elements.

        Raises:
            DataError: it is not a JSON array, or damaged.
        """
        if self._sign() != "[":
            raise DataError(
                f"{self._where} is not a JSON array", got=self._held[:40], remedy="Fix it, or give its --format."
            )
        self._at += 1
        sign = self._sign()
        while sign != "]":
            yield self._element()
            sign = self._sign()
            if sign not in (",", "]"):
                raise self._wrong(f"{sign!r} where a comma or ] should be" if sign else "the file ends before its ]")
            self._at += sign == ","
            self._number += 1
        self._at += 1
        if sign := self._sign():
            raise self._wrong(f"{sign!r} after the end of the array")

    def _sign(self) -> str:
        """The next character that is not white space, without passing it; '' at the end."""
        while True:
            space = _SPACE.match(self._held, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._held) or not self._read(1):
                return self._held[self._at : self._at + 1]

    def _element(self) -> Any:
        self._sign()  # passes white space
        while True:
            try:
                element, self._at = self._decode(self._held, self._at)
                return element
            except json.JSONDecodeError as error:
                length = len(self._held) - self._at
                if length > MAX_RECORD:
                    raise _too_long(f"{self._where}, element {self._number:,}") from error
                if not (is_cut_off(error) and self._read(length)):  # twice as much: it is parsed from its start again
                    raise self._wrong(error) from error
            except (ValueError, RecursionError) as error:
                raise self._wrong(error) from error

    def _read(self, least: int) -> bool:
        """Reads at least so many characters on, and drops what was passed. Returns whether there were any."""
        parts = [self._held[self._at :]]
        while least > 0 and (chunk := next(self._chunks, "")):
            parts.append(chunk)
            least -= len(chunk)
        self._held, self._at = "".join(parts), 0
        return len(parts) > 1

    def _wrong(self, seen: object) -> DataError:
        remedy = "Fix or remove the element."
        return DataError(f"{self._where}, element {self._number:,} is not JSON", got=seen, remedy=remedy)


def read_csv(file: IO[bytes], where: str, shown: str, column: str) -> Iterator[TextChunk]:
    """A document a row. The first row names the columns; commas, semicolons or tabs stand between fields, and quotes
    hold one together."""
    return _table(file, where, shown, column, "csv")


def read_tsv(file: IO[bytes], where: str, shown: str, column: str) -> Iterator[TextChunk]:
    """A document a line. The first line names the columns; tabs stand between fields, and quotes are characters like
    any other. (A spreadsheet's tabs and quotes are what `read_csv` reads.)"""
    return _table(file, where, shown, column, "tsv")


def _table(file: IO[bytes], where: str, shown: str, column: str, form: str) -> Iterator[TextChunk]:
    lines = _lines(decode_utf8(chunks_of(file), where), where)
    first = next(lines, "")
    delimiter = "\t" if form == "tsv" else _delimiter(first, column)
    csv.field_size_limit(MAX_RECORD // 4)  # Python's csv module keeps four bytes a character
    reader = csv.reader(chain([first], lines), delimiter=delimiter, quoting=QUOTING[form], strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if column not in names:
            raise missing_column(where, column, names)
        place, begin = names.index(column), reader.line_num + 1
        for row in reader:
            if row:
                line = f"{where}, line {begin:,}"
                yield from record_pieces(_cell(row, place, names, line, form), line, ChunkOrigin(shown, begin))
            begin = reader.line_num + 1
    except csv.Error as error:
        line = f"{where}, line {reader.line_num:,}"
        remedy = "Fix the quotes there; or --format tsv, if the fields are not in quotes and tabs stand between them."
        raise DataError(f"{line} is not a row of a table", got=error, remedy=remedy) from error


def _cell(row: Sequence[str], place: int, names: Sequence[str], line: str, form: str) -> str:
    if len(row) != len(names):
        remedy = "Fix the row. Fields that hold what stands between fields, or a line end, must be in quotes"
        also = ", and read with --format csv." if form == "tsv" else "."
        seen = f"{len(row)} fields, while the first line names {len(names)}"
        raise DataError(f"{line} is not a row of the table", got=seen, remedy=remedy + also)
    text = row[place]
    if form == "tsv" and re.fullmatch(r'"(?:[^"]|"")*""(?:[^"]|"")*"', text):
        raise DataError(f"{line} has its text in quotes", got=text[:60], remedy="Read the table with --format csv.")
    return text


def _delimiter(first: str, column: str) -> str:
    """What stands between the names of columns: what makes one of them the text's, or else is the most frequent."""

    def fitness(sign: str) -> tuple[bool, int]:
        names = [name.strip().strip('"') for name in first.split(sign)]
        return column in names, len(names)

    return max(",;\t|", key=fitness)


def _lines(chunks: Iterator[str], where: str) -> Iterator[str]:
    r"""Lines with their ends, which are \n, \r\n or \r."""
    whole, held, length = io.IncrementalNewlineDecoder(None, translate=False), [], 0
    for chunk in chain(chunks, ("",)):
        for line in _LINE.findall(whole.decode(chunk, final=not chunk)):
            held.append(line)
            length += len(line)
            if length > MAX_RECORD:
                raise _too_long(f"A line of {where}")
            if line[-1] in "\r\n":
                yield "".join(held)
                held, length = [], 0
    yield "".join(held)


def read_parquet(file: IO[bytes], where: str, shown: str, column: str) -> Iterator[TextChunk]:
    """A document a row."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Reading Parquet", "data") from error
    if isinstance(cast(object, file), gzip.GzipFile):
        remedy = "Unpack it first: gunzip -k FILE."  # its reader goes back and forth
        raise DataError(f"{where} is a Parquet file packed with gzip", remedy=remedy)
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            columns = table.schema_arrow.names
            if column not in columns:
                raise missing_column(where, column, columns)
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=[column]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield from record_pieces(text, f"{where}, row {row:,}", ChunkOrigin(shown, row))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where} cannot be read as Parquet", got=error, remedy="Copy or download it anew.") from error


READERS = {
    "jsonl": read_json_lines,
    "json": read_json_array,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
}
