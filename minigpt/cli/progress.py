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
    import rich.progress

LINE_SECONDS, BYTES_LINE_SECONDS = 15.0, 5.0
"""Between two lines where standard error is not a terminal; the second for what is counted in bytes."""


class Progress:
    """Shows what is being done, how much of it is done, and how much there is, if that is known.

    Args:
        bars: where to show it; None for lines, as in a log file.
        in_bytes: bytes are counted. Lines then announce each phase; otherwise phases of a few seconds are not shown.
    """

    def __init__(self, bars: rich.progress.Progress | None, in_bytes: bool) -> None:
        self._bars, self._in_bytes = bars, in_bytes
        self._phase, self._started, self._printed = "", 0.0, 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """Called as often as there is something new."""
        if self._bars is None:
            self._line(phase, done, total)
            return
        if phase != self._phase:
            self.finish()
            self._phase, self._task = phase, self._bars.add_task(phase, total=total)
        self._bars.update(self._task, completed=done, total=total)

    def finish(self) -> None:
        """Completes the bars whose total was not known."""
        if self._bars is not None:
            for task in self._bars.tasks:
                self._bars.update(task.id, total=task.completed if task.total is None else task.total)

    def note(self, text: str) -> None:
        """Prints something the user should know."""
        (say if self._bars is None else self._bars.console.print)(f"Note: {text}")

    def _line(self, phase: str, done: int, total: int | None) -> None:
        now, begins = time.monotonic(), phase != self._phase
        if begins:
            self._phase, self._started, self._printed = phase, now, now
        if now - self._printed < (BYTES_LINE_SECONDS if self._in_bytes else LINE_SECONDS) and not (
            begins and self._in_bytes
        ):
            return
        self._printed = now
        seconds = now - self._started
        if total and done:
            left = f", {seconds * (total - done) / done:.0f} s left" if seconds > 1 else ""
            say(f"{phase}: {done / total:.0%}{left}")
        elif self._in_bytes:
            say(f"{phase}: {done / 1e6:,.1f} MB")


@contextmanager
def progress(*, in_bytes: bool = False) -> Iterator[Progress]:
    """Yields a function to call with the phase, how much of it is done, and how much there is.

    Args:
        in_bytes: bytes are counted; the bars then stay when the work is done.
    """
    if not sys.stderr.isatty():
        yield Progress(None, in_bytes)
        return
    from rich import progress as rich_progress

    amounts = (
        (rich_progress.DownloadColumn(), rich_progress.TransferSpeedColumn())
        if in_bytes
        else (rich_progress.TaskProgressColumn(),)
    )
    columns = (rich_progress.TextColumn("{task.description:10}"), rich_progress.BarColumn(), *amounts)
    console = Console(stderr=True)
    with rich_progress.Progress(
        *columns, rich_progress.TimeRemainingColumn(), console=console, transient=not in_bytes
    ) as bars:
        shown = Progress(bars, in_bytes)
        yield shown
        shown.finish()
