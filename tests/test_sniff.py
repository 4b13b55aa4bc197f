"""What a file is, told from its first bytes: prose stays prose, and what is not text is called by its name."""

from __future__ import annotations

import gzip
import io
import json
import shlex
import tarfile
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.sniff import FORMATS, HEAD_BYTES, RECORDS, advice, sniff

WORDS = "Some words, and a line.\nThe next one: short.\n"
CHINESE = "第一行，没有空格。\n第二行也没有。\n" * 3


def zipped(**files: str) -> bytes:
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return content.getvalue()


def tarred() -> bytes:
    with tarfile.open(fileobj=(content := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return content.getvalue()


@pytest.mark.parametrize("text", [WORDS, "é", "a"])
@pytest.mark.parametrize("repeat", [1, 5000])
def test_encodings_are_told_apart_with_and_without_a_mark(text: str, repeat: int):
    for encoding, found in {
        "utf-8": "text",
        "utf-8-sig": "text",
        "utf-16": "utf-16",
        "utf-32": "utf-32",
        **{name: name for name in ("utf-16-le", "utf-16-be")},
    }.items():
        whole = (text * repeat).encode(encoding)
        if text == "é" and encoding.startswith("utf-16-"):
            continue  # b"\xe9\0" might be many things
        assert sniff(whole[:HEAD_BYTES]) == found, encoding
        if "-le" in encoding or "-be" in encoding:
            assert "iconv -f UTF-" in advice(found, "a.txt")
            assert "> a.utf8.txt" in advice(found, "a.txt")


def test_older_encodings_are_text_and_noise_is_not():
    assert sniff("Ein schöner Tag im März\n".encode("latin-1")) == "8-bit"
    assert sniff(CHINESE.encode("gb18030")) == "8-bit"
    assert sniff("Привет, мир\n".encode("cp1251") * 10_000) == "8-bit"
    assert sniff(bytes(range(256)) * 10) == "binary"
    assert sniff(b"words\0 and more words") == "binary"
    assert sniff(b"\0" * 100) == sniff(b"a\0b") == "binary"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (gzip.compress(b"x"), "gzip"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "pdf"),
        (b"%PDF-1.4\n1 0 obj <</Type /Catalog>>", "pdf"),
        (b"{\\rtf1\\ansi{\\fonttbl} Words.}", "rtf"),
        (zipped(**{"[Content_Types].xml": "", "word__document.xml": "<w/>"}), "docx"),
        (zipped(**{"[Content_Types].xml": "", "xl__workbook.xml": "<w/>"}), "xlsx"),
        (zipped(**{"[Content_Types].xml": "", "ppt__presentation.xml": "<w/>"}), "archive"),
        (zipped(mimetype="application/epub+zip", **{"OEBPS__a.xhtml": ""}), "epub"),
        (zipped(mimetype="application/vnd.oasis.opendocument.text"), "odt"),
        (zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"), "archive"),
        (zipped(**{"a.txt": "words"}), "archive"),
        (tarred(), "archive"),
        (b"PAR1\x15\x04\x15\x00", "parquet"),
        (b"SQLite format 3\0\x10\0", "binary"),
        (b"BZh91AY&SY\x9f\xff", "archive"),
        (b"\xfd7zXZ\0\0", "archive"),
        (b"\x28\xb5\x2f\xfd\x24", "archive"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "binary"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "binary"),
        (b"\0\0\0\x20ftypisom", "binary"),
        (b"\x7fELF\x02\x01\x01\0", "binary"),
        (b'\x40\0\0\0\0\0\0\0{"w":{', "binary"),
        (b"<!DOCTYPE html>\n<html>", "html"),
        (b"\xef\xbb\xbf \n<!-- saved --> <!-- twice -->\n<HTML lang=en>", "html"),
        (b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0'>", "html"),
        (b"<?xml version='1.0'?>\n<TEI>words</TEI>", "xml"),
        (json.dumps({"cells": [{"cell_type": "code"}], "nbformat": 4}).encode(), "notebook"),
        (json.dumps({"nbformat": 4, "cells": [{"cell_type": "code"}]}, indent=1).encode(), "notebook"),
        (b'{"text": "a"}\n\n{"text": "b"}\n', "jsonl"),
        (b'{"text": "a"}', "jsonl"),
        (b'{"text": "' + b"a" * HEAD_BYTES, "jsonl"),
        (b'[\n {"text": "a"},\n {"text": "b"}\n]', "json"),
        (b'["a", "b"]', "json"),
        (b'[{"text": "' + b"a" * HEAD_BYTES, "json"),
        (b'{\n "data": [\n  {"text": "a"}\n ]\n}', "json-object"),
        (b'{\n "data": [\n' + b'  {"text": "a"},\n' * 5000, "json-object"),
        (b'id,text\r\n1,"Some words, quoted"\r\n2,More words\r\n', "csv"),
        (b'"id";"text"\n1;Some words, here\n2;More words\n', "csv"),
        (b'id,text\n1,"a b\n\nc"\n2,d e\n3,"' + b"f g\n" * HEAD_BYTES, "csv"),
        (b'id\ttext\n1\t"Oh," she said.\n2\tMore words\n', "tsv"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:20]),
)
def test_formats_are_told_by_their_bytes(content: bytes, found: str):
    assert sniff(content[:HEAD_BYTES]) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[a link](there) and on",
        "[1] A note, not a list.",
        "[",
        "{",
        "{\\bf TeX} and words",
        '{"quoted"} is not JSON',
        "{not json}\n{either}\n",
        '{"a": 1}\nis how JSON looks.\n',
        '["this" is not JSON',
        "<p align='center'>A README</p>\n\n# Title\n",
        "<!-- a comment -->\n# Title\n",
        "<!-- a -->" * 3000 + "words",  # no exponential search
        "Dear John, I came,\nsaw, and conquered,\nthen, I slept,\n",
        "One,two\nbuckle my shoe\n",
        "cat,hat\ndog,log\npig,wig\n",  # words that rhyme: no column holds more than one
        "a,b\n1,2\n3,4\n",
        "Go.\tVa !\nRun!\tCours !\nRun!\tFuyez !\n",  # no names in the first line
        "Name: a, b\nDate: c, d\nSubject: e, f\n",
        "id,text\n",
        "word\nword\nword\n",
        "12,5 Grad\n13,5 Grad\n",
        "GIF89a is a format. So are RIFF, ID3 and GGUF.",
        "GGUF is a format",
        "MZ is how programs begin",
        "import os, sys\nfrom a import b, c\n",
        "\x1b[31mred\x1b[0m words\n",
    ],
)
def test_prose_stays_prose(text: str):
    assert sniff(text.encode()) == "text"


@given(head=st.binary(max_size=300) | st.text(st.sampled_from('{}[]",:\t\n <a1\\;'), max_size=60).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_every_beginning_has_an_answer(head: bytes):
    assert sniff(head) in FORMATS


@given(
    head=st.binary(max_size=40).map(lambda tail: b"\x1f\x8b" + tail)
    | st.binary(max_size=200).map(lambda tail: b"PK\x03\x04\xff" + tail),
)
@settings(max_examples=50, deadline=None)
def test_archives_cut_anywhere_are_archives(head: bytes):
    assert sniff(head) in ("gzip", "archive", "docx", "xlsx", "epub", "odt")


def test_text_cut_within_a_character_is_text():
    for length in range(HEAD_BYTES, HEAD_BYTES + 4):
        assert sniff(("x" * (length % 4) + "語" * HEAD_BYTES).encode()[:HEAD_BYTES]) == "text"


@pytest.mark.parametrize("found", sorted(FORMATS))
def test_the_advice_fits_the_file(found: str):
    assert FORMATS[found].title
    for name in ("a.pdf", "my notes/b c.pdf", "-rf.pdf", "{txt}; rm x.pdf", "'`$(x)`.pdf"):
        words = advice(found, name)
        if "{" not in FORMATS[found].advice:
            continue
        command = words.partition("`")[2].rpartition("`")[0]
        parts = shlex.split(command)
        assert any(part.endswith(name) or "FILE" in part for part in parts), command  # quoted, and as it is called
        assert not [part for part in parts if part.startswith("-rf")]
    assert not (found in RECORDS and advice(found, "a"))
    assert "{" not in advice(found)


def test_advice_never_writes_over_the_file():
    write: Callable[[str], str] = lambda name: advice("utf-16", name).rpartition("> ")[2].strip("`.")  # noqa: E731
    assert write("a.txt") == "a.utf8.txt"
    assert (write("a"), write("a.csv"), write("b/a.md")) == ("a.utf8.txt", "a.utf8.csv", "b/a.utf8.md")
    assert write("") == "OUT"


@pytest.mark.parametrize("file", [".", "/", "..", ""])
def test_advice_for_what_has_no_name_to_give_a_suffix(file):
    for found in FORMATS:
        assert "{" not in advice(found, file)


def test_the_converted_file_is_never_the_file_itself():
    assert advice("pdf", "a.txt") == "Convert it: `pdftotext a.txt a.txt.txt`."
    assert advice("pdf", "a.pdf") == "Convert it: `pdftotext a.pdf a.txt`."
