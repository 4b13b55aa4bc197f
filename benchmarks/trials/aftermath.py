"""Commands that are broken off: how they are started, killed at a write, and what they leave behind.

Not here: when that is done to them (kills.py), other accidents (accidents.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from trials.cases import TINY
from trials.forking import Child, Streams
from trials.workshop import LEFTOVER, MAY_CHANGE, Workshop

KILLED = {
    "prepare": "prepare stories --out out --block-size 8 --tokenizer bpe:280",
    "import": "import model --run new",
    "report": "report run --prompt cat",
    "evaluate": "evaluate run --plot out.png",
    "export": "export run --out out",
    "samples": "samples run --prompt cat --max-new-tokens 20",
    "generate": "generate run --max-new-tokens 40 --seed 1",
}
SIGNALLED = {
    **KILLED,
    "train": f"train --data data --run new --steps 15 --train.save-every 2 {TINY}",
    "resume": "resume run --steps 20",
    "plan": f"plan --data data {TINY}",
    "doctor": "doctor run",
    "device": "device",
}
WRITES = ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir", "ftruncate", "open")
"""What writing is made of: functions of `os`. (Python's own `open` is not one of them; a random moment meets it.)"""

VOLATILE = {
    *("report.html", "page.html", "evaluation.json", "metrics.jsonl", "environment.json", "meta.json", "state.json"),
}
"""Files that tell of time, or place: two whole ones differ."""

Name = TypeVar("Name")


def some(names: Iterable[Name], quick: bool) -> list[Name]:
    """Returns all of them, or every fourth."""
    return list(names)[:: 4 if quick else 1]


Tree = dict[str, str]


def tree_of(shop: Workshop) -> Tree:
    """Returns a checksum of each file that does not tell of time, by path."""
    found = {}
    for path in sorted(shop.place.rglob("*")):
        if not path.is_file() or path.is_symlink() or path.name.endswith(".lock"):
            continue
        volatile = path.name in VOLATILE or path.suffix == ".png"
        found[path.relative_to(shop.place).as_posix()] = (
            f"whole {_is_whole(path)}" if volatile else hashlib.sha256(path.read_bytes()).hexdigest()
        )
    return found


def _is_whole(path: Path) -> bool:
    """Whether a file ends as its kind does."""
    end = path.read_bytes()[-12:].rstrip()
    return end.endswith(
        {".html": b"</html>", ".png": b"\xaeB`\x82", ".json": b"}", ".jsonl": b"}"}.get(path.suffix, b"")
    )


def start(shop: Workshop, line: str, before: Callable[[], object] | None = None) -> Child:
    """Starts a command in a workshop's folder."""
    out, err = (str(shop.place.parent / name) for name in ("out", "err"))
    for name in (out, err):
        Path(name).write_bytes(b"")
    return Child(line.split(), shop.place, Streams(stdout=out, stderr=err), before=before)


def said(shop: Workshop) -> str:
    """Returns what it said on standard error."""
    return (shop.place.parent / "err").read_text("utf-8", "replace")


def messages(text: str) -> int:
    """Returns how many messages of an error a text holds."""
    return [line[:6] for line in text.splitlines()].count("error:")


def alone(shop: Workshop, line: str) -> tuple[Tree, float]:
    """Runs a command without harm; returns what stands there then, and how long it took."""
    shop.clean()
    ended = start(shop, line).wait(120)
    assert ended.code == 0, f"{line}: {ended}\n{said(shop)}"
    return tree_of(shop), ended.seconds


def writes_of(shop: Workshop, line: str) -> int:
    """Returns how many writes, syncs and renames a command makes."""
    shop.clean()
    counter = shop.place.parent / "count"
    counter.touch()

    def one() -> None:
        with counter.open("ab") as file:
            file.write(b".")

    start(shop, line, before=partial(hook, one, after=True)).wait(120)
    return counter.stat().st_size


def hook(call: Callable[[], None], after: bool) -> None:
    """Has `call` called before or after each of the writes."""
    for name in WRITES:
        real = getattr(os, name)

        def hooked(*a: object, real: Callable[..., object] = real, **k: object) -> object:
            if not after:
                call()
            result = real(*a, **k)
            if after:
                call()
            return result

        setattr(os, name, hooked)


def kill_at(nth: int, after: bool) -> Callable[[], None]:
    """Returns what makes a process kill itself before or after its n-th write."""

    def begin() -> None:
        left = [nth]

        def one() -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        hook(one, after)

    return begin


def half_written(shop: Workshop, command: str, before: Tree, whole: Tree) -> Iterator[str]:
    """Yields what is wrong with what a command that was broken off has left."""
    now, may = tree_of(shop), re.compile(MAY_CHANGE.get(command, "(?!)"))
    for path in sorted(before.keys() | now.keys()):
        there, then = now.get(path), before.get(path)
        hidden = any(part.startswith(".") for part in path.split("/"))
        if there == then or there == whole.get(path) or (hidden and then is None):
            continue
        if may.fullmatch(path) and path.endswith("samples.jsonl") and there is not None:
            continue  # grows line by line; a last line that is cut short is passed over
        yield f"{path} is {'gone' if there is None else 'half-written'}"


def leftovers(now: Tree) -> list[str]:
    """Returns the names of half-written files and folders."""
    return list(dict.fromkeys(part for path in now for part in path.split("/") if LEFTOVER.search(part)))


def differences(now: Tree, whole: Tree) -> list[str]:
    """Returns in what a tree differs from the one that there should be, as sentences."""
    found = [f"{name} is left over" for name in leftovers(now)]
    for path in sorted(now.keys() | whole.keys()):
        if path not in whole and not any(LEFTOVER.search(part) for part in path.split("/")):
            found.append(f"{path} is too many")
        elif now.get(path) != whole.get(path) and path in whole:
            found.append(f"{path} {'differs' if path in now else 'is missing'}")
    return found
