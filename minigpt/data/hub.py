"""Data sets of the Hugging Face hub, streamed, and of local folders by way of its library.

Nothing that a data set brings is run. Not here: Parquet files by themselves (record_files.py).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from minigpt.data.chunks import ChunkOrigin, TextChunk, record_pieces
from minigpt.data.record_files import missing_column
from minigpt.errors import DataError, MissingExtraError
from minigpt.text_utils import display_name


def read_hub(name: str, column: str) -> Iterator[TextChunk]:
    """The rows of `hf:owner/name[:config][@split]`, or of `hf:./folder`; the split is `train` unless one is named.

    Raises:
        DataError: it cannot be read, or has no such column.
        MissingExtraError: the library is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("Reading the Hugging Face hub", "data") from error
    rest, _, split = name.removeprefix("hf:").partition("@")
    try:
        here = Path(rest).exists()
        path, config = (rest, "") if here else rest.partition(":")[::2]
        shown = display_name(rest if here else name)
        rows = datasets.load_dataset(path, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(cast("Iterable[dict[str, Any]]", rows), start=1):
            where = f"{name}, row {number:,}"
            if column not in row:
                raise missing_column(where, column, row)
            yield from record_pieces(row[column], where, ChunkOrigin(shown, number))
    except DataError:
        raise
    except Exception as error:  # the library raises whatever its many back ends raise
        remedy = "Check the name (hf:owner/name, hf:owner/name:config@split) and the network."
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
            remedy = "Keep the library's cache where you may write and there is room: HF_HOME=/other/folder minigpt ..."
        raise DataError(f"{name} cannot be read", got=f"{type(error).__name__}: {error}", remedy=remedy) from error
