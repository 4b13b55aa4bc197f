"""What the doctor found in the runs, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigpt.doctor import Diagnosis
from minigpt.report.facts import RunFacts


def diagnosis(runs: Sequence[RunFacts]) -> dict[str, Any] | None:
    """Returns the findings of each run; None if there is no diagnosis."""
    diagnosed = [_diagnosis(run, run.diagnosis) for run in runs if run.diagnosis]
    fixes = [finding["texts"][-1] for one in diagnosed for finding in one["findings"]]
    return {"runs": diagnosed, "has_commands": any("`minigpt " in fix for fix in fixes)} if diagnosed else None


def _diagnosis(run: RunFacts, found: Diagnosis) -> dict[str, Any]:
    return {
        "label": run.label,
        "normality": run.shortened(found.normality.text),
        "checks_run": found.checks_run,
        "skipped": [run.shortened(f"{line[0].upper()}{line[1:]}.") for line in found.skipped_lines()],
        "findings": [
            {
                "severity": one.severity,
                "title": f"{one.severity.capitalize()}: {one.check}",
                "since": one.since,
                "texts": [run.shortened(text) for text in (one.observation, one.explanation, one.fix)],
            }
            for one in found.findings
        ],
    }
