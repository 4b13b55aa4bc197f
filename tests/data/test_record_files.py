"""Records: the same rules in every format, in bounded memory, and errors name the line, row or element."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data import opening, record_files
from minigpt.data.chunks import TextChunk
from minigpt.data.record_files import READERS, read_csv, read_json_array, read_json_lines, read_tsv
from minigpt.errors import DataError

TEXTS = ["first\nlines\r\n", "zweite Größe", "", 'he said "no", and left; so\tthere', "третий <|endoftext|>"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "BLOCK_BYTES", 7)


def documents(
    reader: Callable[[IO[bytes], str, str, Sequence[str]], Iterator[TextChunk]], content: bytes, column: str = "text"
) -> list[str]:
    found, held = [], ""
    for chunk in reader(io.BytesIO(content), "file", "label", [column]):
        held += chunk.text
        if chunk.last:
            found.append(held)
            held = ""
    return found


def json_lines(values: Sequence[object], column: str = "text") -> bytes:
    return b"".join(json.dumps({"id": 1, column: value}).encode() + b"\n" for value in values)


def json_array(values: Sequence[object], column: str = "text") -> bytes:
    return json.dumps([{"id": 1, column: value} for value in values], indent=1).encode()


def table(values: Sequence[object], column: str = "text", delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["id", column])
    writer.writerows([1, value] for value in values)
    return file.getvalue().encode()


def tsv(values: Sequence[object], column: str = "text") -> bytes:
    return f"id\t{column}\n".encode() + b"".join(f"1\t{value or ''}\n".encode() for value in values)


def parquet(values: Sequence[object], column: str = "text") -> bytes:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table({"id": [1] * len(values), column: values}), file, row_group_size=2)
    return file.getvalue()


WRITERS = {"jsonl": json_lines, "json": json_array, "csv": table, "tsv": tsv, "parquet": parquet}
every_format = pytest.mark.parametrize("form", READERS)


@every_format
def test_a_record_is_a_document(form: str):
    texts = [text.replace("\t", " ").replace("\n", " ").strip() for text in TEXTS] if form == "tsv" else TEXTS
    assert documents(READERS[form], WRITERS[form](texts)) == texts
    assert documents(READERS[form], WRITERS[form](texts, "body"), "body") == texts


@every_format
def test_nothing_is_an_empty_document(form: str):
    assert documents(READERS[form], WRITERS[form](["a", None, "b"])) == ["a", "", "b"]


@every_format
def test_a_missing_column_is_named_with_those_there_are(form: str):
    with pytest.raises(DataError, match=r"^file.* has no column 'text'.*id, body.*--text-column"):
        documents(READERS[form], WRITERS[form](["a"], "body"))


def test_of_many_columns_the_first_are_named():
    record = json.dumps({f"{number} {'x' * 100}": "" for number in range(1000)}).encode()
    with pytest.raises(DataError, match=r"0 x+, .*19 x+, \.\.\.") as error:
        documents(read_json_lines, record)
    assert len(str(error.value)) < 1200


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("value", [5, 0.5, True, ["a"]])
def test_a_number_is_not_a_text(form: str, value: object):
    place = {"jsonl": "line 2", "json": "element 2", "parquet": "row 1"}[form]
    values = [value] if form == "parquet" else ["a", value]
    with pytest.raises(DataError, match=f"file, {place} is not a string.*{type(value).__name__}.*--text-column"):
        documents(READERS[form], WRITERS[form](values))


@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv"])
def test_blank_lines_are_skipped(form: str):
    content = WRITERS[form](["a", "b"]).replace(b"\n", b"\n\n\r\n") + b"\n\n"
    assert documents(READERS[form], content) == ["a", "b"]


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "tsv"])
def test_a_byte_order_mark_is_dropped(form: str):
    assert documents(READERS[form], b"\xef\xbb\xbf" + WRITERS[form](["a"])) == ["a"]


@every_format
def test_an_empty_file_is_not_a_crash(form: str):
    if form == "jsonl":
        assert documents(READERS[form], b"") == []
        return
    with pytest.raises(DataError, match="file"):
        documents(READERS[form], b"")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{not json}", "line 3 is not JSON"),
        (b'{"text": "cut', "line 3 is not JSON"),
        (b'{"text": "\xff"}', "line 3 is not JSON"),
        (b"[" * 100_000, "line 3 is not JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", "line 3 is not JSON"),
        (b'["text"]', "line 3 is not a JSON object.*list"),
        (b'{"text": "\\ud800"}', "line 3 contains a lone surrogate"),
    ],
)
def test_a_wrong_json_line_is_named(line: bytes, words: str):
    with pytest.raises(DataError, match=rf"file, {words}"):
        documents(read_json_lines, json_lines(["fine"]) + b"\n" + line + b"\n")


values = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(texts=st.lists(values, max_size=8), indent=st.sampled_from([None, 0, 3]), plain=st.booleans())
@settings(max_examples=100, deadline=None)
def test_an_array_of_objects_or_strings(texts: list[str | None], indent: int | None, plain: bool):
    content = json.dumps(texts if plain else [{"n": [1.5, {}], "text": text} for text in texts], indent=indent)
    assert documents(read_json_array, f" {content}\n".encode()) == [text or "" for text in texts]


def test_a_json_array_has_a_largest_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record_files, "MAX_JSON_ARRAY", 100)
    with pytest.raises(DataError, match=r"too long for a JSON array.*jq -c"):
        documents(read_json_array, json_array(["x" * 100]))


def test_of_several_columns_the_first_that_a_record_has_is_read():
    content = b'{"body": "a", "text": "no"}\n{"text": "b"}\n'
    found = read_json_lines(io.BytesIO(content), "file", "label", ["body", "text"])
    assert [chunk.text for chunk in found] == ["a", "b"]
    with pytest.raises(DataError, match="no column 'title' or 'body'"):
        list(read_json_lines(io.BytesIO(content), "file", "label", ["title", "body"]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "file is not JSON"),
        ('{"data": []}', "file is not a JSON array"),
        ('["a", "b"', "file is not JSON"),
        ('["a"] and more', "file is not JSON"),
        ('["a", 12, "b"]', "element 2 is not a JSON object.*int"),
        ('["a", {"body": "b"}]', "element 2 has no column 'text'.*body"),
        ('["a", ' + "[" * 100_000, "file is not JSON"),
        ('[{"text": ' + "9" * 5000 + "}]", "file is not JSON"),
        ('["\\ud800"]', "element 1 contains a lone surrogate"),
    ],
)
def test_a_wrong_element_is_named(content: str, words: str):
    with pytest.raises(DataError, match=words):
        documents(read_json_array, content.encode())


@given(
    rows=st.lists(st.text(st.sampled_from('ab,;\t"\n\r \u2028'), max_size=12), max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    quote=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    size=st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_what_the_csv_module_writes_is_read(rows: list[str], delimiter: str, quote: int, size: int):
    chunks = pytest.MonkeyPatch()
    chunks.setattr(opening, "BLOCK_BYTES", size)
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quote)  # type: ignore[arg-type]
    writer.writerows([["id", "text"], *([str(n), row] for n, row in enumerate(rows))])
    assert documents(read_csv, file.getvalue().encode()) == rows
    chunks.undo()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id,text\n1,a\n2,b,c\n", "line 3 is not a row of the table.*3 fields.*names 2"),
        (b"id,text\n1\n", "line 2 is not a row of the table.*1 fields"),
        (b'id,text\n1,"a" b\n', "line 2 is not a row of a table.*expected after"),
        (b'id,text\n1,"a\n2,b\n', "is not a row of a table.*unexpected end"),
        (b"id,text\n1,\xff\n", "not UTF-8 text.*at byte 10"),
        (b"1,a b\n2,c d\n", "has no column 'text'.*1, a b"),
    ],
)
def test_a_wrong_row_is_named(content: bytes, words: str):
    with pytest.raises(DataError, match=words):
        documents(read_csv, content)


def test_in_tsv_quotes_are_characters():
    assert documents(read_tsv, b'id\ttext\n1\t"Oh," she said.\n2\t"no"\n') == ['"Oh," she said.', '"no"']
    assert documents(read_csv, b'id\ttext\n1\t"a\tb"\n2\t"say ""no"""\n') == ["a\tb", 'say "no"']
    with pytest.raises(DataError, match=r"line 2 has its text in quotes.*--format csv"):
        documents(read_tsv, b'id\ttext\n1\t"say ""no"""\n')
    with pytest.raises(DataError, match=r"line 3 is not a row.*--format csv"):
        documents(read_tsv, b'id\ttext\n1\t"a\nb"\n')


@pytest.mark.parametrize(
    ("reader", "content"),
    [
        (read_json_lines, b'{"text": "' + b"x" * 100_000),
        (read_csv, b'id,text\n1,"' + b"x\n" * 50_000),
        (read_csv, b"id,text\n1," + b"x" * 100_000),
    ],
)
def test_a_record_without_an_end_is_not_a_bomb(reader: Any, content: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record_files, "MAX_RECORD", 1000)
    monkeypatch.setattr(opening, "BLOCK_BYTES", 100)
    file = io.BytesIO(content)
    with pytest.raises(DataError, match=r"too long|larger than field limit"):
        list(reader(file, "file", "label", ["text"]))
    assert file.tell() < 5000


def test_parquet_within_gzip_is_refused_in_words():
    packed = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(parquet(["a"]))))
    with pytest.raises(DataError, match=r"in gzip.*gunzip"):
        list(READERS["parquet"](packed, "file", "label", ["text"]))  # type: ignore[arg-type]


def test_a_damaged_parquet_file_is_named():
    with pytest.raises(DataError, match="file cannot be read as Parquet"):
        documents(READERS["parquet"], parquet(["a"])[:-9])
