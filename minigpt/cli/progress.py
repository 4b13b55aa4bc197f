"""How far a command has got: bars with the time left on a terminal, else a line now and then, on standard error.

Not here: the training's own view (train_view.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minigpt.cli.console import Console, say

PLAIN_SECONDS = 15.0
"""Between two lines when standard error is no terminal."""


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function to call with what is being done, how much of it is done, and how much there is."""
    if not sys.stderr.isatty():
        yield _PlainLines()
        return
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description:10}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase)
            bars.update(tasks[phase], completed=done, total=total)

        yield show


class _PlainLines:
    """Progress for a log file: nothing for what is quickly done."""

    def __init__(self) -> None:
        self._phase, self._started, self._said = "", 0.0, 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._started, self._said = phase, now, now
        if now - self._said < PLAIN_SECONDS or not 0 < done < total:
            return
        self._said = now
        left = (now - self._started) * (total - done) / done
        say(f"{phase}: {done / total:.0%}, {left:.0f} s left")
