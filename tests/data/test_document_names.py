"""The names of documents: what is written is what is read, in little space; what is damaged is refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data.chunks import DocumentOrigin
from minigpt.data.document_names import DocumentNamesWriter, read_document_names
from minigpt.errors import DataError

names = st.one_of(st.sampled_from(["a.txt", "b.jsonl", "b.jsonl:1", "", '"', "1", "1 2", "x\n5"]), st.text(max_size=9))
origins = st.builds(DocumentOrigin, names, st.sampled_from([0, 0, 1, 2, 3, 4, 5, 10**12]))


def write(path: Path, documents: list[DocumentOrigin]) -> None:
    path.unlink(missing_ok=True)
    with DocumentNamesWriter(path) as writer:
        for origin in documents:
            writer.add(origin)


@given(documents=st.lists(origins, max_size=30))
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, documents: list[DocumentOrigin]):
    path = tmp_path_factory.getbasetemp() / "any.documents"
    write(path, documents)
    found = read_document_names(path, len(documents))
    assert found is not None
    readable = [origin.title.encode(errors="replace").decode() for origin in documents]
    assert list(found) == readable
    for wrong in (len(documents) - 1, len(documents) + 1):
        with pytest.raises(DataError, match=r"any\.documents is damaged.*first words"):
            read_document_names(path, wrong)


def test_the_file_is_readable(tmp_path: Path):
    rows = [DocumentOrigin("s.jsonl", row) for row in (17, 21, 22, 23)]
    write(tmp_path / "d", [DocumentOrigin("notes/ä.txt"), *rows, DocumentOrigin("b.txt"), DocumentOrigin("b.txt")])
    expected = '"notes/\\u00e4.txt"\n0\n"s.jsonl"\n17\n21 3\n"b.txt"\n0\n0\n'
    assert (tmp_path / "d").read_text() == expected


def test_many_records_take_two_bytes_each(tmp_path: Path):
    write(tmp_path / "train", [DocumentOrigin("s.jsonl", row) for row in range(1, 100_000) if row % 10])
    write(tmp_path / "val", [DocumentOrigin("s.jsonl", row) for row in range(10, 100_000, 10)])
    assert sum((tmp_path / split).stat().st_size for split in ("train", "val")) < 2 * 100_000


def test_names_of_any_bytes_become_text(tmp_path: Path):
    write(tmp_path / "d", [DocumentOrigin("caf\udce9.txt"), DocumentOrigin("half \ud800")])
    assert list(read_document_names(tmp_path / "d", 2) or ()) == ["caf?.txt", "half ?"]


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"5\n",
            b'"a"\n0 2\n',
            b'"a"\n-1\n',
            b'"a"\n1 0\n',
            b'"a"\n1 x\n',
            b'"a"\n\n',
            b'"a\n',
            b'["a"]\n',
            b"\xff",
        ),
        *(b'"a"\n1 2\n', b'"a"\n"b"\n', b'"a"\n' + b"9" * 5000, b'"a"\n' + b"9" * 30, b'"a"\n1 ' + b"9" * 30),
        *(b"[" * 100_000, b'"' + b"x" * 100_000),
    ],
)
def test_what_is_damaged_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "d").write_bytes(content)
    with pytest.raises(DataError, match="d is damaged"):
        read_document_names(tmp_path / "d", 1)


def test_a_hostile_name_has_no_half_characters(tmp_path: Path):
    (tmp_path / "d").write_text(json.dumps("\ud800\x1b[31m") + "\n0\n")
    assert list(read_document_names(tmp_path / "d", 1) or ()) == ["?\x1b[31m"]  # what shows it makes the rest visible


def test_none_is_none(tmp_path: Path):
    assert read_document_names(tmp_path / "d", 1) is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "d")
    with pytest.raises(DataError, match="not a regular file"):
        read_document_names(tmp_path / "d", 1)
