"""Opening files and standard input: whatever goes wrong in it is said to be trouble in reading, and names the file.

What is packed with gzip is unpacked as it is read, whatever it is called.

Not here: what the bytes mean (record_files.py, chunks.py).
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from minigpt.errors import DataError
from minigpt.files import why
from minigpt.text_utils import shell_word

CHUNK_BYTES = 2**18
GZIP = b"\x1f\x8b"

MOST_PADDING = 2**20
"""Zeros that may follow the end of what is packed."""

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def kind_of(path: str) -> str:
    """Returns what is at a path, as in `KINDS`; "" if nothing is. Nothing is opened: a pipe would wait for ever.

    Raises:
        DataError: the system does not say, for a folder on the way may not be looked into, for instance.
    """
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "device")
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name with a zero byte
        return ""
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return ""
        raise cannot_read(path, error) from error


def cannot_read(name: str, error: Exception) -> DataError:
    """The error for a file or folder that cannot be read."""
    remedy = "Check the file and its disk."
    if isinstance(error, PermissionError):
        closed = next((str(folder) for folder in reversed(Path(name).parents) if not os.access(folder, os.X_OK)), name)
        remedy = f"Ask its owner, or give yourself the right: `chmod u+rX {shell_word(closed)}`."
        return DataError(f"{name} may not be read", got=why(error), remedy=remedy)
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        remedy = "It is damaged or cut short: copy or download it anew."
    elif isinstance(error, FileNotFoundError):
        remedy = "It was there a moment ago: prepare the text when nothing changes it."
    return DataError(f"{name} cannot be read", got=why(error), remedy=remedy)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Says of what goes wrong in the block that it is trouble in reading that file, or standard input.

    Raises:
        DataError: it cannot be read.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise cannot_read(name, error) from error


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """A file, at its start. Errors as `reading`, then or while it is being read."""
    with reading(name), open(name, "rb") as file:
        yield unpacked(file)


class _Packed:
    """A packed file, as `gzip` reads it. Zeros may follow its end, which gzip skips one by one: not without end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._zeros = file, 0

    def read(self, size: int) -> bytes:
        """Returns up to so many bytes.

        Raises:
            gzip.BadGzipFile: too many zeros were read one by one.
        """
        data = self._file.read(size)
        self._zeros = self._zeros + 1 if data == b"\0" else 0
        if self._zeros > MOST_PADDING:
            raise gzip.BadGzipFile(f"more than {MOST_PADDING:,} zeros follow its end")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """A file from its start, unpacked if it is packed with gzip."""
    file.seek(0)
    packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=cast("IO[bytes]", _Packed(file)))) if packed else file


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a file from where it stands, in bounded chunks."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


@contextmanager
def spooled_stdin() -> Iterator[IO[bytes]]:
    """Standard input, kept in a temporary file that can be read again and again.

    Raises:
        DataError: there is none, it is a terminal, or it cannot be kept.
    """
    remedy = "Pipe text into the command: cat FILE | minigpt ..."
    stream = getattr(sys.stdin, "buffer", None)  # None if it was closed; some consoles have text only
    if stream is None or stream.closed:
        raise DataError("There is no standard input to read", remedy=remedy)
    if stream.isatty():
        raise DataError("Standard input is a terminal", remedy=remedy)
    try:
        spool = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(stream, spool, CHUNK_BYTES)
    except OSError as error:
        seen = f"{why(error)}; it is kept in {tempfile.gettempdir()} meanwhile"
        remedy = "Free some space there, or name another folder: TMPDIR=/other/folder minigpt ..."
        raise DataError("Standard input cannot be read, or not be kept", got=seen, remedy=remedy) from error
    with spool:
        yield spool
