"""Opening files and standard input: errors say that reading failed, and name the file.

gzip is unpacked while reading, whatever the file is called. What the bytes mean: record_files.py, chunks.py.
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

BLOCK_BYTES = 2**18
GZIP = b"\x1f\x8b"

MAX_TRAILING_ZEROS = 2**20
"""Zero bytes that may follow compressed data."""

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def kind_of(path: str) -> str:
    """Returns what a path is, as in `KINDS`; "" if it does not exist. Nothing is opened: a pipe would block.

    Raises:
        DataError: the system does not say, because of a folder without access for instance.
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
    """Returns the error for a file or folder that cannot be read."""
    remedy = "Check the file and its disk."
    if isinstance(error, PermissionError):
        closed = next((str(folder) for folder in reversed(Path(name).parents) if not os.access(folder, os.X_OK)), name)
        remedy = f"Ask its owner, or give yourself access: `chmod u+rX {shell_word(closed)}`."
    elif isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        remedy = "It is damaged or cut short: copy or download it again."
    elif isinstance(error, FileNotFoundError):
        remedy = "It existed a moment ago: prepare the text while nothing changes it."
    return DataError(f"{name} cannot be read", got=why(error), remedy=remedy)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns errors of the block into a DataError: the file of this name, or standard input, cannot be read."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise cannot_read(name, error) from error


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """A file, at its start, unpacked. Errors as `reading`, now or while it is read."""
    with reading(name), open(name, "rb") as file:
        yield unpacked(file)


class _Compressed:
    """A compressed file as `gzip` reads it. gzip skips zeros after the end one by one, which might never end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._zeros = file, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._zeros = self._zeros + 1 if data == b"\0" else 0
        if self._zeros > MAX_TRAILING_ZEROS:
            raise gzip.BadGzipFile(f"more than {MAX_TRAILING_ZEROS:,} zeros follow its end")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """A file from its start, unpacked if it is compressed with gzip."""
    file.seek(0)
    compressed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=cast("IO[bytes]", _Compressed(file)))) if compressed else file


def blocks_of(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file, in blocks of bounded size."""
    while block := file.read(BLOCK_BYTES):
        yield block


@contextmanager
def spooled_stdin() -> Iterator[IO[bytes]]:
    """Standard input, copied to a temporary file that can be read repeatedly.

    Raises:
        DataError: it is closed, is a terminal, or cannot be copied.
    """
    remedy = "Pipe text into the command: cat FILE | minigpt ..."
    stream = getattr(sys.stdin, "buffer", None)  # None if it was closed; some consoles have text only
    if stream is None or stream.closed:
        raise DataError("There is no standard input to read", remedy=remedy)
    if stream.isatty():
        raise DataError("Standard input is a terminal", remedy=remedy)
    try:
        spool = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(stream, spool, BLOCK_BYTES)
    except OSError as error:
        got = f"{why(error)}; the temporary copy is in {tempfile.gettempdir()}"
        remedy = "Free some space there, or use another folder: TMPDIR=/other/folder minigpt ..."
        raise DataError("Standard input cannot be read, or not be copied", got=got, remedy=remedy) from error
    with spool:
        yield spool
