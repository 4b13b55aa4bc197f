"""Settings that do not fit the run's length or its text, and cost it something.

The training warns of the same before its first step (minigpt/config_warnings.py). Each check is a pure function from
the evidence to a finding, or None.
"""

from __future__ import annotations

from minigpt.config_warnings import config_warnings
from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding, hint, problem


def _warning(evidence: Evidence, name: str) -> tuple[str, str] | None:
    """Returns what does not fit, and the command with settings that do."""
    warning = next((warning for warning in config_warnings(evidence.intervals) if warning.name == name), None)
    return (warning.text, evidence.train_again("fitting", *warning.options)) if warning else None


def warmup(evidence: Evidence) -> Finding | None:
    """A learning rate that rises for most of the run, or all of it."""
    if (found := _warning(evidence, "warm-up")) is None:
        return None
    explanation = "The model has hardly been trained at its full rate, so its losses say little about the settings."
    return problem("warm-up", found[0], explanation, f"Use a warm-up that fits: {found[1]}")


def decay(evidence: Evidence) -> Finding | None:
    """A decay for which the warm-up leaves no room."""
    if (found := _warning(evidence, "decay")) is None:
        return None
    explanation = "There is no time at the peak of the rate, where most is learned, and the rate falls faster than set."
    return hint("decay", found[0], explanation, f"Use a decay that fits: {found[1]}")


def batch_size(evidence: Evidence) -> Finding | None:
    """Batches that are larger than the text."""
    if (found := _warning(evidence, "batch")) is None:
        return None
    return hint("batch size", found[0], "Empty rows take time and teach nothing.", f"Use fewer rows: {found[1]}")
