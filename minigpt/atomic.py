"""Files and folders that appear whole or not at all, and leave nothing behind.

    .books.1f3c9a2b.partial         what is being written, next to `books`, and gets its name at the end
    .books.1f3c9a2b.partial.lock    locked by its writer; the system releases the lock when the process ends

Whoever writes in the same folder next removes what nobody holds a lock on, unless the file system has no locks.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from minigpt.errors import DataError
from minigpt.files import why

if sys.platform != "win32":
    import fcntl

PARTIAL, LOCK = ".partial", ".lock"

NAME_LENGTH = 40  # characters of the name that are kept, so that the longest possible name leaves room for the rest

_LEFTOVER = re.compile(rf"\..*\.[0-9a-f]{{8}}{re.escape(PARTIAL + LOCK)}", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`, for a file or a folder, that is renamed to `path` when the block ends.

    Everything reaches the disk before the rename, so that a power cut leaves the old file or the new one. If the block
    raises, Ctrl-C included, nothing is left. Of two writers, the last wins. What killed processes have left in the
    same folder is removed first.

    Raises:
        OSError: it cannot be written.
    """
    remove_leftovers(path.parent)
    temporary = path.with_name(f".{path.name[:NAME_LENGTH]}.{secrets.token_hex(4)}{PARTIAL}")
    lock = temporary.with_name(temporary.name + LOCK)
    try:
        with lock.open("xb") as held:
            try:
                if sys.platform != "win32":
                    with suppress(OSError):  # this file system has no locks
                        fcntl.flock(held, fcntl.LOCK_EX)
                yield temporary
                for inner in temporary.rglob("*") if temporary.is_dir() else ():
                    sync(inner)
                sync(temporary)
                os.replace(temporary, path)
                sync(path.parent)
            finally:
                _remove(temporary)
    except OSError as error:
        if str(error.filename).startswith(str(temporary)):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        lock.unlink(missing_ok=True)  # last, and closed: Windows does not remove an open file


def write_file(file: Path, content: str | bytes) -> None:
    """Writes a small file whole or not at all, and waits until the disk has it. Errors as `replacing`."""
    with replacing(file) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary folder to write into, renamed to `path` when the block ends; see `replacing`. Missing parents
    are made, and removed again if the block raises.

    Raises:
        DataError: `path` already exists, or cannot be written, because the disk is full for instance.
    """
    if os.path.lexists(path):
        raise DataError("The output already exists", got=path, remedy="Choose another --out, or remove it first.")
    missing_parents = [parent for parent in path.absolute().parents if not os.path.exists(parent)]
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.mkdir()
            yield temporary
    except BaseException as error:
        with suppress(OSError):  # another program may have put something there meanwhile
            for parent in missing_parents:
                parent.rmdir()
        if isinstance(error, OSError) and _concerns(error, path):
            raise _not_writable(path, error) from error
        raise


def unused_path(path: Path) -> Path:
    """Returns the path, or the same with the first number appended that makes it a new one: `runs/a`, `runs/a2`."""
    paths = (path.with_name(f"{path.name}{number if number > 1 else ''}") for number in count(1))
    return next(one for one in paths if not one.exists())


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes have left in a folder; never what is being written now."""
    for lock in folder.glob(f".*{PARTIAL}{LOCK}"):
        if not _LEFTOVER.fullmatch(lock.name):
            continue
        temporary = lock.with_name(lock.name.removesuffix(LOCK))
        with suppress(OSError):
            if sys.platform == "win32":
                lock.unlink()  # fails while its writer has it open
                _remove(temporary)
            else:
                with lock.open("r+b") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(temporary)
                    lock.unlink()


def sync(path: Path) -> None:
    """Waits until the disk has a file's content, or a folder's entries (where the system can: Windows cannot)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about what is being written, and not about another file, such as one to be read."""
    if error.filename is None:
        return True
    place, out = Path(os.fsdecode(error.filename)).absolute(), path.absolute()
    return place == out or place in out.parents


def _not_writable(path: Path, error: OSError) -> DataError:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        free = shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.exists())).free
        what, got = f"The disk is full: {path} was not written", f"{free:,} bytes free"
        return DataError(what, got=got, remedy="Free some space, or choose an --out on another disk.")
    return DataError(f"{path} cannot be written", got=why(error), remedy="Choose another --out.")
