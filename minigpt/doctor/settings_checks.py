"""What the settings tell beside the run's length and its text: those that do not fit, and cost it something.

The training says the same before its first step (minigpt/config_warnings.py). Each check is a pure function from the
evidence to a finding, or None.
"""

from __future__ import annotations

from typing import Literal

from minigpt.config_warnings import config_warnings
from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding


def warm_up(evidence: Evidence) -> Finding | None:
    """A learning rate that rises for most of the run, or all of it."""
    means = "The model has hardly been trained at its learning rate, so its losses say little about the settings."
    return _finding(evidence, "warm-up", "problem", means, "A warm-up that fits")


def decay(evidence: Evidence) -> Finding | None:
    """A decay for which the warm-up leaves no room."""
    means = "There is no time at the peak of the rate, where most is learned, and the rate falls faster than asked for."
    return _finding(evidence, "decay", "hint", means, "A decay that fits")


def batch(evidence: Evidence) -> Finding | None:
    """Batches that are larger than the text."""
    means = "Empty rows take time and teach nothing."
    return _finding(evidence, "batch", "hint", means, "A batch that fits")


def _finding(
    evidence: Evidence, name: str, severity: Literal["problem", "hint"], means: str, remedy: str
) -> Finding | None:
    misfit = next((misfit for misfit in config_warnings(evidence.calendar) if misfit.name == name), None)
    if misfit is None:
        return None
    return Finding(name, severity, misfit.text, means, f"{remedy}: `{evidence.again('fitting', *misfit.options)}`")
