"""Token files: what was written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data import TokenFile, TokenFileWriter
from minigpt.data.token_file import HEADER_BYTES
from minigpt.errors import DataError

IDENTITY = hashlib.sha256(b"a tokenizer").hexdigest()


def write(path: Path, ids: list[int], vocab_size: int = 50257) -> Path:
    with TokenFileWriter(path, vocab_size, IDENTITY) as writer:
        writer.append(ids[:2])
        writer.append(ids[2:], n_documents=3, n_bytes=99)
    return path


@given(data=st.data(), vocab_size=st.sampled_from([2, 257, 65_535, 65_536, 65_537, 2**32 - 1]))
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, vocab_size: int):
    ids = data.draw(st.lists(st.integers(0, vocab_size - 1), max_size=50))
    path = write(tmp_path_factory.mktemp("token_file") / "x.tokens", ids, vocab_size)
    opened = TokenFile.open(path)
    assert opened.tokens.tolist() == ids
    assert opened.tokens.itemsize == (2 if vocab_size <= 65_536 else 4)
    assert (opened.n_documents, opened.n_bytes, opened.vocab_size, opened.identity) == (
        3,
        99,
        vocab_size,
        IDENTITY,
    )
    assert path.stat().st_size == HEADER_BYTES + len(ids) * opened.tokens.itemsize
    assert opened.read(1, 4).tolist() == ids[1:4]
    assert opened.read(0, 1000).tolist() == ids


def test_the_layout_is_the_one_described(tmp_path: Path):
    content = write(tmp_path / "x.tokens", [1, 2, 50256]).read_bytes()
    payload = struct.pack("<3H", 1, 2, 50256)
    head = b"MINIGPT\n" + struct.pack("<IIQQQII", 1, 2, 3, 3, 99, 50257, 0)
    head += bytes.fromhex(IDENTITY) + hashlib.sha256(payload).digest() + bytes(12)
    assert content == head + struct.pack("<I", zlib.crc32(head)) + payload


def test_any_changed_byte_is_refused(tmp_path: Path):
    content = write(tmp_path / "whole.tokens", [5, 6, 7, 8]).read_bytes()
    broken = tmp_path / "broken.tokens"
    for place in range(len(content)):
        for bit in (1, 128):
            changed = bytearray(content)
            changed[place] ^= bit
            broken.write_bytes(changed)
            with pytest.raises(DataError, match=r"broken\.tokens"):
                TokenFile.open(broken)


def test_any_other_length_is_refused(tmp_path: Path):
    content = write(tmp_path / "whole.tokens", [5, 6, 7, 8]).read_bytes()
    broken = tmp_path / "broken.tokens"
    for length in range(len(content)):
        broken.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"broken\.tokens"):
            TokenFile.open(broken)
    broken.write_bytes(content + b"\0\0")
    with pytest.raises(DataError, match="138 bytes, not 136"):
        TokenFile.open(broken)


def test_a_newer_version_says_so(tmp_path: Path):
    path = write(tmp_path / "x.tokens", [1, 2])
    content = bytearray(path.read_bytes())
    content[8:12] = struct.pack("<I", 2)
    content[124:128] = struct.pack("<I", zlib.crc32(content[:124]))
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"newer Mini-GPT.*version 2"):
        TokenFile.open(path)


def test_a_writer_that_was_interrupted_leaves_no_valid_file(tmp_path: Path):
    path = tmp_path / "x.tokens"
    writer = TokenFileWriter(path, 10, IDENTITY)
    writer.append([1, 2, 3])
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with pytest.raises(DataError, match=r"cannot be used.*it begins with"):
        TokenFile.open(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"nothing\.tokens cannot be used"):
        TokenFile.open(tmp_path / "nothing.tokens")


def test_the_tokens_cannot_be_changed(tmp_path: Path):
    token_file = TokenFile.open(write(tmp_path / "x.tokens", [1, 2, 3]))
    with pytest.raises(ValueError, match="read-only"):
        token_file.tokens[0] = 5


def test_an_id_outside_of_the_vocabulary_is_named_where_the_checksum_was_not_asked(tmp_path: Path):
    path = write(tmp_path / "x.tokens", [1, 2, 3, 4], vocab_size=10)
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 5] ^= 1  # the third id, 3, becomes 259
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"outside of its vocabulary.*259 of 10"):
        TokenFile.open(path, verify=False).read(0, 4)


def test_ids_that_no_model_knows_are_refused_though_the_checksum_is_theirs(tmp_path: Path):
    path = write(tmp_path / "x.tokens", [1, 2, 3, 99], vocab_size=10)  # its writer does not look
    with pytest.raises(DataError, match="outside of its vocabulary"):
        TokenFile.open(path)
