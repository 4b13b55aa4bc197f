"""Sources: each kind yields its documents, twice the same, and says where the trouble is."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from minigpt.data import sources
from minigpt.data.pieces import Origin
from minigpt.data.sources import SOURCES, open_sources
from minigpt.errors import DataError

TEXTS = ["first\nlines\r\n", "zweite Größe", "", "третий <|endoftext|>"]


def documents(name: str | Path, **options: str) -> list[str]:
    """All documents of a source, whole; read twice to see that they stay the same."""
    with open_sources([str(name)], **options) as (source,):
        readings = []
        for _ in range(2):
            found, held = [], ""
            for piece in source.read():
                held += piece.text
                if piece.last:
                    found.append(held)
                    held = ""
            assert held == ""
            readings.append(found)
    assert readings[0] == readings[1]
    return readings[0]


def origins(name: str | Path, **options: str) -> list[Origin]:
    """Where each document of a source comes from."""
    with open_sources([str(name)], **options) as (source,):
        return [piece.origin for piece in source.read() if piece.last]


def json_lines(texts: list[str], column: str = "text") -> bytes:
    return b"".join(json.dumps({"id": 1, column: text}).encode() + b"\n" for text in texts)


def kind(name: str | Path) -> str:
    with open_sources([str(name)]) as (source,):
        return source.kind


def test_a_text_file_is_one_document_byte_for_byte(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbf" + TEXTS[0].encode())
    assert documents(file) == [TEXTS[0]]
    other = tmp_path / "no.extension.at-all"
    other.write_bytes(TEXTS[1].encode())
    assert documents(other) == [TEXTS[1]]
    with gzip.open(tmp_path / "b.txt.gz", "wb") as packed:
        packed.write(TEXTS[3].encode())
    assert documents(tmp_path / "b.txt.gz") == [TEXTS[3]]


def test_json_lines_are_a_document_each(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json_lines(TEXTS) + b"\n  \n")
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as packed:
        packed.write(json_lines(TEXTS, "body").removesuffix(b"\n"))
    assert documents(tmp_path / "a.jsonl") == TEXTS
    assert documents(tmp_path / "a.jsonl.gz", text_column="body") == TEXTS
    assert kind(tmp_path / "a.jsonl.gz") == "jsonl"
    assert origins(tmp_path / "a.jsonl") == [Origin("a.jsonl", line) for line in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{not json}", "line 3 is no JSON"),
        (b'{"text": "cut', "line 3 is no JSON"),
        (b'{"text": "\xff"}', "line 3 is no JSON"),
        (b"[" * 100_000, "line 3 is no JSON"),
        (b'{"body": "x"}', "line 3 has no field 'text'.*body.*--text-column"),
        (b'["text"]', "line 3 has no field 'text'.*list"),
        (b'{"text": 5}', "line 3 is no string.*int"),
        (b'{"text": null}', "line 3 is no string"),
        (b'{"text": "\\ud800"}', "line 3 holds half of a surrogate pair"),
    ],
)
def test_a_wrong_json_line_is_named(tmp_path: Path, line: bytes, words: str):
    file = tmp_path / "a.jsonl"
    file.write_bytes(json_lines(["fine"]) + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=rf"a\.jsonl, {words}"):
        documents(file)


def test_a_json_line_without_an_end_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 1000)
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb") as packed:
        packed.write(b'{"text": "' + b"x" * 1_000_000)
    with pytest.raises(DataError, match=r"line 1 is too long.*1,000 bytes"):
        documents(tmp_path / "bomb.jsonl.gz")


@pytest.mark.parametrize("change", [lambda b: b[:-12], lambda b: b"no gzip", lambda b: b[:20] + b"\0\0\0\0" + b[24:]])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, change):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(change(gzip.compress(json_lines(TEXTS))))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz"):
        documents(file)


def test_parquet_is_a_document_a_row(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"id": range(200), "body": TEXTS * 50}), file, row_group_size=7)
    assert documents(file, text_column="body") == TEXTS * 50
    with pytest.raises(DataError, match=r"a\.parquet has no column 'text'.*id, body.*--text-column"):
        documents(file)
    with pytest.raises(DataError, match=r"row 1 is no string.*int"):
        documents(file, text_column="id")
    parquet.write_table(pa.table({"text": ["a", None, "b"]}), file)
    assert documents(file) == ["a", "", "b"]
    assert origins(file) == [Origin("a.parquet", row) for row in (1, 2, 3)]
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        documents(file)


def test_a_folder_is_its_files_in_order(tmp_path: Path):
    for name, text in {
        "b.txt": "b",
        "a/z.md": "z",
        "a/y.TXT": "y",
        "a/deep/er/x.txt": "x",
        ".hidden.txt": "no",
        ".git/c.txt": "no",
        "code.py": "code",
        "picture.png": "\0",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "c.jsonl").write_bytes(json_lines(["record"]))
    assert documents(tmp_path) == ["b", "record", "y", "z", "x"]
    places = [("b.txt", 0), ("c.jsonl", 1), ("a/y.TXT", 0), ("a/z.md", 0), ("a/deep/er/x.txt", 0)]
    assert origins(tmp_path) == [Origin(f"{tmp_path.name}/{name}", row) for name, row in places]
    assert documents(tmp_path, pattern="*.py") == ["code"]
    assert documents(tmp_path, pattern="a/*.md") == ["z"]
    with pytest.raises(DataError, match=r"picture\.png is no UTF-8 text"):
        documents(tmp_path, pattern="*")
    with pytest.raises(DataError, match=r"no file to read.*\*\.rs"):
        documents(tmp_path, pattern="*.rs")


def test_standard_input_is_one_document(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("über\r\n".encode())))
    assert documents("-") == ["über\r\n"]
    assert origins("-") == [Origin("standard input")]


def test_a_local_folder_through_the_hub(tmp_path: Path):
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_bytes(json_lines(["one", "two", ""]))
    assert documents(f"hf:{tmp_path}") == ["one", "two", ""]
    assert origins(f"hf:{tmp_path}") == [Origin(tmp_path.name, row) for row in (1, 2, 3)]
    with pytest.raises(DataError, match=r"has no column 'body'.*id, text"):
        documents(f"hf:{tmp_path}", text_column="body")
    with pytest.raises(DataError, match="cannot be read"):
        documents(f"hf:{tmp_path}@nothing")


def test_an_unknown_name_gets_a_guess(tmp_path: Path):
    (tmp_path / "stories.txt").write_text("x")
    for name, guess in {"pylb": "pylib", str(tmp_path / "storys.txt"): "stories.txt", "qqqq": "Name a file"}.items():
        with pytest.raises(DataError, match=f"no such file.*{guess}"), open_sources([name]):
            pass


def test_every_kind_is_described():
    assert all(entry.summary for entry in SOURCES.values())
    assert kind("pylib-code") == "pylib-code"
    assert Origin("textwrap") in origins("pylib")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("x")
    with open_sources([str(file)]) as (source,):
        file.unlink()
        with pytest.raises(DataError, match=r"a\.txt cannot be read"):
            list(source.read())
