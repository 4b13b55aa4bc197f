"""A folder with everything that commands take and make, made whole again before each trial; and what may change in it.

Not here: how its content is made (pattern.py), and what is done to it (hostile.py, kills.py).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

MAY_CHANGE = {
    "prepare": r"out(/.*)?",
    "train": r"new(/.*)?",
    "resume": r"(run|imported)(/.*)?",
    "samples": r"(run|imported)/(samples\.jsonl|\.samples\.lock)",
    "evaluate": r"data/train\.index|out\.png",
    "report": r"(run|imported)/(report\.html|samples\.jsonl|\.samples\.lock|evaluation\.json)"
    r"|data/train\.index|page\.html",
    "export": r"out(/.*)?",
    "import": r"new(/.*)?",
}
"""Paths that a command makes or changes, as it should."""

LEFTOVER = re.compile(r"\.(part|partial|old|tmp)$")
"""Names of files that are being written: none stays."""


MADE_IN = b"@made-in@"
WITH_PATHS = ("run/data.json", "imported/origin.json")
"""Files in which the place of their neighbours stands; `MADE_IN` holds it open."""


Entry: TypeAlias = tuple[bytes | None, int]
"""A file's content, None for a folder, and its mode."""


class Workshop:
    """A folder that is made whole again before each trial.

    Args:
        pattern: what it holds: entries by path.
        root: where it will stand, in a folder of its own.
        number: that folder's name.
    """

    def __init__(self, pattern: Mapping[str, Entry], root: Path, number: int) -> None:
        self.place = root / str(number) / "at" / "work"
        self.pattern = dict(pattern)
        for name in WITH_PATHS:
            content, mode = pattern[name]
            self.pattern[name] = (content or b"").replace(MADE_IN, os.fsencode(self.place)), mode

    def clean(self) -> None:
        """Makes it whole."""
        shutil.rmtree(self.place.parent, ignore_errors=True)
        self.place.mkdir(parents=True)
        (self.place.parent / "tmp").mkdir()
        for name, (content, mode) in self.pattern.items():
            if content is None:
                (self.place / name).mkdir(exist_ok=True)
            else:
                (self.place / name).write_bytes(content)
                (self.place / name).chmod(mode)
        os.mkfifo(self.place / "fifo")
        for name, target in (("null", "/dev/null"), ("zero", "/dev/zero"), ("dangling", "nowhere"), ("loop", "loop")):
            (self.place / name).symlink_to(target)

    def state(self) -> dict[str, Any]:
        """Returns what can be seen of all its files and folders, and of its neighbours."""
        found: dict[str, Any] = {}
        for parent, folders, files in os.walk(self.place.parent):
            for name in folders + files:
                path = os.path.join(parent, name)
                inside = os.path.relpath(path, self.place)
                facts = os.lstat(path)
                plain = name in files and inside not in ("../out", "../err")
                found[inside] = (facts.st_mode, plain and (facts.st_size, facts.st_mtime_ns, facts.st_ino))
        return found

    def changes(self, before: dict[str, Any]) -> dict[str, str]:
        """Returns what has changed since, by path: it is "new", "gone" or "changed"."""
        after = self.state()
        found = dict.fromkeys(after.keys() - before.keys(), "new")
        found |= dict.fromkeys(before.keys() - after.keys(), "gone")
        return found | {path: "changed" for path in after.keys() & before.keys() if after[path] != before[path]}
