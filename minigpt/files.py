"""Reading files that anybody may have made; checksums; the headers of binary files.

A run, a data set and a downloaded model are folders that somebody else may have made: a pipe in place of a file would
block for ever, a device never end, deep nesting exhaust the stack, a number of a million digits the processor.
`read_json` and `parse_toml` turn all of that, and whatever is not UTF-8, JSON or TOML, into an OSError or a ValueError
with a reason in words (`why`). Writing files is in atomic.py.
"""

from __future__ import annotations

import codecs
import errno
import json
import math
import os
import stat
import struct
import tomllib
import zlib
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 1_000_000_000
"""Largest size of a file of lines, or of a tokenizer's file: ten times that of a million ids."""

MOST_JSON = 100_000_000
"""Largest size of a JSON or TOML file, in bytes."""

MOST_DEPTH = 50
"""Levels of nesting; our own files have six."""

MOST_BITS = 512
"""Of an integer; the largest one we write, a checksum, is a string."""

TOO_DEEP = f"it is nested more than {MOST_DEPTH} deep"
TOO_LARGE = "it has more than {:,} bytes"
NOT_REGULAR = "it is a pipe or a device, not a regular file"
TOO_LONG = "it holds a number with too many digits"

BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

REASONS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the name is too long for this system",
    errno.ELOOP: "its links form a loop",
    errno.ENXIO: "it is a socket or a device without a driver, not a file",
    errno.EEXIST: "a file has the name of the folder",
    errno.EROFS: "the disk is read-only",
    errno.ENOSPC: "the disk is full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "your disk quota is used up",
    errno.EMFILE: "too many files are open",
}
"""The system's errors in plain words."""

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def is_missing(error: OSError) -> bool:
    """Whether the system says that the file or folder does not exist, or cannot exist."""
    return error.errno in MISSING or (os.name == "nt" and error.errno == errno.EINVAL)  # a name that Windows forbids


def is_file(path: Path | str) -> bool:
    """Whether the path is a file. Raises OSError where the system does not say, as in a folder without access."""
    return stat.S_ISREG(_mode(path))


def is_dir(path: Path | str) -> bool:
    """Whether the path is a folder. Raises OSError as `is_file`."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path | str) -> int:
    try:
        return os.stat(path).st_mode
    except ValueError:  # not a possible file name
        return 0
    except OSError as error:
        if is_missing(error):
            return 0
        raise


def why(error: BaseException) -> str:
    """Returns in words why a file could not be read or written, or its content not be used."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if not isinstance(error, OSError):
        return str(error) or type(error).__name__
    return REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


def open_regular(file: Path | str) -> BufferedReader:
    """Opens a file for reading.

    Raises:
        OSError: it is missing (FileNotFoundError), not accessible, or not a regular file.
    """

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # otherwise opening a pipe waits for its writer

    stream = open(file, "rb", opener=opener)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, NOT_REGULAR, os.fspath(file))
    return stream


def read_bytes(file: Path | str, most: int = MOST_BYTES) -> bytes:
    """Returns the content of a file of at most `most` bytes. Errors as `open_regular` and `read_stream`."""
    with open_regular(file) as stream:
        if os.fstat(stream.fileno()).st_size > most:
            raise ValueError(TOO_LARGE.format(most))
        return read_stream(stream, most)


def read_stream(stream: BinaryIO, most: int) -> bytes:
    """Returns all of a stream, such as a pipe that the user named. Raises ValueError if it exceeds `most` bytes."""
    content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(TOO_LARGE.format(most))
    return content


def utf8(content: bytes) -> str:
    """Returns UTF-8 as text, without a byte order mark. Raises ValueError for anything else."""
    for mark, name in BOMS.items():
        if content.startswith(mark):
            raise ValueError(f"it is in {name}, not in UTF-8")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"it is not UTF-8: byte {content[error.start]:#04x} in line {line:,}") from None


def parse_json(content: bytes | str) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        ValueError: it is not JSON, or not an object, has a name twice in one object, a number that is not finite or
            has hundreds of digits, or is nested too deeply.
    """
    text = utf8(content) if isinstance(content, bytes) else content
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_int=_short_int)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}" if text.strip() else "it is empty") from None
    if not isinstance(value, dict):
        raise ValueError("it is JSON, but not an object")
    _check(value, finite=True)
    return value


def parse_toml(content: bytes) -> dict[str, Any]:
    """Returns the content of a TOML text.

    Raises:
        ValueError: it is not TOML, is nested too deeply, or holds a number of hundreds of digits.
    """
    try:
        value = tomllib.loads(utf8(content))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {error}") from None
    except ValueError as error:  # Python's own limit on digits
        raise ValueError(TOO_LONG if "digits" in str(error) else str(error)) from None
    _check(value, finite=False)
    return value


def read_json(file: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """Returns the JSON object in a file. Errors as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(file, most))


def read_lines(file: Path) -> list[bytes]:
    """Returns the lines of a file, none if it is missing. The last item is what follows the last line end: empty
    unless a crash cut a line short. Errors as `read_bytes`."""
    try:
        return read_bytes(file).split(b"\n")
    except FileNotFoundError:
        return [b""]


def sha256_file(file: Path | str) -> str:
    """Returns the SHA-256 of a file, in hexadecimal. Errors as `open_regular`."""
    import hashlib  # 2 ms, which the command line's help can do without

    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class BinaryHeader:
    """The first 128 bytes of a binary file: a magic word of 8 bytes, the format's version (4 bytes), the fields, zeros,
    and a CRC-32 of it all. Integers are unsigned and little-endian.

    Args:
        magic: what such files begin with.
        fields: the format of the fields, as in `struct`, without a byte order.
    """

    SIZE = 128

    def __init__(self, magic: bytes, fields: str) -> None:
        assert len(magic) == 8, magic
        self._magic, self._fields = magic, struct.Struct(f"<8sI{fields}")

    def pack(self, version: int, *values: Any) -> bytes:
        """Returns the header."""
        content = self._fields.pack(self._magic, version, *values).ljust(self.SIZE - 4, b"\0")
        return content + struct.pack("<I", zlib.crc32(content))

    def unpack(self, data: bytes) -> tuple[Any, ...]:
        """Returns the version and the fields.

        Raises:
            ValueError: it has another magic word, is cut short, or its checksum differs.
        """
        if not data.startswith(self._magic):
            raise ValueError(f"it begins with {data[:8]!r}, not with {self._magic!r}")
        if len(data) < self.SIZE:
            raise ValueError(f"its header is cut short at {len(data)} bytes")
        if struct.pack("<I", zlib.crc32(data[: self.SIZE - 4])) != data[self.SIZE - 4 : self.SIZE]:
            raise ValueError("the checksum of its header differs")
        return self._fields.unpack_from(data)[1:]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names {twice[:50]!r} twice in one object")
    return found


def _short_int(digits: str) -> int:
    if len(digits) > MOST_BITS:
        raise ValueError(TOO_LONG)
    return int(digits)


def _check(container: dict[str, Any] | list[Any], *, finite: bool, depth: int = 1) -> None:
    """Raises ValueError for what is nested too deeply, or a number that none of our files holds."""
    if depth > MOST_DEPTH:
        raise ValueError(TOO_DEEP)
    for value in container.values() if isinstance(container, dict) else container:
        if isinstance(value, dict | list):
            _check(value, finite=finite, depth=depth + 1)
        elif isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise ValueError(TOO_LONG)
        elif finite and isinstance(value, float) and not math.isfinite(value):
            raise ValueError("it holds NaN or infinity, which JSON does not allow")
