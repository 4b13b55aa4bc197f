"""Data sets of the Hugging Face hub, streamed, and of local folders through the same library.

No code of a data set is run. Parquet files by themselves: record_files.py.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from minigpt.data.chunks import DocumentOrigin, TextChunk, record_chunks
from minigpt.data.record_files import text_field
from minigpt.errors import DataError, MissingExtraError
from minigpt.text_utils import display_name


def read_hub(name: str, columns: Sequence[str]) -> Iterator[TextChunk]:
    """The rows of `hf:owner/name[:config][@split]`, or of `hf:./folder`; without a split, of `train`.

    Raises:
        DataError: it cannot be read, or has none of these columns.
        MissingExtraError: the library is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("Reading the Hugging Face hub", "data") from error
    rest, _, split = name.removeprefix("hf:").partition("@")
    try:
        is_local = Path(rest).exists()
        path, config = (rest, "") if is_local else rest.partition(":")[::2]
        label = display_name(rest if is_local else name)
        rows = datasets.load_dataset(path, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(cast("Iterable[dict[str, Any]]", rows), start=1):
            where = f"{name}, row {number:,}"
            yield from record_chunks(text_field(row, columns, where), where, DocumentOrigin(label, number))
    except DataError:
        raise
    except Exception as error:  # the library raises whatever its many back ends raise
        remedy = "Check the name (hf:owner/name, hf:owner/name:config@split) and the network."
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
            remedy = "Put the library's cache on a disk with room that you may write to: HF_HOME=/other/folder"
        raise DataError(f"{name} cannot be read", got=f"{type(error).__name__}: {error}", remedy=remedy) from error
