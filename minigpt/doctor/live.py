"""The checks that make sense while a run goes on; each finding is reported once.

The training owns a doctor and passes it every record. Findings go back to the training, which passes them on to its
callbacks; they are not saved, since what the clock says differs from one time to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minigpt.doctor.diagnose import CHECKS, run_checks
from minigpt.doctor.evidence import EARLY_STEPS, Evidence
from minigpt.doctor.finding import Finding
from minigpt.records import KEPT as SAVED_KINDS
from minigpt.records import Record

MIN_RECORDS, RECORD_SHARE = 10, 0.02
"""Records between two rounds of checks: at least so many, and such a share of all, so that long runs pay no more."""

NEWEST_PROBES = 4
"""Health records that are kept, besides those of the beginning."""


class LiveDoctor:
    """A callback that checks a run as it goes.

    Args:
        evidence: what is known of it so far.
        say: called with each finding, once.
        complain: called with a message, once for each check that failed; it does not run again.
    """

    def __init__(self, evidence: Evidence, say: Callable[[Finding], None], complain: Callable[[str], None]) -> None:
        self.evidence, self.say, self.complain = evidence, say, complain
        self.checks = tuple(check for check in CHECKS if check.live)
        self.waited = 0
        self.reported: set[str] = set()
        self.failed: dict[str, str] = {}

    def remember(self, records: Iterable[Record]) -> None:
        """Takes the records from before the run was resumed; findings they tell already are not reported."""
        for record in records:
            self._add(record)
        if self.evidence.steps:
            self._check(lambda finding: None)

    def __call__(self, record: Record) -> None:
        """Takes a record, and runs the checks when they are due."""
        self._add(record)
        if record["kind"] not in ("step", "health", "validation"):
            return
        self.waited += 1
        lines = len(self.evidence.steps)
        if lines == 1 or self.waited >= max(MIN_RECORDS, RECORD_SHARE * lines) or record["kind"] == "validation":
            self.waited = 0
            self._check(self.say)

    def _add(self, record: Record) -> None:
        if record["kind"] in SAVED_KINDS:
            self.evidence.add(record)
        probes = self.evidence.health
        if len(probes) > NEWEST_PROBES + 1 and probes[-NEWEST_PROBES - 1]["step"] > EARLY_STEPS:
            del probes[-NEWEST_PROBES - 1]

    def _check(self, say: Callable[[Finding], None]) -> None:
        before = set(self.failed)
        for finding in run_checks(self.evidence, self.checks, self.failed):
            if finding.check not in self.reported:
                self.reported.add(finding.check)
                say(finding)
        for name in self.failed.keys() - before:
            self.complain(f"the doctor's check {name!r} failed and is skipped from here on: {self.failed[name]}")
