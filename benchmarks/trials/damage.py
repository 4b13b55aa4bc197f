"""Ways to damage a file: cut, flipped, doubled, replaced by something else, or well-formed and wrong. All seeded.

Each takes a source of chance and a file, and returns in a few words what it did; None where it does not apply. `damage`
chooses one. What a checksum would reveal is often sealed with a new one, so that it reaches the code behind. Not here:
which command then meets it (hostile.py).
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path

from trials.damage_binary import header, seal, tensors
from trials.damage_text import json_line, json_values, spelling, toml_line

CAN_READ_ALL = hasattr(os, "geteuid") and os.geteuid() == 0
"""Whether no file can be kept from this user: root's rights."""

Damage = Callable[[random.Random, Path], str | None]


def missing(chance: random.Random, file: Path) -> str:
    """Removes it."""
    _remove(file)
    return "missing"


def empty(chance: random.Random, file: Path) -> str:
    """Leaves nothing in it."""
    file.write_bytes(b"")
    return "empty"


def cut(chance: random.Random, file: Path) -> str | None:
    """Cuts it short at any byte."""
    size = file.stat().st_size
    if not size:
        return None
    keep = chance.choice([chance.randrange(size), size - 1, min(size - 1, chance.randrange(1, 140))])
    os.truncate(file, keep)
    return f"cut to {keep} of {size} bytes"


def bit(chance: random.Random, file: Path) -> str | None:
    """Flips one bit."""
    data = bytearray(file.read_bytes())
    if not data:
        return None
    place = chance.randrange(min(len(data), chance.choice([64, 512, len(data)])))
    data[place] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    return f"a bit of byte {place} flipped"


def doubled(chance: random.Random, file: Path) -> str:
    """Repeats it."""
    file.write_bytes(2 * file.read_bytes())
    return "doubled"


def noise(chance: random.Random, file: Path) -> str:
    """Puts random bytes in its place, behind it, or over a part of it."""
    data, random_bytes = file.read_bytes(), chance.randbytes(chance.choice([1, 8, 200, 5000]))
    place = chance.randrange(len(data) + 1)
    file.write_bytes(
        chance.choice(
            [random_bytes, data + random_bytes, data[:place] + random_bytes + data[place + len(random_bytes) :]]
        )
    )
    return f"{len(random_bytes)} random bytes"


def folder(chance: random.Random, file: Path) -> str:
    """Makes a folder of it."""
    _remove(file)
    file.mkdir()
    return "a folder"


def fifo(chance: random.Random, file: Path) -> str:
    """Makes a FIFO of it, which nobody writes to."""
    _remove(file)
    os.mkfifo(file)
    return "a FIFO"


def link(chance: random.Random, file: Path) -> str:
    """Makes a link of it: dangling, to itself, to a device, to a folder."""
    _remove(file)
    target = chance.choice(["no/where", file.name, "/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem", "."])
    file.symlink_to(target)
    return f"a link to {target}"


def unreadable(chance: random.Random, file: Path) -> str | None:
    """Takes the right to read it, where that means anything."""
    if CAN_READ_ALL:
        return None
    file.chmod(0)
    return "mode 000"


def huge(chance: random.Random, file: Path) -> str:
    """Makes it many gigabytes long, with nothing in them."""
    size = chance.choice([2**32, 2**40])
    with suppress(OSError):  # a disk may not take as much
        os.truncate(file, size)
    return f"{size} bytes long"


def other(chance: random.Random, file: Path) -> str | None:
    """Puts a neighbour's content there."""
    neighbours = sorted(path for path in file.parent.iterdir() if path.is_file() and path != file)
    if not neighbours:
        return None
    source = chance.choice(neighbours)
    file.write_bytes(source.read_bytes())
    return f"the content of {source.name}"


# Choosing

ANY: list[Damage] = [
    *(missing, empty, cut, cut, bit, bit, doubled, noise),
    *(folder, fifo, link, link, unreadable, huge, other),
]
FITTING: dict[str, list[Damage]] = {
    ".json": [json_values, json_values, json_values, json_values, spelling],
    ".jsonl": [json_line, json_line, json_line, json_line, spelling],
    ".toml": [toml_line, toml_line, toml_line, toml_line, spelling],
    ".tokens": [header],
    ".index": [header],
    ".safetensors": [tensors],
    ".txt": [spelling],
    ".csv": [spelling],
    ".md": [spelling],
}


WAYS = {way.__name__ for way in [*ANY, *(way for fitting in FITTING.values() for way in fitting)]}
"""The names of all ways."""
if CAN_READ_ALL:
    WAYS -= {"unreadable"}


def damage(chance: random.Random, file: Path, but: Container[str] = ()) -> tuple[str, str]:
    """Damages a file in one way that it can be damaged, `but` some; returns the way's name, and what it did."""
    fitting = FITTING.get(file.suffix, [])
    while True:
        way = chance.choice(fitting if fitting and chance.random() < 0.6 else ANY)
        if file.is_dir():
            way = chance.choice([missing, fifo, link])
        what = None if way.__name__ in but else way(chance, file)
        if what is None:
            fitting = [] if way in fitting else fitting
            continue
        small = file.is_file() and not file.is_symlink() and file.stat().st_size < 10**7
        if small and file.with_name("state.json").is_file() and chance.random() < 0.6 and seal(file):
            what += ", sealed"
        return way.__name__, what


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
