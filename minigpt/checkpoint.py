"""Checkpoints: folders of tensors and plain values, written whole or not at all, and read only when whole.

A checkpoint is a folder of `safetensors` files beside `state.json`, which holds the plain values, the SHA-256 of each
file, and one of its own content. It is written under a temporary name, synced to the disk, then renamed: a folder with
its final name is whole, whenever the power failed. What the tensors and values mean is their owner's business. No
pickles anywhere.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minigpt.atomic import LOCK, PARTIAL, sync, write_file
from minigpt.errors import CheckpointError, NewerVersionError
from minigpt.files import read_json, why

VERSION = 1
STATE = "state.json"
OLD = ".old"

Contents: TypeAlias = tuple[Mapping[str, Mapping[str, Tensor]], Mapping[str, Any]]
"""What a checkpoint holds, as `save` takes it: named tensors by part, and plain values."""


def save(folder: Path, parts: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
    """Writes a checkpoint; an existing one of that name is replaced.

    Args:
        folder: where it will stand.
        parts: file name without ending -> named tensors.
        values: anything that JSON can hold.

    Raises:
        CheckpointError: if the disk refuses; nothing is left half-written.
    """
    temporary = folder.with_name(f".{folder.name}{PARTIAL}")
    try:
        cleared(temporary).mkdir(parents=True)
        sums = {}
        for name, tensors in parts.items():
            file = temporary / f"{name}.safetensors"
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, file)
            sums[file.name] = _sha256(file)
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
    except (OSError, SafetensorError) as error:
        tidy(folder.parent)
        raise CheckpointError(
            "The checkpoint could not be written",
            seen=f"{folder}: {error}",
            remedy="Check the disk's room and rights.",
        ) from error


def tidy(parent: Path) -> None:
    """Clears up behind a save that was interrupted: what is half-written goes, and one on its way out comes back."""
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
    """Raises CheckpointError unless every file of a checkpoint is the one that was written."""
    for name, expected in _read_state(folder)["files"].items():
        _check_file(folder, name, expected)


def load_values(folder: Path) -> dict[str, Any]:
    """Returns a checkpoint's plain values, without touching its tensors.

    Raises:
        CheckpointError: if they are missing, damaged or of a newer version.
    """
    values: dict[str, Any] = _read_state(folder)["values"]
    return values


def load_tensors(folder: Path, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns one part's named tensors, after checking its file's SHA-256.

    Raises:
        CheckpointError: if the file is missing or not the one that was written.
    """
    file = folder / f"{name}.safetensors"
    _check_file(folder, file.name, _read_state(folder)["files"].get(file.name))
    try:
        return load_file(file, device=str(device))
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, error) from None


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state = read_json(folder / STATE)
        own_sum = state.pop("sum")
        if state["version"] > VERSION:
            raise NewerVersionError(
                "The checkpoint was written by a newer Mini-GPT",
                seen=f"{folder}: version {state['version']}",
                remedy=f"This one reads version {VERSION}: upgrade it.",
            )
        if own_sum != _sum(state):
            raise ValueError("its own checksum differs")
        if not isinstance(state["files"], dict) or not isinstance(state["values"], dict):
            raise ValueError("it names no files and values")
        if strange := [name for name in state["files"] if Path(name).name != name]:
            raise ValueError(f"it names a file elsewhere: {strange[0]!r}")
        return state
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{STATE}: {why(error)}") from None


def _check_file(folder: Path, name: str, expected: str | None) -> None:
    """Raises CheckpointError unless a file of a checkpoint has the SHA-256 that it was written with."""
    try:
        found = _sha256(folder / name)
    except OSError as error:
        raise _damaged(folder, error) from None
    if found != expected:
        raise _damaged(folder, f"{name} has SHA-256 {found[:12]}..., not {str(expected)[:12]}...")


def _damaged(folder: Path, seen: object) -> CheckpointError:
    return CheckpointError(
        "The checkpoint is damaged",
        seen=f"{folder}: {seen}",
        remedy="`minigpt resume RUN` sets it aside and goes on from the one before; --checkpoint STEP names another.",
    )


def _sum(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def cleared(folder: Path) -> Path:
    """Removes what an interrupted save may have left at a temporary name."""
    if folder.exists():
        shutil.rmtree(folder)
    return folder


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
