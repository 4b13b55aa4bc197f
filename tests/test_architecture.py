"""The walk through docs/architecture.md: each addition it describes is made in a copy of the package, and tried."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import minigpt

ROOT = Path(minigpt.__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text("utf-8")

SECTION = re.compile(r"^### (Add .+?)\n(.*?)(?=^##)", re.M | re.S)
STEP = re.compile(
    r"^(?:New file `(?P<new>[^`\n]+)`|In `(?P<file>[^`\n]+)`, (?P<where>before|after) `(?P<text>[^`\n]+)`):\n\n"
    r"```python\n(?P<code>.*?)^```",
    re.M | re.S,
)
TRY = re.compile(r"^```console\n(?P<lines>.*?)^```", re.M | re.S)


class Addition(NamedTuple):
    """What one section of the document says."""

    title: str
    steps: list[re.Match[str]]
    tries: list[tuple[str, list[str]]]


def additions() -> list[Addition]:
    found = []
    for title, body in SECTION.findall(f"{DOCUMENT}\n##"):
        tries: list[tuple[str, list[str]]] = []
        for line in "".join(match["lines"] for match in TRY.finditer(body)).splitlines():
            if line.startswith("$ "):
                tries.append((line.removeprefix("$ "), []))
            else:
                tries[-1][1].append(line)
        if steps := list(STEP.finditer(body)):
            found.append(Addition(title, steps, tries))
    return found


def apply(step: re.Match[str], root: Path) -> None:
    """Makes one step's change to a copy of the package."""
    if step["new"]:
        assert not (root / step["new"]).exists()
        (root / step["new"]).write_text(step["code"], "utf-8")
        return
    file = root / step["file"]
    lines = file.read_text("utf-8").splitlines(keepends=True)
    (place,) = (number for number, line in enumerate(lines) if step["text"] in line)
    lines.insert(place + (step["where"] == "after"), step["code"] + "\n\n" * (step["where"] == "before"))
    file.write_text("".join(lines), "utf-8")


@pytest.mark.parametrize("addition", additions(), ids=lambda addition: addition.title)
def test_each_addition_is_one_place_and_one_line(addition):
    """A block of code in one file, and beside it lines of that file and of at most one other."""
    whole = [step for step in addition.steps if step["code"].count("\n") > 1]
    assert len(whole) == 1
    file = whole[0]["new"] or whole[0]["file"]
    others = [step["file"] for step in addition.steps if (step["new"] or step["file"]) != file]
    assert len(set(others)) <= 1
    assert len(addition.steps) > 1


def test_each_addition_works(tmp_path):
    shutil.copytree(ROOT / "minigpt", tmp_path / "minigpt")
    (tmp_path / "notes.txt").write_text("The quick brown fox jumps over the lazy dog. " * 200, "utf-8")
    found = additions()
    assert len(found) >= 6
    for addition in found:
        for step in addition.steps:
            apply(step, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "120"}
    for addition in found:
        assert addition.tries, addition.title
        for command, expected in addition.tries:
            words = [sys.executable, "-m", *shlex.split(command)]
            result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            printed = result.stdout + result.stderr
            assert result.returncode == 0, f"{addition.title}: {command}\n{printed}"
            assert all(line in printed for line in expected), f"{addition.title}: {command}\n{printed}"
