"""Reading a stranger's safetensors: what is in the files is known, named and compared before a number is read.

A folder holds `model.safetensors`, or several such files with `model.safetensors.index.json` that says which tensor is
in which. Neither is trusted: names of files must stay in the folder, headers have a limit, and only files that are
safetensors are opened (a pickle would run code). What the tensors mean is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minigpt import files
from minigpt.errors import CheckpointError
from minigpt.runs.checkpoint import utf8_name
from minigpt.state_dict import is_finite

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

MOST_JSON = 10_000_000
"""Bytes of a JSON file or header; those of a model with 1.5 billion parameters take a hundredth of it."""

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The number formats that are read, by safetensors' name."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        file: which file.
        name: under which name.
        shape, dtype: its shape and number format, as the file's header says.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def shown_name(value: object) -> str:
    """Returns what a stranger wrote, for a message: no control character reaches a terminal, and no novel."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def refused(what: str, seen: object, remedy: str = "Ask whoever made it for a whole one.") -> CheckpointError:
    """Returns the error for a checkpoint that is not read."""
    return CheckpointError(what, got=seen, remedy=remedy)


def read_json(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a stranger's file.

    Raises:
        CheckpointError: if it is missing, too long, or no JSON object.
    """
    try:
        return files.read_json(file, MOST_JSON)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None


def find_tensors(folder: Path) -> dict[str, Stored]:
    """Returns every tensor of a checkpoint by name; of the files only the headers are read.

    Raises:
        CheckpointError: if there is no checkpoint, or its files are not what they should be.
    """
    if (folder / SINGLE).exists():
        return dict(_headers([folder / SINGLE]))
    if (folder / INDEX).exists():
        return _sharded(folder, read_json(folder / INDEX).get("weight_map"))
    if pickles := [name for name in PICKLES if (folder / name).exists()]:
        raise refused(
            "The checkpoint's weights are a pickle, which is never opened: it could run code",
            folder / pickles[0],
            f"Ask for {SINGLE}; whoever trusts the file can make it: save_pretrained(..., safe_serialization=True).",
        )
    raise refused("The folder holds no weights", folder, f"It must hold {SINGLE}, or {INDEX} and the files it names.")


def _sharded(folder: Path, weight_map: object) -> dict[str, Stored]:
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise refused(f"{INDEX} holds no weight_map of names to files", folder / INDEX)
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or "\\" in name or ":" in name or not name.endswith(".safetensors"):
            raise refused(f"{INDEX} names a file that is no safetensors file in the folder", shown_name(name))
    found: dict[str, Stored] = {}
    for name, stored in _headers([folder / name for name in names]):
        if name in found or weight_map.get(name) != stored.file.name:
            raise refused(f"{INDEX} does not say what its files hold", f"{shown_name(name)} is in {stored.file.name}")
        found[name] = stored
    if missing := weight_map.keys() - found.keys():
        raise refused("A tensor is missing", f"{shown_name(min(missing))}, which {INDEX} names")
    return found


def _headers(files: Iterable[Path]) -> Iterator[tuple[str, Stored]]:
    for file in files:
        opened = _open(file)
        for name in opened.keys():  # noqa: SIM118 (no mapping)
            part = opened.get_slice(name)
            yield name, Stored(file, name, tuple(part.get_shape()), part.get_dtype())


def _open(file: Path) -> Any:
    """Opens a safetensors file; what is none, or claims a header too long, is refused before anything looks at it."""
    try:
        with files.open_regular(file) as stream:
            start = stream.read(8)
        if start[:2] in (b"PK", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6))):
            raise refused("The file is a pickle under a safetensors name; it is never opened: it could run code", file)
        if len(start) == 8 and (length := int.from_bytes(start, "little")) > MOST_JSON:
            raise refused("The file's header is too long", f"{file}: it claims {length:,} bytes")
        with utf8_name(file) as path:
            return safe_open(path, framework="pt")
    except OSError as error:
        raise _unreadable(file, error) from None
    except SafetensorError as error:
        raise refused("The file is damaged, or no safetensors file", f"{file}: {shown_name(str(error))}") from None


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    own = {"remedy": "Ask its owner for the right to read it."} if isinstance(error, PermissionError) else {}
    return refused(f"{file.name} cannot be read", f"{file}: {files.why(error)}", **own)


def check_tensors(stored: Mapping[str, Stored], shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
    """Raises CheckpointError, with its name, for a tensor that is missing, surplus, of another shape or format.

    Also if all of them, as float32, would not fit into the machine's free memory.
    """
    expected = set()
    for name, shape in shapes:
        if name not in stored:
            raise refused("A tensor is missing", f"{name} {shape}", "config.json asks for it; are they of one model?")
        if stored[name].shape != shape:
            seen = f"{name} {shown_name(stored[name].shape)}, expected {shape}"
            raise refused("A tensor has another shape than config.json says", seen, "Are they of one model?")
        if stored[name].dtype not in DTYPES:
            seen = f"{name} {shown_name(stored[name].dtype)}"
            raise refused("A tensor's number format is not read", seen, f"Formats are {', '.join(DTYPES)}.")
        expected.add(name)
    if surplus := stored.keys() - expected:
        raise refused(
            "A tensor is surplus", shown_name(min(surplus)), "The checkpoint is of another model than config.json says."
        )
    needed = 4 * sum(math.prod(stored[name].shape) for name in expected)
    free = psutil.virtual_memory().available
    if needed > free:
        raise refused(
            "There is not enough memory for the weights",
            f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
            "Use a larger machine, or a smaller model.",
        )


def read_tensor(stored: Stored) -> Tensor:
    """Returns a tensor as float32.

    Raises:
        CheckpointError: if one of its numbers is not finite.
    """
    tensor: Tensor = _open(stored.file).get_tensor(stored.name).to(torch.float32)
    if not is_finite(tensor):
        raise refused("A tensor holds a number that is not finite", stored.name)
    return tensor
