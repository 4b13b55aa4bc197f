"""Files of many documents: JSON lines, JSON arrays, CSV and TSV tables, Parquet. One field of each record is the text.

The same rules hold in all of them: a null is an empty document; a missing field, or one that is not a string, is an
error that names the line or row; blank lines are skipped. A few records at a time are in memory, a JSON array whole.

Readers take the open file, its name for messages, its name as the origin of its documents, and the columns that may
hold the text: the first one that a record has is read. Detecting formats: minigpt/sniff.py.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, count, islice
from typing import IO, cast

from minigpt.data.chunks import DocumentOrigin, TextChunk, decode_utf8, record_chunks
from minigpt.data.opening import blocks_of
from minigpt.errors import DataError, MissingExtraError
from minigpt.sniff import QUOTING

MAX_RECORD = 2**26  # bytes or characters: more is not a record, but a quote that is never closed
MAX_JSON_ARRAY = 500_000_000  # bytes
MAX_NAMES = 20  # of columns, in a message
ROWS_AT_ONCE = 16  # of a Parquet file: documents can be whole books

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")

Columns = Sequence[str]


def text_column(names: Collection[str], columns: Columns, where: str) -> str:
    """Returns the first of `columns` that is among the names. Raises DataError if none is."""
    found = next((column for column in columns if column in names), None)
    if found is None:
        got = ", ".join([name[:40] for name in islice(names, MAX_NAMES)] + ["..."] * (len(names) > MAX_NAMES))
        wanted = " or ".join(map(repr, columns))
        raise DataError(f"{where} has no column {wanted}", got=got, remedy="Name the column: --text-column NAME.")
    return found


def text_field(record: object, columns: Columns, where: str) -> object:
    """Returns the field of a record that holds the text. Raises DataError if there is none."""
    if not isinstance(record, dict):
        raise DataError(f"{where} is not a JSON object", got=type(record).__name__, remedy="Fix or remove the record.")
    return record[text_column(record, columns, where)]


def _too_long(where: str) -> DataError:
    remedy = "Split the record, or close the quote or bracket that it opens."
    return DataError(f"{where} is too long", got=f"more than {MAX_RECORD:,} characters", remedy=remedy)


def read_json_lines(file: IO[bytes], where: str, label: str, columns: Columns) -> Iterator[TextChunk]:
    """A document per line, each a JSON object."""
    for number in count(1):
        line = file.readline(MAX_RECORD)
        if not line:
            return
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
        yield from record_chunks(text_field(record, columns, place), place, DocumentOrigin(label, number))


def read_json_array(file: IO[bytes], where: str, label: str, columns: Columns) -> Iterator[TextChunk]:
    """A document per element: an object, or the string itself. The file is in memory whole."""
    content = file.read(MAX_JSON_ARRAY + 1)
    if len(content) > MAX_JSON_ARRAY:
        remedy = "Convert it to JSON lines: `jq -c '.[]' FILE > OUT.jsonl`."
        raise DataError(
            f"{where} is too long for a JSON array", got=f"more than {MAX_JSON_ARRAY:,} bytes", remedy=remedy
        )
    try:
        array = json.loads("".join(decode_utf8([content], where)))
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where} is not JSON", got=error, remedy="Fix it, or give its --format.") from error
    if not isinstance(array, list):
        raise DataError(
            f"{where} is not a JSON array", got=type(array).__name__, remedy="Fix it, or give its --format."
        )
    for number, element in enumerate(array, start=1):
        place = f"{where}, element {number:,}"
        text = element if element is None or isinstance(element, str) else text_field(element, columns, place)
        yield from record_chunks(text, place, DocumentOrigin(label, number))


def read_csv(file: IO[bytes], where: str, label: str, columns: Columns) -> Iterator[TextChunk]:
    """A document per row. The first row names the columns; commas, semicolons or tabs separate fields, and quotes may
    enclose one."""
    return _read_table(file, where, label, columns, "csv")


def read_tsv(file: IO[bytes], where: str, label: str, columns: Columns) -> Iterator[TextChunk]:
    """A document per line. The first line names the columns; tabs separate fields, and quotes are ordinary characters.
    (`read_csv` reads a spreadsheet's tabs and quotes.)"""
    return _read_table(file, where, label, columns, "tsv")


def _read_table(file: IO[bytes], where: str, label: str, columns: Columns, form: str) -> Iterator[TextChunk]:
    lines = _lines(decode_utf8(blocks_of(file), where), where)
    first = next(lines, "")
    delimiter = "\t" if form == "tsv" else _delimiter(first, columns)
    csv.field_size_limit(MAX_RECORD // 4)  # Python's csv module keeps four bytes a character
    reader = csv.reader(chain([first], lines), delimiter=delimiter, quoting=QUOTING[form], strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        index, begin = names.index(text_column(names, columns, where)), reader.line_num + 1
        for row in reader:
            if row:
                place = f"{where}, line {begin:,}"
                text = _cell(row, index, len(names), place, form)
                yield from record_chunks(text, place, DocumentOrigin(label, begin))
            begin = reader.line_num + 1
    except csv.Error as error:
        what = f"{where}, line {reader.line_num:,} is not a row of a table"
        remedy = "Fix the quotes there; or use --format tsv, if tabs separate the fields and none is in quotes."
        raise DataError(what, got=error, remedy=remedy) from error


def _cell(row: Sequence[str], index: int, n_columns: int, place: str, form: str) -> str:
    if len(row) != n_columns:
        remedy = "Fix the row. Fields that contain a separator or a line end must be in quotes"
        also = ", and read with --format csv." if form == "tsv" else "."
        got = f"{len(row)} fields, while the first line names {n_columns}"
        raise DataError(f"{place} is not a row of the table", got=got, remedy=remedy + also)
    text = row[index]
    if form == "tsv" and re.fullmatch(r'"(?:[^"]|"")*""(?:[^"]|"")*"', text):
        raise DataError(f"{place} has its text in quotes", got=text[:60], remedy="Read the table with --format csv.")
    return text


def _delimiter(first: str, columns: Columns) -> str:
    """What separates the names of columns: what makes one of them the text's, or else is the most frequent."""

    def fitness(sign: str) -> tuple[bool, int]:
        names = [name.strip().strip('"') for name in first.split(sign)]
        return not set(columns).isdisjoint(names), len(names)

    return max(",;\t|", key=fitness)


def _lines(parts: Iterator[str], where: str) -> Iterator[str]:
    r"""Lines with their ends, which are \n, \r\n or \r."""
    newlines, held, length = io.IncrementalNewlineDecoder(None, translate=False), [], 0
    for part in chain(parts, ("",)):
        for line in _LINE.findall(newlines.decode(part, final=not part)):
            held.append(line)
            length += len(line)
            if length > MAX_RECORD:
                raise _too_long(f"A line of {where}")
            if line[-1] in "\r\n":
                yield "".join(held)
                held, length = [], 0
    yield "".join(held)


def read_parquet(file: IO[bytes], where: str, label: str, columns: Columns) -> Iterator[TextChunk]:
    """A document per row."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Reading Parquet", "data") from error
    if isinstance(cast(object, file), gzip.GzipFile):  # Parquet needs random access
        raise DataError(f"{where} is a Parquet file in gzip", remedy="Unpack it first: gunzip -k FILE.")
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            column = text_column(table.schema_arrow.names, columns, where)
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=[column]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield from record_chunks(text, f"{where}, row {number:,}", DocumentOrigin(label, number))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where} cannot be read as Parquet", got=error, remedy="Download it again.") from error


READERS = {
    "jsonl": read_json_lines,
    "json": read_json_array,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
}
