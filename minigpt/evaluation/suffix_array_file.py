"""The file that keeps all places of a split in the order of the tokens that follow (suffix_array.py): built once.

It stands beside the tokens, `train.index` beside `train.tokens`; where that cannot be written, in the user's cache
folder. Four bytes a token:

    offset  bytes
         0      8  magic word: "MINIIDX\\n"
         8      4  version of this format
        12      4  bytes of one place: 4, or 8 if there are 2^32 tokens or more
        16      8  number of tokens, and so of places
        24      4  how many tokens were compared
        28      4  seam of the tokens it belongs to, and
        32     32  their SHA-256, both as in their own file
        64     32  SHA-256 of the places
        96     28  zeros
       124      4  CRC-32 of the 124 bytes above
       128         the places

All numbers are unsigned and little-endian. It is written under a temporary name and renamed, so that programs that
build at once do not meet; one that is damaged or of other tokens is built anew.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigpt.atomic import replacing
from minigpt.data import TokenFile
from minigpt.errors import DataError
from minigpt.evaluation.suffix_array import PLACES_AT_ONCE, IndexedText, Progress, place_dtype, suffix_array
from minigpt.files import open_regular

MAGIC = b"MINIIDX\n"
VERSION = 1
HEADER_BYTES = 128
_FIELDS = struct.Struct("<8sIIQII32s32s28x")

Places = npt.NDArray[np.unsignedinteger[Any]]


def open_suffix_array(shard: TokenFile, on_progress: Progress) -> tuple[Places, Path]:
    """Returns all places of a split in their order, memory-mapped, and the file they are kept in; builds it first
    if need be.

    Args:
        shard: the split.
        on_progress: told how many places are sorted, of how many; never, if there is an index already.

    Raises:
        DataError: there is no room for it, neither beside the tokens nor in the cache folder.
    """
    for path in _kept(shard):
        places = _read(path, shard)
        if places is not None:
            return places, path
    problems = []
    for path in _kept(shard):
        try:
            _build(path, shard, on_progress)
        except OSError as error:
            problems.append(f"{path.parent}: {error.strerror or error}")
        places = _read(path, shard)  # where another program holds the file open, it may have built one just now
        if places is not None:
            return places, path
    size = HEADER_BYTES + shard.n_tokens * place_dtype(shard.n_tokens).itemsize
    raise DataError(
        "The index of the training text could not be written",
        got="; ".join(problems),
        remedy=f"Make room for it: it takes {size:,} bytes on the disk, twice as much while it is built.",
    )


def _kept(shard: TokenFile) -> Iterator[Path]:
    """Where an index may be: beside the tokens, or in the user's cache folder, if there is one."""
    yield shard.path.with_suffix(".index")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if cache.is_absolute():
        yield cache / "minigpt" / f"{shard.sha256}.index"


def _header(shard: TokenFile, sha256: bytes) -> bytes:
    form = MAGIC, VERSION, place_dtype(shard.n_tokens).itemsize, shard.n_tokens, IndexedText(shard).depth
    head = _FIELDS.pack(*form, shard.segment_length, bytes.fromhex(shard.sha256), sha256)
    return head + struct.pack("<I", zlib.crc32(head))


def _build(path: Path, shard: TokenFile, on_progress: Progress) -> None:
    """Writes the index of a split; one that is there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(bytes(HEADER_BYTES))
        for places in suffix_array(shard, path.parent, on_progress):
            data = places.astype(place_dtype(shard.n_tokens))
            digest.update(data.data)
            file.write(data.data)
        file.seek(0)
        file.write(_header(shard, digest.digest()))


def _read(path: Path, shard: TokenFile) -> Places | None:
    """The places in an index, or None if it is not there, damaged, or of other tokens."""
    dtype = place_dtype(shard.n_tokens)
    try:
        if path.stat().st_size != HEADER_BYTES + shard.n_tokens * dtype.itemsize:
            return None
        with open_regular(path) as file:
            header, digest = file.read(HEADER_BYTES), hashlib.sha256()
            while data := file.read(PLACES_AT_ONCE * dtype.itemsize):
                digest.update(data)
                if np.frombuffer(data, dtype=dtype).max() >= shard.n_tokens:
                    return None
        if header != _header(shard, digest.digest()):
            return None
        if not shard.n_tokens:
            return np.empty(0, dtype=dtype)  # nothing cannot be mapped
        return np.memmap(path, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(shard.n_tokens,))
    except OSError:
        return None
