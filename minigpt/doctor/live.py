"""The checks that make sense while a run goes on, each finding said once.

The loop owns one and tells it of everything it reports. What it finds goes back to the loop, which passes it on to
those who watch; nothing of it is kept, since what the clock says differs from one time to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minigpt.doctor.diagnose import CHECKS, find
from minigpt.doctor.evidence import EARLY_STEPS, Evidence
from minigpt.doctor.finding import Finding
from minigpt.records import Record

STEP_LINES, STEP_SHARE = 10, 0.02
"""Between two rounds of checks lie so many lines of metrics, and such a share of all, so that long runs pay no more."""

LAST_LOOKS = 4
"""Of the looks inside, those of the beginning are kept, and so many of the newest."""


class LiveDoctor:
    """A watcher of a run.

    Args:
        evidence: what is known of it so far. What it tells already is taken as said.
        say: is told of each finding, once.
        complain: is told, once, of each check that failed; it is not made again.
    """

    def __init__(self, evidence: Evidence, say: Callable[[Finding], None], complain: Callable[[str], None]) -> None:
        self.evidence, self.say, self.complain = evidence, say, complain
        self.checks = tuple(check for check in CHECKS if check.live)
        self.waited = 0
        self.said: set[str] = set()
        self.failed: dict[str, str] = {}
        self.well = True

    def remember(self, records: Iterable[Record]) -> None:
        """Takes the records of an earlier sitting, without saying what they tell."""
        self._guarded(lambda: self._remember(records))

    def __call__(self, record: Record) -> None:
        """Takes a record, and makes the checks when it is time. No error of theirs ends a run."""
        self._guarded(lambda: self._take(record))

    def _remember(self, records: Iterable[Record]) -> None:
        for record in records:
            self._add(record)
        if self.evidence.steps:
            self._look(lambda finding: None)

    def _take(self, record: Record) -> None:
        self._add(record)
        if record.get("kind") not in ("step", "health", "validation"):
            return
        self.waited += 1
        lines = len(self.evidence.steps)
        if lines == 1 or self.waited >= max(STEP_LINES, STEP_SHARE * lines) or record["kind"] == "validation":
            self.waited = 0
            self._look(self.say)

    def _add(self, record: Record) -> None:
        self.evidence.add(record)
        looks = self.evidence.health
        if len(looks) > LAST_LOOKS + 1 and looks[-LAST_LOOKS - 1]["step"] > EARLY_STEPS:
            del looks[-LAST_LOOKS - 1]

    def _look(self, say: Callable[[Finding], None]) -> None:
        before = set(self.failed)
        for finding in find(self.evidence, self.checks, self.failed):
            if finding.check not in self.said:
                self.said.add(finding.check)
                say(finding)
        for name in self.failed.keys() - before:
            self.complain(f"the doctor leaves out a check that failed, {name}: {self.failed[name]}")

    def _guarded(self, act: Callable[[], None]) -> None:
        """Does something; a doctor that errs must not kill."""
        if not self.well:
            return
        try:
            act()
        except Exception as error:
            self.well = False
            self.complain(f"the doctor is silent from here on: {type(error).__name__}: {error}")
