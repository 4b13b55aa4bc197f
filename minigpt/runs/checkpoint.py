"""Checkpoints: folders of tensors and plain values, written atomically, and read only if intact.

A checkpoint is a folder of `safetensors` files and `state.json`, which holds the plain values, the SHA-256 of each
file, and one of its own content. It is written under a temporary name, synced to the disk, then renamed: a folder with
its final name is complete, even after a power failure. No pickles. What tensors and values mean is up to the caller.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from minigpt.atomic import LOCK, PARTIAL, sync, write_file
from minigpt.errors import CheckpointError, CheckpointVersionError, UnreadableError
from minigpt.files import open_regular, read_json, sha256_file, why
from minigpt.schema import validate

VERSION = 2
STATE, TENSORS = "state.json", ".safetensors"
OLD = ".old"

Contents: TypeAlias = tuple[Mapping[str, Mapping[str, Tensor]], Mapping[str, Any]]
"""The arguments of `save`: named tensors by part, and plain values."""


def save(folder: Path, parts: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
    """Writes a checkpoint, replacing an existing one of that name.

    Args:
        folder: where to write it.
        parts: named tensors by file name, without its ending.
        values: anything that JSON can hold.

    Raises:
        CheckpointError: if it cannot be written; nothing is left behind.
    """
    temporary = folder.with_name(f".{folder.name}{PARTIAL}")
    try:
        cleared(temporary).mkdir(parents=True)
        sums = {}
        for name, tensors in parts.items():
            file = temporary / f"{name}{TENSORS}"
            write_tensors(file, tensors)
            sums[file.name] = sha256_file(file)
            sync(file)
        state = {"version": VERSION, "files": sums, "values": dict(values)}
        write_file(temporary / STATE, json.dumps({**state, "sum": _sum(state)}, indent=1))
        sync(temporary)
        old = folder.with_name(f".{folder.name}{OLD}")
        if folder.exists():  # one of the same step, made with another data order
            folder.rename(cleared(old))
        temporary.rename(folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        tidy(folder.parent)
        raise CheckpointError(
            "The checkpoint could not be written",
            got=f"{folder}: {why(error)}",
            remedy="Check free space and permissions.",
        ) from error


def tidy(parent: Path) -> None:
    """Cleans up after an interrupted save: removes partial files, and restores a checkpoint that was being replaced."""
    for left in [*parent.glob(f".*{PARTIAL}"), *parent.glob(f".*{PARTIAL}{LOCK}")]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    for old in parent.glob(f".*{OLD}"):
        folder = old.with_name(old.name.removeprefix(".").removesuffix(OLD))
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)


def verify(folder: Path) -> None:
    """Raises CheckpointError unless every file of a checkpoint has its checksum."""
    for name, expected in _read_state(folder)["files"].items():
        _check_file(folder, name, expected)


def load_values(folder: Path, kind: Any = Any) -> Any:
    """Returns a checkpoint's plain values as an instance of a class (see schema.py), without reading its tensors.

    Raises:
        CheckpointError: if they are missing, damaged, something else, or of a newer version.
    """
    try:
        return validate(kind, _read_state(folder)["values"])
    except ValueError as error:
        raise _damaged(folder, f"{STATE}: {error}") from None


def load_tensors(folder: Path, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns one part's named tensors, after checking its file's SHA-256.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    file = folder / f"{name}{TENSORS}"
    _check_file(folder, file.name, _read_state(folder)["files"].get(file.name))
    try:
        with utf8_name(file) as path:
            return load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, error) from None


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors as safetensors, with default permissions: the library makes files readable by their owner.

    Raises:
        OSError: it cannot be written.
    """
    file.touch()
    mode = file.stat().st_mode
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, file, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    file.chmod(stat.S_IMODE(mode))


@contextmanager
def utf8_name(file: Path) -> Iterator[str]:
    """Yields a name by which safetensors, which supports only UTF-8 names, can open a file."""
    try:
        file.as_posix().encode()
    except UnicodeEncodeError:
        with file.open("rb") as stream:
            yield f"/dev/fd/{stream.fileno()}"
    else:
        yield str(file)


class _State(TypedDict):
    version: int
    files: dict[str, str]
    values: dict[str, Any]


def _read_state(folder: Path) -> _State:
    try:
        content = read_json(folder / STATE)
        own_sum, state = content.pop("sum", None), validate(_State, content)
        if state["version"] != VERSION:
            newer = state["version"] > VERSION
            raise CheckpointVersionError(
                f"The checkpoint was written by {'a newer' if newer else 'an older'} Mini-GPT",
                got=f"{folder}: version {state['version']}, this one reads version {VERSION}",
                remedy="Upgrade Mini-GPT." if newer else "Train the model again, or use the version that wrote it.",
            )
        if own_sum != _sum(state):
            raise ValueError("its checksum does not match")
        if strange := [name for name in state["files"] if Path(name).name != name]:
            raise ValueError(f"it names a file outside the folder: {strange[0]!r}")
        return state
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{STATE}: {why(error)}", error) from None


def _check_file(folder: Path, name: str, expected: str | None) -> None:
    """Raises CheckpointError unless a file of a checkpoint has its SHA-256."""
    try:
        with open_regular(folder / name) as stream:
            if name.endswith(TENSORS):  # a file longer than its header says may be practically endless
                with utf8_name(folder / name) as path, safe_open(path, framework="pt"):
                    pass
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, f"{name}: {why(error)}", error) from None
    if found != expected:
        raise _damaged(folder, f"{name} has SHA-256 {found[:12]}..., expected {str(expected)[:12]}...")


def _damaged(folder: Path, seen: object, error: Exception | None = None) -> CheckpointError:
    if isinstance(error, PermissionError):
        remedy = "Ask its owner for read permission."
        return UnreadableError("The checkpoint may not be read", got=f"{folder}: {seen}", remedy=remedy)
    return CheckpointError(
        "The checkpoint is damaged",
        got=f"{folder}: {seen}",
        remedy="`minigpt resume RUN` continues from the one before it; --checkpoint STEP selects another.",
    )


def _sum(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def cleared(folder: Path) -> Path:
    """Removes a folder that an interrupted save may have left, and returns its path."""
    if folder.exists():
        shutil.rmtree(folder)
    return folder
