"""Token files, indexes and safetensors that are well-formed and wrong, and new checksums for what was changed. Seeded.

Each function takes a source of chance and a file, changes it, and returns in a few words what it did; None where it
does not apply. Not here: damage to files of any kind (damage.py).
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from pathlib import Path

from trials.damage_text import changed_json

_TOKENS = struct.Struct("<8sIIQQQII32s32s12x")
_INDEX = struct.Struct("<8sIIQII32s32s28x")
_NUMBERS = [0, 1, 2, 3, 4, 5, 255, 2**16, 2**31, 2**32 - 1]


def header(chance: random.Random, file: Path) -> str | None:
    """Changes a number in the header of a token file or an index, or ids, and seals it again."""
    fields_of = _TOKENS if file.suffix == ".tokens" else _INDEX
    data = bytearray(file.read_bytes())
    if len(data) <= 128:
        return None
    fields = list(fields_of.unpack(data[: fields_of.size]))
    body = bytes(data[128:])
    which = chance.randrange(1, len(fields) + 1)
    if which == len(fields):
        place = 2 * chance.randrange(len(body) // 2)
        body = body[:place] + chance.choice([b"\xff\xff", b"\x00\x01", b"\x00\x00"]) + body[place + 2 :]
        what = f"ids changed at byte {place}"
    elif isinstance(fields[which], bytes):
        fields[which] = bytes(32)
        what = f"field {which} zero"
    else:
        wide = which in ((3, 4, 5) if fields_of is _TOKENS else (3,))
        number = chance.choice([*_NUMBERS, *([2**48, 2**63, 2**64 - 1] if wide else []), max(0, fields[which] - 1)])
        fields[which] = number
        what = f"field {which} is {number}"
    if chance.random() < 0.7:
        fields[-1] = hashlib.sha256(body).digest()
        what += ", sealed"
    head = fields_of.pack(*fields)
    file.write_bytes(head + struct.pack("<I", zlib.crc32(head)) + body)
    return f"header: {what}"


def tensors(chance: random.Random, file: Path) -> str | None:
    """Changes the header of a safetensors file, or the numbers."""
    data = file.read_bytes()
    if len(data) < 16:
        return None
    size = int.from_bytes(data[:8], "little")
    way = chance.choice(["size", "json", "json", "json", "numbers"])
    if way == "size":
        wrong = chance.choice([0, 1, size - 1, size + 1, len(data), 2**31, 2**63, 2**64 - 1])
        file.write_bytes(wrong.to_bytes(8, "little") + data[8:])
        return f"safetensors: a header of {wrong} bytes"
    if way == "json":
        try:
            text, what = changed_json(chance, json.loads(data[8 : 8 + size]))
        except ValueError:
            return None
        new = text.encode("utf-8", "surrogatepass")
        file.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + size :])
        return f"safetensors: {what}"
    value = chance.choice([float("nan"), float("inf"), 1e38, -1e38])
    place = 8 + size + 4 * chance.randrange(max(1, (len(data) - 8 - size) // 4))
    file.write_bytes(data[:place] + struct.pack("<f", value) + data[place + 4 :])
    return f"safetensors: {value} among the numbers"


def seal(file: Path) -> bool:
    """Writes the checksums of a checkpoint anew, after one of its files was changed; whether it could."""
    state_file = file.with_name("state.json")
    try:
        state = json.loads(state_file.read_text("utf-8"))
        state.pop("sum", None)
        for name in state["files"]:
            state["files"][name] = hashlib.sha256((file.parent / name).read_bytes()).hexdigest()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError):
        return False
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    state_file.write_text(json.dumps({**state, "sum": digest}), "utf-8")
    return True
