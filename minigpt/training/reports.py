"""Who is told what a run reports: the metrics file, the caller's watchers, the doctor, the picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from minigpt.data import Dataset
from minigpt.doctor import LiveDoctor, new_evidence
from minigpt.errors import MiniGPTError
from minigpt.records import Callback, MetricsFile, Record, read_metrics
from minigpt.runs.folder import RunFolder
from minigpt.training.loss_plot import draw_curves

SECONDS_BETWEEN_PICTURES = 10.0
"""A picture takes half a second; it is drawn no more often than this, and at the end."""


class Reports:
    """Passes each record of a run on.

    Args:
        folder: the run.
        dataset: what it is trained on.
        watchers: who else is told.
        tell: makes a record of what there is to say beside that: a kind, and values.
    """

    def __init__(
        self, folder: RunFolder, dataset: Dataset, callbacks: Sequence[Callback], tell: Callable[..., None]
    ) -> None:
        self.folder, self.dataset, self.tell = folder, dataset, tell
        self.callbacks: list[Callback] = [MetricsFile(folder.metrics_file), *callbacks]
        self.drawn = time.perf_counter()
        self.excused: set[str] = set()

    def __call__(self, record: Record) -> None:
        """Tells everybody; after a validation, the curves are drawn again."""
        for watcher in self.callbacks:
            watcher(record)
        if record["kind"] == "validation" and time.perf_counter() - self.drawn > SECONDS_BETWEEN_PICTURES:
            self.draw()

    def call_doctor(self) -> None:
        """From here on a doctor listens, who knows what the run has told so far, and says what is wrong with it."""

        def say(finding: Any) -> None:
            self.tell("finding", finding=finding)

        try:
            evidence = new_evidence(self.folder, self.dataset)
        except Exception as error:  # nothing that a doctor reads may end a run
            self.tell("message", text=f"no doctor looks on: {type(error).__name__}: {error}")
            return
        doctor = LiveDoctor(evidence, say=say, complain=lambda text: self.tell("message", text=text))
        doctor.remember(read_metrics(self.folder.metrics_file))
        self.callbacks.append(doctor)

    def draw(self) -> None:
        """Draws the curves. Whatever goes wrong there, of the disk, a name or a font, is a note: it ends no run."""
        try:
            draw_curves(self.folder.metrics_file, self.folder.picture_file, self.folder.name)
        except Exception as error:  # of the disk, of the path, of matplotlib: no run ends for a picture
            self.excuse("the picture could not be drawn", error)
        self.drawn = time.perf_counter()

    def excuse(self, what: str, error: Exception) -> None:
        """Notes, once, that something failed that a training can do without."""
        if what not in self.excused:
            self.excused.add(what)
            kind = "" if isinstance(error, MiniGPTError) else f"{type(error).__name__}: "
            self.tell("note", text=f"{what}: {kind}{error}")
