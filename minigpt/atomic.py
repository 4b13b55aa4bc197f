"""Files and folders that appear whole or not at all, and nothing of them that stays behind.

    .books.1f3c9a2b.partial         what is being written beside `books`, to take its name at the end
    .books.1f3c9a2b.partial.lock    held by its writer; the system lets go of it when the process ends, however it ends

Whoever writes in the same folder next removes what nobody holds. Where a file system knows no locks, it stays.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PARTIAL, LOCK = ".partial", ".lock"

NAME_LENGTH = 40  # characters of the name that are kept, so that the longest name has room for the rest

_LEFTOVER = re.compile(rf"\..*\.[0-9a-f]{{8}}{re.escape(PARTIAL + LOCK)}", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, to make a file or a folder under, which takes the name `path` in the end.

    It does when the block ends well and the disk has everything; an older file of that name is replaced, and of two
    writers the last wins. If the block ends by an exception, Ctrl-C among them, nothing is left. What killed processes
    have left in the same folder is removed first.

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
                    with suppress(OSError):  # this file system knows no locks
                        fcntl.flock(held, fcntl.LOCK_EX)
                yield temporary
                _sync_all(temporary)
                os.replace(temporary, path)
                sync(path.parent)
            finally:
                _remove(temporary)
    except OSError as error:
        if str(error.filename).startswith(str(temporary)):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        lock.unlink(missing_ok=True)  # last, and closed: Windows removes no file that is open


def write_file(file: Path, content: str | bytes) -> None:
    """Writes a small file whole or not at all, and waits until the disk has it. Errors as `replacing`."""
    with replacing(file) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that were killed have left in a folder; never what one is writing now."""
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
    """Waits until the disk has a file's content, or a folder's names (which Windows cannot be asked for)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_all(path: Path) -> None:
    for inner in path.rglob("*") if path.is_dir() else ():
        sync(inner)
    sync(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
