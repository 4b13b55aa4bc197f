"""Text in chunks: nothing changes on the way, and what is not text is refused at its first invalid byte."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data import chunks
from minigpt.data.chunks import (
    DocumentOrigin,
    TextChunk,
    decode_utf8,
    record_chunks,
    split_at,
    split_lines,
    text_chunks,
)
from minigpt.errors import DataError

any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few characters, so that small texts have many."""
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 16)
    monkeypatch.setattr(chunks, "MAX_CHUNK_CHARACTERS", 64)


@given(parts=st.lists(any_text, max_size=10))
@settings(max_examples=200, deadline=None)
def test_chunks_are_the_text_and_end_once(parts: list[str]):
    found = list(text_chunks(parts))
    assert "".join(chunk.text for chunk in found) == "".join(parts)
    assert [chunk.last for chunk in found] == [False] * (len(found) - 1) + [True]


def test_chunks_stay_small_and_are_cut_before_white_space():
    found = list(text_chunks("some words " * 20))
    assert max(len(chunk.text) for chunk in found) <= 17
    assert all(chunk.text.startswith(" ") for chunk in found[1:])


def test_text_without_any_safe_place_is_cut_all_the_same():
    found = list(text_chunks("x" * 1000))
    assert max(len(chunk.text) for chunk in found) == 63
    assert "".join(chunk.text for chunk in found) == "x" * 1000


def test_a_large_record_is_cut_too():
    found = list(record_chunks("some words " * 100, "here"))
    assert max(len(chunk.text) for chunk in found) <= 32
    assert "".join(chunk.text for chunk in found) == "some words " * 100
    assert list(record_chunks("", "here")) == [TextChunk("", True)]


def joined(chunks: Iterable[TextChunk]) -> list[tuple[DocumentOrigin, str]]:
    """The documents whole, with where they come from; of no document is the end missing."""
    found, held, origins = [], "", set()
    for text, last, origin in chunks:
        held, origins = held + text, origins | {origin}
        if last:
            (origin,) = origins
            found.append((origin, held))
            held, origins = "", set()
    assert not origins
    return found


few_letters = st.text(st.sampled_from("ab\n\r \u2028"), max_size=60)
documents = st.lists(st.lists(few_letters, max_size=6), min_size=1, max_size=3)


@given(parts=documents, separator=st.sampled_from(["a", "ab", "aa", "aba", "\n", "\n\n", "b\na", " "]))
@settings(max_examples=300, deadline=None)
def test_splitting_parts_is_splitting_the_whole(parts: list[list[str]], separator: str):
    chunks = (
        chunk for number, each in enumerate(parts) for chunk in text_chunks(each, DocumentOrigin(f"file {number}"))
    )
    wanted = [
        (DocumentOrigin(f"file {number}", place), part)
        for number, each in enumerate(parts)
        for place, part in enumerate("".join(each).split(separator), start=1)
    ]
    assert joined(split_at(chunks, separator)) == wanted


@given(parts=documents)
@settings(max_examples=300, deadline=None)
def test_lines_are_documents_without_their_ends_and_blanks(parts: list[list[str]]):
    chunks = (
        chunk for number, each in enumerate(parts) for chunk in text_chunks(each, DocumentOrigin(f"file {number}"))
    )
    lines = [
        (n, i, line) for n, each in enumerate(parts) for i, line in enumerate(re.split("\r\n|\r|\n", "".join(each)), 1)
    ]
    wanted = [(DocumentOrigin(f"file {n}", i), line) for n, i, line in lines if line.strip()]
    found = [
        (origin, line) for origin, line in joined(split_lines(chunks)) if line.strip()
    ]  # a long blank is passed on
    assert found == wanted


def test_what_is_split_stays_in_small_chunks():
    text = "some words " * 20 + "<|end|>" + "x" * 200 + "<|end|>"
    found = list(split_at(text_chunks(text[i : i + 5] for i in range(0, len(text), 5)), "<|end|>"))
    assert [document for _, document in joined(found)] == ["some words " * 20, "x" * 200, ""]
    assert max(len(chunk.text) for chunk in found) <= 128
    blank = "\n".join(["a", " " * 1000, "b"])
    found = list(split_lines(text_chunks(blank[i : i + 5] for i in range(0, len(blank), 5))))
    assert [line for _, line in joined(found) if line.strip()] == ["a", "b"]
    assert max(len(chunk.text) for chunk in found) <= 128


@given(text=any_text, cuts=st.lists(st.integers(0, 800), max_size=8), mark=st.booleans())
@settings(max_examples=200, deadline=None)
def test_bytes_cut_anywhere_are_the_text_without_its_mark(text: str, cuts: list[int], mark: bool):
    text = text.removeprefix("\ufeff")
    content = text.encode("utf-8-sig" if mark else "utf-8")
    ends = [0, *sorted(cuts), len(content)]
    parts = [content[a:b] for a, b in pairwise(ends)]
    assert "".join(decode_utf8(parts, "file")) == text


@given(before=any_text, after=st.binary(max_size=50), cuts=st.lists(st.integers(0, 800), max_size=8))
@settings(max_examples=200, deadline=None)
def test_the_first_wrong_byte_is_named(before: str, after: bytes, cuts: list[int]):
    before = before.removeprefix("\ufeff")
    content = before.encode() + b"\xff" + after
    ends = [0, *sorted(cuts), len(content)]
    parts = [content[a:b] for a, b in pairwise(ends)]
    with pytest.raises(DataError, match=rf"file is not UTF-8 text.* at byte {len(before.encode()):,}\)"):
        list(decode_utf8(parts, "file"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"text\0more", "a zero byte at byte 4"),
        (b"cut \xe2\x82", "unexpected end of data at byte 4"),
        ("words".encode("utf-16"), "iconv"),
        (b"\x89PNG\r\n", "invalid start byte at byte 0"),
        (b"\xed\xa0\x80", "at byte 0"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, words: str):
    with pytest.raises(DataError, match=words):
        list(decode_utf8([content], "file"))


def test_newlines_stay_as_they_are():
    content = b"one\r\ntwo\rthree\nfour\xe2\x80\xa8five"
    assert "".join(decode_utf8([content], "file")).encode() == content


@pytest.mark.parametrize("value", [5, 0.5, False, ["text"], {"text": "a"}, b"bytes"])
def test_a_record_that_is_not_a_string_is_refused(value: object):
    with pytest.raises(DataError, match=f"line 7 is not a string.*{type(value).__name__}.*--text-column"):
        record_chunks(value, "line 7")


def test_nothing_is_an_empty_document():
    assert list(record_chunks(None, "line 7")) == [TextChunk("", True)]


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match=r"line 7 contains a lone surrogate.*character 3"):
        record_chunks("abc\ud800", "line 7")
