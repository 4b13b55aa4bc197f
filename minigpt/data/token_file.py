"""A file of token ids that can be trusted: written in one go, memory-mapped, checked before it is used.

    offset  bytes
         0      8  magic word: "MINIGPT\\n"
         8      4  version of this format
        12      4  bytes of one id: 2, or 4 if the vocabulary has more than 65,536 ids
        16      8  number of ids
        24      8  number of documents (parts of one included)
        32      8  number of UTF-8 bytes of text that the ids encode
        40      4  size of the vocabulary
        44      4  segment length: 0, or the length of segments that do not continue each other (see `TokenFile`)
        48     32  identity of the tokenizer
        80     32  SHA-256 of the ids
       112     12  zeros
       124      4  CRC-32 of the 124 bytes above
       128         the ids

All numbers are unsigned and little-endian. The header is written last, so that a file cut short has none.
Which text becomes which ids: prepare.py. Reading batches of them: batch_loader.py.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from minigpt.errors import DataError
from minigpt.files import BinaryHeader, open_regular, why

Tokens = npt.NDArray[np.unsignedinteger[Any]]

HEADER = BinaryHeader(b"MINIGPT\n", "IQQQII32s32s")
HEADER_BYTES = HEADER.SIZE
VERSION = 1
READ_AT_ONCE = 2**22  # bytes

_REMEDY = "Prepare the data again, or restore the file from a copy."


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The narrowest type, little-endian on every machine, that holds all ids of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class TokenFileWriter:
    """Writes a token file part by part. If the `with` block raises, the file has no header.

    Args:
        path: the file to make; it must not exist.
        vocab_size: the size of the tokenizer's vocabulary.
        identity: the tokenizer's identity, 64 hexadecimal digits.
        segment_length: 0, or the length of segments that do not continue each other.
    """

    def __init__(self, path: str | os.PathLike[str], vocab_size: int, identity: str, segment_length: int = 0) -> None:
        self.dtype = token_dtype(vocab_size)
        self.n_tokens = self.n_documents = self.n_bytes = 0
        self._about = vocab_size, segment_length, bytes.fromhex(identity)
        self._sha256 = hashlib.sha256()
        self._file = Path(path).open("xb")  # noqa: SIM115 (closed by __exit__)
        self._file.write(bytes(HEADER_BYTES))

    def append(self, ids: npt.ArrayLike, *, n_documents: int = 0, n_bytes: int = 0) -> None:
        """Adds ids, shape (n,), and counts the documents that end with them and the bytes of text they encode."""
        tokens = np.ascontiguousarray(ids, dtype=self.dtype)
        self._sha256.update(tokens.data)
        self._file.write(tokens.data)
        self.n_tokens += len(tokens)
        self.n_documents += n_documents
        self.n_bytes += n_bytes

    def __enter__(self) -> TokenFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                counts = self.n_tokens, self.n_documents, self.n_bytes
                self._file.seek(0)
                self._file.write(
                    HEADER.pack(VERSION, self.dtype.itemsize, *counts, *self._about, self._sha256.digest())
                )
                self._file.flush()
                os.fsync(self._file.fileno())


FileState = tuple[int, int, int, int]
"""Which file it is, and what changes when it is written to: device, inode, size, time of the last change."""


def _state(stat: os.stat_result) -> FileState:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class TokenFile:
    """An open token file."""

    path: Path  # where it is
    tokens: Tokens  # the ids, memory-mapped and read-only, shape (n_tokens,)
    n_documents: int  # the documents they come from, parts of one included
    n_bytes: int  # the UTF-8 bytes of text they encode
    vocab_size: int  # all ids are smaller
    identity: str  # the identity of the tokenizer that made them
    sha256: str  # the checksum of the ids, 64 hexadecimal digits
    state: FileState  # of the file when it was opened, for `check_unchanged`
    # if not 0, each segment of this many ids was drawn independently: the first id of one did not follow the last id
    # of another in the text, and is not a fair target. `BatchLoader` ignores these targets
    segment_length: int = 0

    @property
    def n_tokens(self) -> int:
        """The number of ids."""
        return len(self.tokens)

    def check_unchanged(self, state: FileState) -> FileState:
        """Returns the state of the file, after making sure that its ids are the same as in an earlier `state`.

        A memory map shows what the file contains now, and the system kills a process that reads beyond the end of a
        file cut short. A file that was removed, or replaced by another of the same name, stays available to the map.

        Raises:
            DataError: the file was written to, and has other ids now.
        """
        try:
            now = _state(self.path.stat())
        except OSError:
            return state
        if now == state or now[:2] != state[:2]:
            return state
        if now[2] == state[2] and _scan(self.path, self.tokens.dtype)[0] == self.sha256:
            return now  # its time was changed, or it was written again
        raise DataError(
            f"The token file {self.path} was changed while it was in use",
            got=f"{now[2]:,} bytes, {state[2]:,} before",
            remedy="Restore it, or prepare the data again; then continue with `minigpt resume RUN`.",
        )

    def read(self, start: int, stop: int) -> Tokens:
        """A copy of the ids from `start` to before `stop`, or to the end.

        It bypasses the map, whose pages count as this process's memory once they were read: for going through all of a
        large file.

        Raises:
            DataError: an id is not in the vocabulary, as in a damaged file whose checksum was not verified.
        """
        count = max(0, min(stop, self.n_tokens) - start)
        offset = HEADER_BYTES + start * self.tokens.itemsize
        ids = np.fromfile(self.path, dtype=self.tokens.dtype, count=count, offset=offset)
        self._check_ids(int(ids.max(initial=0)))
        return ids

    def _check_ids(self, largest: int) -> None:
        if len(self.tokens) and largest >= self.vocab_size:
            what = f"The token file {self.path} is damaged: it contains an id outside of its vocabulary"
            raise DataError(what, got=f"{largest} of {self.vocab_size:,} ids", remedy=_REMEDY)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True) -> TokenFile:
        """Opens a token file and checks it.

        Args:
            path: the file.
            verify: also verify the checksum of the ids, at about 2 GB/s. Only skip it where the same file was verified
                before.

        Raises:
            DataError: the file is missing, damaged, cut short, of a newer version, or not a token file.
        """
        path = Path(path)
        try:
            with open_regular(path) as file:
                version, itemsize, n_tokens, *about = HEADER.unpack(file.read(HEADER_BYTES))
                stat = os.fstat(file.fileno())
        except (OSError, ValueError) as error:
            raise DataError(f"The token file {path} cannot be used", got=why(error), remedy=_REMEDY) from error
        n_documents, n_bytes, vocab_size, segment_length, identity, sha256 = about
        if version > VERSION:
            remedy = f"Update Mini-GPT; this one reads versions up to {VERSION}."
            raise DataError(f"{path} was written by a newer Mini-GPT", got=f"version {version}", remedy=remedy)
        dtype = token_dtype(vocab_size)
        expected = HEADER_BYTES + n_tokens * dtype.itemsize
        if stat.st_size != expected or itemsize != dtype.itemsize:
            what = f"The token file {path} is damaged: its size is wrong"
            raise DataError(what, got=f"{stat.st_size:,} bytes, not {expected:,}", remedy=_REMEDY)
        if n_tokens:
            tokens: Tokens = np.memmap(path, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(n_tokens,))
        else:
            tokens = np.empty(0, dtype=dtype)  # an empty file cannot be mapped
        made = cls(
            path, tokens, n_documents, n_bytes, vocab_size, identity.hex(), sha256.hex(), _state(stat), segment_length
        )
        if verify:
            found, largest = _scan(path, dtype)
            if found != made.sha256:
                raise DataError(f"The token file {path} is damaged: its checksum differs", remedy=_REMEDY)
            made._check_ids(largest)  # a valid checksum does not mean valid ids
        return made


def _scan(path: Path, dtype: np.dtype[np.unsignedinteger[Any]]) -> tuple[str, int]:
    """Returns the SHA-256 of a file's ids and the largest of them, in one pass."""
    digest, largest = hashlib.sha256(), 0
    with open_regular(path) as file:
        file.seek(HEADER_BYTES)
        while data := file.read(READ_AT_ONCE):
            digest.update(data)
            ids = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
            largest = max(largest, int(ids.max(initial=0)))
    return digest.hexdigest(), largest
