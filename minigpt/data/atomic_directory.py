"""A new folder that appears whole or not at all, and a name for one.

Not here: what is written into it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from minigpt.atomic import replacing
from minigpt.errors import DataError
from minigpt.files import why


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to write into; it takes the name `path` when the block ends well.

    If the block ends by an exception, Ctrl-C among them, nothing is left. Everything reaches the disk before the name
    changes, so that a power cut leaves either the whole folder or none (minigpt/atomic.py).

    Raises:
        DataError: `path` exists already, or it cannot be written, the disk being full for instance.
    """
    if os.path.lexists(path):
        raise DataError("The output exists already", got=path, remedy="Choose another --out, or remove it first.")
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
        if isinstance(error, OSError) and _is_about(error, path):
            raise _cannot_write(path, error) from error
        raise


def free_folder(path: Path) -> Path:
    """Returns the path, or with the first number behind it that is not taken yet."""
    paths = (path.with_name(f"{path.name}{number if number > 1 else ''}") for number in count(1))
    return next(one for one in paths if not one.exists())


def _is_about(error: OSError, path: Path) -> bool:
    """Whether an error is about what is being written, and not about another file, as one that was to be read."""
    if error.filename is None:
        return True
    place, out = Path(os.fsdecode(error.filename)).absolute(), path.absolute()
    return place == out or place in out.parents


def _cannot_write(path: Path, error: OSError) -> DataError:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        free = shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.exists())).free
        return DataError(
            f"The disk is full; {path} was not written",
            got=f"{free:,} bytes free",
            remedy="Free some space, or choose an --out on another disk. Tokens take 2 bytes each, 4 if there are "
            "more than 65,536 ids.",
        )
    return DataError(f"{path} cannot be written", got=why(error), remedy="Choose another --out.")
