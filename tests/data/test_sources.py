"""Sources: each kind yields its documents, the same ones twice, and errors say where."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pytest

from minigpt.data import opening
from minigpt.data.chunks import DocumentOrigin
from minigpt.data.record_files import READERS
from minigpt.data.sources import FORMAT_OF_SUFFIX, SEPARATORS, open_sources, source_notes
from minigpt.errors import ConfigError, DataError
from minigpt.schema import validate
from minigpt.sniff import FORMATS, MARKUP, RECORDS
from minigpt.source_options import FileFormat, SourceOptions

TEXTS = ["first\nlines\r\n", "zweite Größe", "", "третий <|endoftext|>"]


def documents(*names: str | Path, **options: Any) -> list[str]:
    """All documents of sources, whole; read twice to see that they stay the same."""
    with open_sources(map(str, names), SourceOptions(**options)) as sources:
        readings = []
        for _ in range(2):
            found, held = [], ""
            for source in sources:
                for chunk in source.read():
                    held += chunk.text
                    if chunk.last:
                        found.append(held)
                        held = ""
                assert held == ""
            readings.append(found)
    assert readings[0] == readings[1]
    return readings[0]


def origins(name: str | Path, **options: Any) -> list[DocumentOrigin]:
    """Where each document of a source comes from."""
    with open_sources([str(name)], SourceOptions(**options)) as (source,):
        return [chunk.origin for chunk in source.read() if chunk.last]


def json_lines(texts: list[str], column: str = "text") -> bytes:
    return b"".join(json.dumps({"id": 1, column: text}).encode() + b"\n" for text in texts)


def kind(name: str | Path) -> str:
    with open_sources([str(name)]) as (source,):
        return source.kind


def notes_of(name: str | Path, **options: Any) -> str:
    """The notes on a source that was read."""
    chosen = SourceOptions(**options)
    with open_sources([str(name)], chosen) as sources:
        for _ in range(2):  # what is found is counted once
            for _ in sources[0].read():
                pass
        return "\n".join(source_notes(sources, chosen))


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_text_file_is_one_document_byte_for_byte(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbf" + TEXTS[0].encode())
    assert documents(file) == [TEXTS[0]]
    assert origins(file) == [DocumentOrigin("a.txt")]
    other = tmp_path / "no.extension.at-all"
    other.write_bytes(TEXTS[1].encode())
    assert documents(other) == [TEXTS[1]]
    (tmp_path / "empty.csv").write_bytes(b"")
    assert documents(tmp_path / "empty.csv") == [""]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.md.gz", "a.gz", "a", "a.txt"])
def test_gzip_is_unpacked_whatever_the_name(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(gzip.compress(TEXTS[3].encode()))
    assert documents(tmp_path / name) == [TEXTS[3]]


def test_what_is_called_gzip_and_is_not_is_read_as_it_is(tmp_path: Path):
    (tmp_path / "a.txt.gz").write_text("unpacked on the way")
    assert documents(tmp_path / "a.txt.gz") == ["unpacked on the way"]


def test_records_are_read_by_what_they_are_if_their_name_says_that_they_are_some(tmp_path: Path):
    csv, array = b"id,text\n1,some words\n2,more words\n", b'[{"text": "some words"}, {"text": "more words"}]'
    lines = json_lines(["some words", "more words"])
    wanted = ["some words", "more words"]
    for name, content, form in [
        ("a.jsonl", b"\xef\xbb\xbf" + lines, "jsonl"),
        ("a.ndjson.gz", gzip.compress(lines), "jsonl"),
        ("b.json", lines, "jsonl"),
        ("c.json", array, "json"),
        ("c.jsonl", array, "json"),
        ("d.csv", csv, "csv"),
        ("d.csv.gz", gzip.compress(csv), "csv"),
        ("e.csv", csv.replace(b",", b"\t"), "csv"),
        ("f.tsv", csv.replace(b",", b"\t"), "tsv"),
        ("g.csv", b"text\nsome words\nmore words\n", "csv"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert (kind(tmp_path / name), documents(tmp_path / name)) == (form, wanted), name
    assert origins(tmp_path / "a.jsonl") == [DocumentOrigin("a.jsonl", line) for line in (1, 2)]
    assert origins(tmp_path / "c.json") == [DocumentOrigin("c.json", element) for element in (1, 2)]
    assert origins(tmp_path / "d.csv") == [DocumentOrigin("d.csv", line) for line in (2, 3)]


@pytest.mark.parametrize(
    ("content", "form", "title"),
    [
        (json_lines(["a", "b"]), "jsonl", "is JSON lines"),
        (b'[{"text": "a"}, {"text": "b"}]', "json", "is a JSON array"),
        (b"id,text\n1,some words\n2,more words\n", "csv", "is a CSV table"),
        (b"id\ttext\n1\tsome words\n2\tmore words\n", "tsv", "is a TSV table"),
    ],
)
def test_records_under_another_name_are_asked_about(tmp_path: Path, monkeypatch, content: bytes, form: str, title: str):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.txt {title}.*--format {form}.*--format text"):
        documents(tmp_path / "a.txt")
    assert documents(tmp_path / "a.txt", format="text") == [content.decode()]
    assert len(documents(tmp_path / "a.txt", format=form)) == 2
    give(monkeypatch, content)
    with pytest.raises(DataError, match=rf"Standard input {title}.*--format {form}.*--format text"):
        documents("-")
    give(monkeypatch, gzip.compress(content))
    assert len(documents("-", format=form)) == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "wörter".encode("utf-16"), r"is text in UTF-16.*iconv -f UTF-16 -t UTF-8 \S*a.txt > \S*a.utf8.txt"),
        (
            "a.csv",
            "text;id".encode("utf-16-le"),
            r"is text in UTF-16 without a byte order mark.*UTF-16LE.*a\.utf8\.csv",
        ),
        (
            "a.csv.gz",
            gzip.compress("text".encode("utf-16")),
            r"UTF-16.*gunzip -k \S*a.csv.gz`.*iconv .*a.csv > \S*a.utf8.csv",
        ),
        ("a.jsonl", '{"text": "x"}'.encode("utf-32"), "is text in UTF-32.*iconv -f UTF-32"),
        ("a.txt", "Größe und mehr".encode("latin-1"), r"not UTF-8 text.*at byte 2\).*iconv -f WINDOWS-1252"),
        ("a.txt", "drei für é".encode("latin-1"), "not UTF-8 text.*iconv -f WINDOWS-1252"),
        ("a.txt", b"words and \0", "is binary data.*no text"),
        ("a.pdf", b"%PDF-1.5\n\xff", "is a PDF file.*pdftotext"),
        ("a.txt", b"<!doctype html><p>x", "is an HTML page.*pandoc.*--format text"),
        ("a.rtf", b"{\\rtf1 x}", "is an RTF document.*pandoc.*--format text"),
        ("a.json", b'{"data":\n [1]}', "is one JSON object.*jq.*a.jsonl.*--format text"),
        ("a.ipynb", b'{"cells": [], "nbformat": 4}', "is a Jupyter notebook.*nbconvert"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0", "is binary data.*no text"),
        ("a.gz", gzip.compress(gzip.compress(b"x")), "compressed with gzip twice.*gunzip"),
        ("a.json", b"12", "is not a JSON array"),
        ("a.jsonl", b"{not json}", "line 1 is not JSON"),
        ("a.parquet", b"words", "cannot be read as Parquet"),
    ],
)
def test_what_is_not_text_is_refused_with_the_command_that_helps(tmp_path: Path, name: str, content: bytes, words: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        documents(tmp_path / name)
    assert "--exclude" not in str(error.value)
    with pytest.raises(DataError, match=f"{words}.*To skip it, or after converting it: --exclude {name}"):
        documents(tmp_path, pattern=("*",))


@pytest.mark.parametrize("change", [lambda b: b[:-12], lambda b: b[:20] + b"\0\0\0\0" + b[24:], lambda b: b[:9]])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt"])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, change: Any, name: str):
    file = tmp_path / name
    file.write_bytes(change(gzip.compress(json_lines(TEXTS))))
    with pytest.raises(DataError, match=rf"{name} cannot be read.*again"):
        documents(file, format="jsonl")


def test_parquet_is_a_document_a_row_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"id": range(200), "body": TEXTS * 50}), file, row_group_size=7)
    assert documents(file, text_column=("body",)) == TEXTS * 50
    assert origins(file, text_column=("body",)) == [DocumentOrigin("a.parquet", row) for row in range(1, 201)]
    give(monkeypatch, file.read_bytes())
    assert documents("-", text_column=("body",)) == TEXTS * 50


def test_a_folder_is_its_files_and_lists_what_it_skips(tmp_path: Path):
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md.gz").write_bytes(gzip.compress(b"a"))
    (tmp_path / "c.jsonl").write_bytes(json_lines(["record"]))
    (tmp_path / "d.tex").write_text("words")
    assert documents(tmp_path) == ["b", "record", "a"]
    places = [("b.txt", 0), ("c.jsonl", 1), ("sub/a.md.gz", 0)]
    assert origins(tmp_path) == [DocumentOrigin(f"{tmp_path.name}/{name}", row) for name, row in places]
    with open_sources([str(tmp_path)]) as (source,):
        assert (source.kind, source.skipped) == ("folder", ("1 .tex (0 kB)",))
    assert "To read them too: --pattern '*.txt' --pattern '*.jsonl' --pattern '*.md.gz' --pattern '*.tex'" in notes_of(
        tmp_path
    )
    with pytest.raises(DataError, match=r"has no file to read.*\*\.rs.*1 \.tex"):
        documents(tmp_path, pattern=("*.rs",))


def test_the_same_files_are_read_twice_though_others_come(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a")
    with open_sources([str(tmp_path)]) as (source,):
        (tmp_path / "b.txt").write_text("b")
        assert [chunk.text for chunk in source.read()] == ["a"]


def test_standard_input_is_one_document(monkeypatch: pytest.MonkeyPatch):
    give(monkeypatch, "über\r\n".encode())
    assert documents("-") == ["über\r\n"]
    assert origins("-") == [DocumentOrigin("standard input")]
    give(monkeypatch, gzip.compress(b"packed"))
    assert documents("-") == ["packed"]


def test_standard_input_that_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    for stream, words in (
        (None, "no standard input"),
        (io.StringIO("text"), "no standard input"),
        (io.TextIOWrapper(Terminal()), "is a terminal"),
    ):
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(DataError, match=f"{words}.*Pipe text"):
            documents("-")
    give(monkeypatch, b"text")
    monkeypatch.setattr(opening.tempfile, "TemporaryFile", (tmp_path / "nowhere" / "spool").open)
    with pytest.raises(DataError, match=r"cannot be read, or not be copied.*TMPDIR"):
        documents("-")


def test_a_local_folder_through_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_bytes(b'{"text": "one", "id": 1}\n{"text": null, "id": 2}\n')
    assert documents(f"hf:{tmp_path}") == ["one", ""]
    assert origins(f"hf:{tmp_path}") == [DocumentOrigin(tmp_path.name, row) for row in (1, 2)]
    with pytest.raises(DataError, match=r"has no column 'body'.*text, id"):
        documents(f"hf:{tmp_path}", text_column=("body",))
    with pytest.raises(DataError, match=r"row 1 is not a string.*int 1.*--text-column"):
        documents(f"hf:{tmp_path}", text_column=("id",))
    with pytest.raises(DataError, match="cannot be read"):
        documents(f"hf:{tmp_path}@nothing")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", "/home/cache")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"cannot be read.*/home/cache.*HF_HOME"):
        documents("hf:owner/name")


@pytest.mark.parametrize("options", [{"split_at": "<|endoftext|>"}, {"split_lines": True}])
def test_every_kind_of_source_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]):
    end = options.get("split_at", "\n")
    text = f"one{end}two{end}three"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "b.jsonl").write_bytes(json_lines([text, "four"]))
    give(monkeypatch, text.encode())
    numbers = ["one", "two", "three"]
    assert documents(tmp_path / "a.txt", tmp_path / "b.jsonl", "-", **options) == [*numbers, *numbers, "four", *numbers]
    assert origins(tmp_path / "a.txt", **options) == [DocumentOrigin("a.txt", part) for part in (1, 2, 3)]
    assert origins(tmp_path / "b.jsonl", **options) == [DocumentOrigin("b.jsonl", line) for line in (1, 1, 1, 2)]


def test_separators_within_texts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "a.txt"
    file.write_text("One.\n<|endoftext|>\nTwo.\n<|endoftext|>\n" * 10_000 + "</s>")
    assert "<|endoftext|> occurs 20,000 times in the text" in notes_of(file)
    assert "</s> occurs 1 time" in notes_of(file)
    assert "--split-at '<|endoftext|>'" in notes_of(file)
    assert "endoftext" not in notes_of(file, split_at="<|endoftext|>")
    assert r"--split-at $'\n\n' has no effect" in notes_of(file, split_at="\n\n")
    file.write_text("One. Two.")
    assert notes_of(file) == ""
    assert "have no effect" in notes_of(file, exclude=("*.md",))
    assert all(sign.isascii() and " " not in sign for sign in SEPARATORS)  # no chunk ends within one


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split_at": ""}, "--split-at is empty"),
        ({"split_at": "x", "split_lines": True}, "exclude each other"),
        ({"format": "xlsx"}, "Unknown format.*text, jsonl, json, csv, tsv, parquet"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        SourceOptions(**options)


def test_a_wrong_format_is_named_with_the_right_one(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(["one", "two"]))
    with pytest.raises(DataError, match=r"a\.jsonl looks like JSON lines: leave out --format csv"):
        documents(tmp_path / "a.jsonl", format="csv")


def test_options_become_arguments_of_a_command():
    chosen = SourceOptions(pattern=("*.a", "*.b"), split_lines=True, text_column=("body",), format="csv")
    assert (
        shlex.join(chosen.arguments())
        == "--pattern '*.a' --pattern '*.b' --format csv --text-column body --split-lines"
    )
    assert SourceOptions().arguments() == []
    assert validate(SourceOptions, json.loads(json.dumps(asdict(chosen)))) == chosen
    assert validate(SourceOptions, {}) == SourceOptions()


@pytest.mark.parametrize(
    "content",
    [
        *({"pattern": "*.a"}, {"pattern": [5]}, {"exclude": {}}, {"format": "x"}, {"format": ["csv"]}),
        *({"split_at": 1}, {"split_at": ""}, {"split_lines": 1}, {"text_column": "body"}),
    ],
)
def test_damaged_options_are_refused(content: dict[str, Any]):
    with pytest.raises(ValueError, match=r"."):
        validate(SourceOptions, content)


def test_an_unknown_name_gets_a_guess(tmp_path: Path):
    (tmp_path / "stories.txt").write_text("x")
    for name, guess in {
        "pylb": "pylib",
        str(tmp_path / "storys.txt"): "stories.txt",
        "qqqq": "Name a file",
        "x" * 400: "Name a file",
        str(tmp_path / ("x" * 300) / "a.txt"): "Name a file",
        str(tmp_path / "stories.txt" / "inside"): "Name a file",
        "zero\0byte": "Name a file",
        "": "Name a file",
    }.items():
        with pytest.raises(DataError, match=f"No such file.*{guess}"), open_sources([name]):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_is_not_a_file_is_called_by_its_name(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    for name, words in {
        tmp_path / "pipe": r"is a named pipe.*cat \S+ \| minigpt",
        "/dev/zero": "is a device",
        tmp_path / "link": "link is broken.*link -> nowhere",
        tmp_path / "circle": "cannot be read",
    }.items():
        with pytest.raises(DataError, match=words), open_sources([str(name)]):
            pass


def test_reading_errors_name_the_file_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "a.txt"
    file.write_text("x")
    with open_sources([str(file)]) as (source,):
        file.unlink()
        with pytest.raises(DataError, match=r"a\.txt cannot be read"):
            list(source.read())

    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(opening.os, "stat", refuse)
    with pytest.raises(DataError, match=r"a\.txt cannot be read.*permission denied.*chmod"), open_sources([str(file)]):
        pass


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_names_need_not_be_utf8(tmp_path: Path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(name).write_text("words")
    assert documents(name) == documents(tmp_path) == ["words"]


def test_every_format_of_records_has_a_reader_and_a_name():
    assert {"text", *READERS} == set(get_args(FileFormat))
    assert set(READERS) == set(RECORDS) == set(FORMAT_OF_SUFFIX.values())
    assert set(READERS) | set(MARKUP) < set(FORMATS)


def test_pylib_is_named_by_modules():
    assert kind("pylib-code") == "pylib-code"
    assert DocumentOrigin("textwrap") in origins("pylib")


def test_files_of_one_name_are_told_apart(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder / "in").mkdir(parents=True)
        for file in ("x.txt", "in/y.txt"):
            (tmp_path / folder / file).write_text(f"{folder} {file}")
    places = [tmp_path / "a" / "x.txt", tmp_path / "b" / "x.txt", tmp_path / "a" / "in", tmp_path / "b" / "in"]
    with open_sources(map(str, [*places, tmp_path / "a" / "in" / "y.txt"])) as sources:
        names = [chunk.origin.name for source in sources for chunk in source.read()]
    assert names == ["a/x.txt", "b/x.txt", "a/in/y.txt", "b/in/y.txt", "y.txt"]


def test_standard_input_that_is_compressed_and_cut_short_is_an_error(monkeypatch):
    for text in (b"Some text. " * 100, random.Random(0).randbytes(300_000).hex().encode()):  # at once, or later
        give(monkeypatch, gzip.compress(text)[:-9])
        with pytest.raises(DataError, match="Standard input cannot be read"):
            documents("-")


def test_zeros_after_compressed_text_are_skipped_up_to_a_limit(tmp_path: Path):
    file = tmp_path / "text.txt.gz"
    file.write_bytes(gzip.compress(b"Some text.") + bytes(5_000))
    assert documents(file) == ["Some text."]
    with file.open("r+b") as stream:
        stream.truncate(2**40)
    with pytest.raises(DataError, match="zeros follow its end"):
        documents(file)
