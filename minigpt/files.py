"""Reading files that may come from anybody.

`read_json` and `read_toml` are the one way by which JSON and TOML come in. A run, a data set and a downloaded model are
folders that somebody else may have made: a pipe in the place of a file would wait for ever, a device never end, deep
nesting exhaust the stack, a number of a million digits the processor. All that, and what is no UTF-8 or no JSON, ends
as an OSError or a ValueError with a reason in words (`why`); whoever owns the file says what to do about it.

Not here: what is in them.
"""

from __future__ import annotations

import codecs
import errno
import json
import math
import os
import stat
import tomllib
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 1_000_000_000
"""Of a file of lines, or a tokenizer's: ten times one of a million ids."""

MOST_JSON = 100_000_000
"""Bytes of a JSON or TOML file."""

MOST_DEPTH = 50
"""Levels of nesting; what is written here has six."""

MOST_BITS = 512
"""Of a whole number; the largest that is written here, a checksum, is text."""

TOO_DEEP = f"it is nested more than {MOST_DEPTH} deep"
TOO_LARGE = "it has more than {:,} bytes"
NOT_REGULAR = "it is a pipe or a device, no regular file"
TOO_LONG = "it holds a number of too many digits"

BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, which begins alike
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "the system does not allow it",
    errno.EPERM: "the system does not allow it",
    errno.ENAMETOOLONG: "the name is too long for this system",
    errno.ELOOP: "its links go round in a circle",
    errno.ENXIO: "it is a socket or a device without a driver, not a file",
    errno.EEXIST: "a file is where a folder should be",
    errno.EROFS: "the disk is read-only",
    errno.ENOSPC: "the disk is full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "your share of the disk is used up",
    errno.EMFILE: "too many files are open",
}
"""What the system's refusals mean."""


MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def is_missing(error: OSError) -> bool:
    """Whether the system says that there is no such file or folder, or can be none."""
    return error.errno in MISSING or (os.name == "nt" and error.errno == errno.EINVAL)  # a name that Windows forbids


def is_file(path: Path | str) -> bool:
    """Whether there is such a file. Raises OSError if that cannot be said, as in a folder that may not be read."""
    return stat.S_ISREG(_mode(path))


def is_dir(path: Path | str) -> bool:
    """Whether there is such a folder. Raises OSError as `is_file`."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path | str) -> int:
    try:
        return os.stat(path).st_mode
    except ValueError:  # no name of a file
        return 0
    except OSError as error:
        if is_missing(error):
            return 0
        raise


def why(error: BaseException) -> str:
    """Returns the reason for which a file could not be read or written, or its content not be used, in words."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if not isinstance(error, OSError):
        return str(error) or type(error).__name__
    return REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


def open_regular(file: Path | str) -> BufferedReader:
    """Opens a file to read it.

    Raises:
        OSError: it is missing (FileNotFoundError), may not be read, or is no regular file.
    """

    def opened(path: str, flags: int) -> int:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe's opening waits otherwise

    stream = open(file, "rb", opener=opened)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, NOT_REGULAR, os.fspath(file))
    return stream


def read_bytes(file: Path | str, most: int = MOST_BYTES) -> bytes:
    """Returns the content of a file of so many bytes at the most. Errors as `open_regular` and `read_stream`."""
    with open_regular(file) as stream:
        if os.fstat(stream.fileno()).st_size > most:
            raise ValueError(TOO_LARGE.format(most))
        return read_stream(stream, most)


def read_stream(stream: BinaryIO, most: int) -> bytes:
    """Returns what comes from a pipe or a file that the user has named.

    Raises:
        ValueError: it is more than so many bytes.
    """
    content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(TOO_LARGE.format(most))
    return content


def utf8(content: bytes) -> str:
    """Returns UTF-8 as text, without a byte-order mark.

    Raises:
        ValueError: it is something else.
    """
    for mark, name in BOMS.items():
        if content.startswith(mark):
            raise ValueError(f"it is in {name}, not in UTF-8")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"it is not UTF-8: byte {content[error.start]:#04x} in line {line:,}") from None


def parse_json(content: bytes | str) -> dict[str, Any]:
    """Returns the JSON object that a text is.

    Raises:
        ValueError: it is no JSON, or not such: an array, a name twice in an object, a number that is not finite or
            has hundreds of digits, too deeply nested.
    """
    text = utf8(content) if isinstance(content, bytes) else content
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}" if text.strip() else "it is empty") from None
    _check(value, finite=True)
    if not isinstance(value, dict):
        raise ValueError("it is JSON, but no object")
    return value


def parse_toml(content: bytes) -> dict[str, Any]:
    """Returns what a TOML text says.

    Raises:
        ValueError: it is no TOML, too deeply nested, or holds a number of hundreds of digits.
    """
    try:
        value = tomllib.loads(utf8(content))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is no TOML: {error}") from None
    except ValueError as error:  # how Python says it of a number
        raise ValueError(TOO_LONG if "digits" in str(error) else str(error)) from None
    _check(value, finite=False)
    return value


def read_json(file: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """Returns the JSON object in a file. Errors as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(file, most))


def read_toml(file: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """Returns what a TOML file says. Errors as `read_bytes` and `parse_toml`."""
    return parse_toml(read_bytes(file, most))


def read_lines(file: Path) -> list[bytes]:
    """Returns the lines of a file, none if it is missing. What stands behind the last line's end is the last item,
    empty unless a crash has cut a line short. Errors as `read_bytes`."""
    try:
        return read_bytes(file).split(b"\n")
    except FileNotFoundError:
        return [b""]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it names {name[:50]!r} twice in one object")
        found[name] = value
    return found


def _whole(digits: str) -> int:
    if len(digits) > MOST_BITS:
        raise ValueError(TOO_LONG)
    return int(digits)


def _check(value: object, *, finite: bool) -> None:
    """Raises ValueError for what is nested too deeply, or a number that no file of ours holds."""
    level = [value]
    for _ in range(MOST_DEPTH):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, int) and each.bit_length() > MOST_BITS:
                raise ValueError(TOO_LONG)
            elif finite and isinstance(each, float) and not math.isfinite(each):
                raise ValueError("it holds NaN or an infinite number, which JSON has not")
        if not inner:
            return
        level = inner
    raise ValueError(TOO_DEEP)
