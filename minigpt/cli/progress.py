"""How far a command has got, on standard error: bars on a terminal, otherwise a line now and then.

The view of a training: train_view.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minigpt.cli.console import Console, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 15.0
"""Between two lines where standard error is not a terminal."""
BYTES_LINE_SECONDS = 5.0
"""The same for what is counted in bytes."""


class ProgressLines:
    """Progress for a log file.

    Args:
        in_bytes: bytes are counted, and each phase is announced; otherwise phases of a few seconds are not shown.
    """

    def __init__(self, in_bytes: bool) -> None:
        self._in_bytes, self._phase, self._started, self._printed = in_bytes, "", 0.0, 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """Shows what is being done, how much of it is done, and how much there is, if that is known."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._started, self._printed = phase, now, now
            if not self._in_bytes:
                return
        elif now - self._printed < (BYTES_LINE_SECONDS if self._in_bytes else LINE_SECONDS):
            return
        self._printed = now
        seconds = now - self._started
        text = f"{done / 1e6:,.1f} million" if self._in_bytes else ""
        if total and done:
            left = f", {seconds * (total - done) / done:.0f} s left" if seconds > 1 else ""
            text += f" of {total / 1e6:,.1f} ({done / total:.0%}{left})" if text else f"{done / total:.0%}{left}"
        if text:
            say(f"{phase}: {text}")

    def note(self, text: str) -> None:
        """Prints something the user should know."""
        say(f"Note: {text}")


class ProgressBars:
    """Progress on a terminal: a bar for each phase, with the time left."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """As `ProgressLines`."""
        if phase not in self._tasks:
            self._finish()
            self._tasks[phase] = self._bars.add_task(phase, total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)

    def _finish(self) -> None:
        for task in self._bars.tasks:
            if task.total is None:  # it is now known
                self._bars.update(task.id, total=task.completed)

    def note(self, text: str) -> None:
        """Prints something the user should know, above the bars."""
        self._bars.console.print(f"Note: {text}")


@contextmanager
def progress(*, in_bytes: bool = False) -> Iterator[ProgressLines | ProgressBars]:
    """Yields a function to call with what is being done, how much of it is done, and how much there is.

    Args:
        in_bytes: bytes are counted; the bars then stay when the work is done.
    """
    if not sys.stderr.isatty():
        yield ProgressLines(in_bytes)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (TaskProgressColumn(),)
    columns = (TextColumn("{task.description:10}"), BarColumn(), *amounts, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=not in_bytes) as bars:
        yield ProgressBars(bars)
