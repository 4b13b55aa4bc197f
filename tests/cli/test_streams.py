"""Standard streams that are closed, full or gone, and interrupts at any time: exit codes, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from minigpt.cli.console import say

needs_a_shell = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")

LINES = {
    "--version >&-": (0, ""),
    "--version <&- >&- 2>&-": (0, ""),
    "--help >/dev/full": (2, "error: Cannot write\n  got: the output: the disk is full\n"),
    "--help >/dev/full 2>/dev/full": (2, ""),
    "plan --steps x 2>&-": (2, ""),
    "plan --steps x 2>/dev/full": (2, ""),
    "plan --steps x >&-": (2, "error: --steps takes a whole number"),
    "plan --steps x <&- >&- 2>&-": (2, ""),
    "prepare - --out OUT --tokenizer byte <&-": (2, "There is no text"),
}


@needs_a_shell
def test_streams_that_are_closed_or_full(tmp_path):
    def run(line: str) -> tuple[int, str, str]:
        place = tmp_path / str(list(LINES).index(line))
        place.mkdir()
        command = f"exec '{sys.executable}' -m minigpt {line}"
        done = subprocess.run(command, shell=True, cwd=place, capture_output=True, text=True, check=False)
        assert list(place.iterdir()) == []
        return done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(LINES, pool.map(run, LINES), strict=True))
    for line, (code, words) in LINES.items():
        assert (found[line][0], words in found[line][2], found[line][2].count("error: ")) == (
            code,
            True,
            bool(words),
        ), (line, found[line])
        assert "Traceback" not in found[line][2]


HOOK = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from minigpt.cli.app import main
main(["plan", "--steps", "1"])
"""


@needs_a_shell
def test_an_interrupt_while_modules_are_imported_ends_it_without_a_traceback():
    def run(module: str) -> tuple[int, str, str]:
        code = [sys.executable, "-c", HOOK.format(module=module)]
        done = subprocess.run(code, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, ("cyclopts", "minigpt.cli.commands", "rich.console", "minigpt.config", "torch")))
    assert found == [(130, "", "\nstopped\n")] * 5


class Broken:
    """A stream that cannot be written."""

    encoding = "utf-8"

    def __init__(self, error: OSError) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        return False


def test_a_message_that_cannot_be_written_stops_nothing(monkeypatch):
    for error in (OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe"), OSError(5, "gone")):
        monkeypatch.setattr("sys.stderr", Broken(error))
        say("note: this is lost")


def test_the_reader_of_the_output_went_away(call, monkeypatch):
    def gone(*arguments, **settings):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("minigpt.cli.commands.app", gone)
    assert call("--help") == (141, "", "")


@pytest.mark.parametrize(
    ("error", "access", "words"),
    [
        (FileNotFoundError(2, "", "a/b"), True, ["No such file or folder", "a/b: no such file"]),
        (NotADirectoryError(20, "", "a/b"), True, ["No such file or folder", "a part of the path is a file"]),
        (OSError(36, "", "a" * 300), True, ["No such file or folder", "too long"]),
        (PermissionError(13, "", "a\x1b"), False, ["No permission to read", "a␛: permission denied"]),
        (PermissionError(13, "", "a"), True, ["Cannot write", "a: permission denied"]),
        (OSError(30, "", "a"), True, ["Cannot write", "a: the disk is read-only"]),
        (OSError(28, ""), True, ["Cannot write", "the output: the disk is full"]),
        (OSError(5, "Input/output error", "a"), True, ["Cannot write", "a: Input/output error"]),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="POSIX's numbers of errors")
def test_what_the_system_refuses_is_told_as_what_it_is(call, monkeypatch, error, access, words):
    def refuse(*arguments, **settings):
        raise error

    monkeypatch.setattr("minigpt.cli.commands.app", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: access)
    code, out, err = call("--help")
    assert (code, out) == (2, "")
    for word in words:
        assert word in err
