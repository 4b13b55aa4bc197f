"""A file of token ids that can be trusted: written in one go, memory-mapped, checked before it is used.

    offset  bytes
         0      8  magic word: "MINIGPT\\n"
         8      4  version of this format
        12      4  bytes of one id: 2, or 4 if the vocabulary has more than 65,536 ids
        16      8  number of ids
        24      8  number of documents (parts of one included)
        32      8  number of UTF-8 bytes of text that the ids encode
        40      4  size of the vocabulary
        44      4  seam: 0, or the length of stretches that are no continuation of each other (see `TokenFile`)
        48     32  identity of the tokenizer
        80     32  SHA-256 of the ids
       112     12  zeros
       124      4  CRC-32 of the 124 bytes above
       128         the ids

All numbers are unsigned and little-endian. The header is written last, so that a file cut short has none.

Not here: which text becomes which ids (prepare.py), and what is read from the file in which order
(batch_loader.py).
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigpt.errors import DataError
from minigpt.files import open_regular, why

Tokens = npt.NDArray[np.unsignedinteger[Any]]

MAGIC = b"MINIGPT\n"
VERSION = 1
HEADER_BYTES = 128
_FIELDS = struct.Struct("<8sIIQQQII32s32s12x")
READ_AT_ONCE = 2**22  # bytes

_REMEDY = "Prepare the data again, or copy the file anew from where it is whole."


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The narrowest type, little-endian on every machine, that holds all ids of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class TokenFileWriter:
    """Writes a shard piece by piece. Leave the `with` block by an exception and the file stays without a
    header.

    Args:
        path: the file to make; it must not exist.
        vocab_size: the size of the tokenizer's vocabulary.
        identity: the tokenizer's identity, 64 hexadecimal digits.
        seam: 0, or the length of stretches that are no continuation of each other.
    """

    def __init__(self, path: str | os.PathLike[str], vocab_size: int, identity: str, segment_length: int = 0) -> None:
        self.dtype = token_dtype(vocab_size)
        self.n_tokens = self.n_documents = self.n_bytes = 0
        self._vocab_size, self._identity, self._seam = vocab_size, bytes.fromhex(identity), segment_length
        self._sha256 = hashlib.sha256()
        self._file = Path(path).open("xb")  # noqa: SIM115 (closed by __exit__)
        self._file.write(bytes(HEADER_BYTES))

    def append(self, ids: npt.ArrayLike, *, n_documents: int = 0, n_bytes: int = 0) -> None:
        """Adds ids, shape (n,); counts the documents that end with them and the bytes of text they encode."""
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
                self._write_header()

    def _write_header(self) -> None:
        counts = self.n_tokens, self.n_documents, self.n_bytes, self._vocab_size, self._seam
        fields = _FIELDS.pack(MAGIC, VERSION, self.dtype.itemsize, *counts, self._identity, self._sha256.digest())
        self._file.seek(0)
        self._file.write(fields + struct.pack("<I", zlib.crc32(fields)))
        self._file.flush()
        os.fsync(self._file.fileno())


class _Header(NamedTuple):
    """The fields, as they stand in the file."""

    magic: bytes
    version: int
    itemsize: int
    n_tokens: int
    n_documents: int
    n_bytes: int
    vocab_size: int
    segment_length: int
    identity: bytes
    sha256: bytes


class FileState(NamedTuple):
    """Which file it is, and what changes when somebody writes to it."""

    device: int
    inode: int
    size: int
    written: int

    @classmethod
    def of(cls, stat: os.stat_result) -> FileState:
        """Returns that of what the system tells of a file."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class TokenFile:
    """An open token file.

    Attributes:
        path: where it is.
        tokens: the ids, memory-mapped and read-only, shape (n_tokens,).
        n_documents: the documents they come from, parts of one included.
        n_bytes: the UTF-8 bytes of text they encode.
        vocab_size: all ids are smaller.
        identity: the identity of the tokenizer that made them.
        sha256: the checksum of the ids, 64 hexadecimal digits.
        state: of the file when it was opened, for `check_unchanged`.
        seam: if not 0, every stretch of `segment_length` ids was drawn by itself: the id after it is not what followed
            in the
            text, and is no fair target. `BatchLoader` leaves these targets out.
    """

    path: Path
    tokens: Tokens
    n_documents: int
    n_bytes: int
    vocab_size: int
    identity: str
    sha256: str
    state: FileState
    segment_length: int = 0

    @property
    def n_tokens(self) -> int:
        """The number of ids."""
        return len(self.tokens)

    def check_unchanged(self, state: FileState) -> FileState:
        """Returns the state of the file, after making sure that its ids are what they were in another `state`.

        The map shows what the file holds now, and the system kills whoever looks behind the end of a file that was cut
        short. A file that was removed, or whose name another has now, is still there for the map.

        Raises:
            DataError: if somebody has written to the file, and it has other ids now.
        """
        now = _state(self.path)
        if now is None or now == state or (now.device, now.inode) != (state.device, state.inode):
            return state
        if now.size == state.size and _scan(self.path, self.tokens.dtype)[0] == self.sha256:
            return now  # it was touched, or written again
        raise DataError(
            f"The token file {self.path} was changed while it was in use",
            got=f"{now.size:,} bytes, {state.size:,} before",
            remedy="Put it back as it was, or prepare the data again; then `minigpt resume RUN` goes on.",
        )

    def read(self, start: int, stop: int) -> Tokens:
        """A copy of the ids from `start` to before `stop`, or to the end.

        It does not go through the map, whose pages count as this process's memory once they were looked at: for
        going through all of a large file.

        Raises:
            DataError: an id is not in the vocabulary, as when a damaged file was opened without a look at its checksum.
        """
        count = max(0, min(stop, self.n_tokens) - start)
        offset = HEADER_BYTES + start * self.tokens.itemsize
        ids = np.fromfile(self.path, dtype=self.tokens.dtype, count=count, offset=offset)
        self._check_known(int(ids.max(initial=0)))
        return ids

    def _check_known(self, largest: int) -> None:
        if len(self.tokens) and largest >= self.vocab_size:
            what = f"The token file {self.path} is damaged: it holds an id outside of its vocabulary"
            raise DataError(what, got=f"{largest} of {self.vocab_size:,} ids", remedy=_REMEDY)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True) -> TokenFile:
        """Opens a token file and checks it.

        Args:
            path: the file.
            verify: also compare the checksum of the ids, at about 2 GB/s. Leave it out only where the same
                file was
                checked before.

        Raises:
            DataError: the file is missing, damaged, cut short, of a newer version, or none of ours.
        """
        path = Path(path)
        try:
            with open_regular(path) as file:
                header = file.read(HEADER_BYTES)
            state = FileState.of(path.stat())
        except OSError as error:
            raise DataError(f"The token file {path} cannot be read", got=why(error), remedy=_REMEDY) from error
        head = _read_header(path, header)
        dtype = token_dtype(head.vocab_size)
        wanted = HEADER_BYTES + head.n_tokens * dtype.itemsize
        if state.size != wanted:
            raise DataError(
                f"The token file {path} has not the length that its header tells",
                got=f"{state.size:,} bytes, not {wanted:,}",
                remedy=_REMEDY,
            )
        if head.n_tokens:
            tokens: Tokens = np.memmap(path, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(head.n_tokens,))
        else:
            tokens = np.empty(0, dtype=dtype)  # nothing cannot be mapped
        identity, checksum = head.identity.hex(), head.sha256.hex()
        shard = cls(
            path,
            tokens,
            head.n_documents,
            head.n_bytes,
            head.vocab_size,
            identity,
            checksum,
            state,
            head.segment_length,
        )
        if verify:
            found, largest = _scan(path, dtype)
            if found != checksum:
                raise DataError(f"The token file {path} is damaged: its checksum differs", remedy=_REMEDY)
            shard._check_known(largest)  # anybody can make a checksum
        return shard


def _scan(path: Path, dtype: np.dtype[np.unsignedinteger[Any]]) -> tuple[str, int]:
    """Returns the SHA-256 of a file's ids and the largest of them, each read once."""
    digest, largest = hashlib.sha256(), 0
    with open_regular(path) as file:
        file.seek(HEADER_BYTES)
        while data := file.read(READ_AT_ONCE):
            digest.update(data)
            ids = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
            largest = max(largest, int(ids.max(initial=0)))
    return digest.hexdigest(), largest


def _state(path: Path) -> FileState | None:
    """Returns the state of a file; None if it is not there."""
    try:
        return FileState.of(path.stat())
    except OSError:
        return None


def _read_header(path: Path, header: bytes) -> _Header:
    if header[: len(MAGIC)] != MAGIC:
        raise DataError(f"{path} is not a finished token file of Mini-GPT", got=header[:8], remedy=_REMEDY)
    if len(header) < HEADER_BYTES:
        raise DataError(f"The header of {path} is cut short", got=f"{len(header)} bytes", remedy=_REMEDY)
    fields, crc32 = header[: _FIELDS.size], struct.unpack("<I", header[_FIELDS.size :])[0]
    if zlib.crc32(fields) != crc32:
        raise DataError(f"The header of {path} is damaged: its checksum differs", remedy=_REMEDY)
    head = _Header(*_FIELDS.unpack(fields))
    if head.version > VERSION:
        raise DataError(
            f"{path} was written by a newer Mini-GPT",
            got=f"version {head.version}",
            remedy=f"Update Mini-GPT; this one reads versions up to {VERSION}.",
        )
    if head.version < 1 or head.itemsize != token_dtype(head.vocab_size).itemsize:
        raise DataError(f"The header of {path} makes no sense", got=f"ids of {head.itemsize} bytes", remedy=_REMEDY)
    return head
