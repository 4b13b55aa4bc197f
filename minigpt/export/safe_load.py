"""Reads safetensors files as untrusted input: their contents are listed and checked before any number is read.

A checkpoint is `model.safetensors`, or several such files with `model.safetensors.index.json`, which says which tensor
is in which file. Names of files must stay in the folder, the size of headers is limited, and a pickle is never opened,
since that would run its code. What the tensors mean is decided elsewhere.
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

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
PICKLE_STARTS = (b"PK", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))

MAX_JSON = 10_000_000
"""Limit of a JSON file or header, in bytes; a model with 1.5 billion parameters needs a hundredth of it."""

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The supported number formats, by safetensors' name."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: where it is, its shape, and its number format as safetensors spells it."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def quote(value: object) -> str:
    """Returns an untrusted value for a message: short, and without control characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def refusal(what: str, got: object, remedy: str = "Get an intact copy of the checkpoint.") -> CheckpointError:
    """Returns the error for a checkpoint that cannot be used."""
    return CheckpointError(what, got=got, remedy=remedy)


def read_json(file: Path) -> dict[str, Any]:
    """Returns the JSON object in an untrusted file.

    Raises:
        CheckpointError: if it is missing, too large, or not a JSON object.
    """
    try:
        return files.read_json(file, MAX_JSON)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Returns every tensor of a checkpoint by name; only the headers of its files are read.

    Raises:
        CheckpointError: if there is no checkpoint, or its files are damaged.
    """
    if (folder / WEIGHTS).exists():
        return dict(_headers([folder / WEIGHTS]))
    if (folder / INDEX).exists():
        return _sharded(folder, read_json(folder / INDEX).get("weight_map"))
    if pickles := [name for name in PICKLES if (folder / name).exists()]:
        raise refusal(
            "The weights are a pickle, which is never opened because it can run code",
            folder / pickles[0],
            f"Get {WEIGHTS}; if you trust the file, make it with save_pretrained(..., safe_serialization=True).",
        )
    raise refusal("No weights found", folder, f"The folder must contain {WEIGHTS}, or {INDEX} and the files it names.")


def _sharded(folder: Path, weight_map: object) -> dict[str, StoredTensor]:
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise refusal(f"{INDEX} has no weight_map from names to files", folder / INDEX)
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or "\\" in name or ":" in name or not name.endswith(".safetensors"):
            raise refusal(f"{INDEX} must name safetensors files in its own folder", quote(name))
    found: dict[str, StoredTensor] = {}
    for name, stored in _headers([folder / name for name in names]):
        if name in found or weight_map.get(name) != stored.file.name:
            raise refusal(f"{INDEX} does not match its files", f"{quote(name)} is in {stored.file.name}")
        found[name] = stored
    if missing := weight_map.keys() - found.keys():
        raise refusal("A tensor is missing", f"{quote(min(missing))}, listed in {INDEX}")
    return found


def _headers(files: Iterable[Path]) -> Iterator[tuple[str, StoredTensor]]:
    for file in files:
        opened = _open(file)
        for name in opened.keys():  # noqa: SIM118 (no mapping)
            part = opened.get_slice(name)
            yield name, StoredTensor(file, name, tuple(part.get_shape()), part.get_dtype())


def _open(file: Path) -> Any:
    """Opens a safetensors file, after its first bytes: neither a pickle nor an oversized header goes any further."""
    try:
        with files.open_regular(file) as stream:
            start = stream.read(8)
        if start[:2] in PICKLE_STARTS:
            raise refusal("A pickle named safetensors is never opened because it can run code", file)
        if len(start) == 8 and (length := int.from_bytes(start, "little")) > MAX_JSON:
            raise refusal("The file's header is too long", f"{file}: {length:,} bytes")
        with utf8_name(file) as path:
            return safe_open(path, framework="pt")
    except OSError as error:
        raise _unreadable(file, error) from None
    except SafetensorError as error:
        raise refusal("Damaged, or not a safetensors file", f"{file}: {quote(str(error))}") from None


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    remedy = {"remedy": "Ask its owner for permission to read it."} if isinstance(error, PermissionError) else {}
    return refusal(f"Cannot read {file.name}", f"{file}: {files.why(error)}", **remedy)


def check_tensors(stored: Mapping[str, StoredTensor], shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
    """Compares the tensors of a checkpoint with the expected names and shapes.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected, or of another shape or number format; or if all of
            them, in float32, do not fit into the machine's free memory.
    """
    expected = set()
    for name, shape in shapes:
        if name not in stored:
            raise refusal("A tensor is missing", f"{name} {shape}", "config.json and weights must be of one model.")
        if stored[name].shape != shape:
            got = f"{name} {quote(stored[name].shape)}, expected {shape}"
            raise refusal("A tensor's shape differs from config.json", got, "Both must be of one model.")
        if stored[name].dtype not in DTYPES:
            got = f"{name} {quote(stored[name].dtype)}"
            raise refusal("A tensor's number format is not supported", got, f"Supported: {', '.join(DTYPES)}.")
        expected.add(name)
    if unexpected := stored.keys() - expected:
        remedy = "config.json and weights must be of one model."
        raise refusal("Unexpected tensor", quote(min(unexpected)), remedy)
    needed = 4 * sum(math.prod(stored[name].shape) for name in expected)
    free = psutil.virtual_memory().available
    if needed > free:
        raise refusal(
            "Not enough memory for the weights",
            f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
            "Use a larger machine or a smaller model.",
        )


def read_tensor(stored: StoredTensor) -> Tensor:
    """Returns a tensor as float32.

    Raises:
        CheckpointError: if it contains infinity or NaN.
    """
    tensor: Tensor = _open(stored.file).get_tensor(stored.name).to(torch.float32)
    if not is_finite(tensor):
        raise refusal("A tensor contains a number that is not finite", stored.name)
    return tensor
