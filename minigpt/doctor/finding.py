"""The form of a finding. What is looked for: the checks (diagnose.py)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from minigpt.records import Record


@dataclass(frozen=True)
class Finding:
    """Something about a run that should be fixed, or known.

    Attributes:
        check: the check's short name.
        severity: a problem spoils the run; a hint could make it better.
        observation: what was measured.
        explanation: what that means.
        fix: what to do; commands between backticks, each at the end of a clause, can be run as they are.
        step, epoch: when it began, if known.
    """

    check: str
    severity: Literal["problem", "hint"]
    observation: str
    explanation: str
    fix: str
    step: int | None = None
    epoch: float | None = None

    @property
    def command(self) -> str | None:
        """The first command of the fix, bare; None if there is none."""
        found = re.search("`(.+?)`", self.fix)
        return found[1] if found else None

    @property
    def since(self) -> str:
        """When it began, in words: "since step 75 (epoch 0.69)"; empty if unknown."""
        if self.step is None:
            return ""
        epoch = "" if self.epoch is None else f" (epoch {self.epoch:.2f}".rstrip("0").rstrip(".") + ")"
        return f"since step {self.step:,}{epoch}"

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, the first command apart from the words of the fix."""
        words = re.sub(r":? ?`.+?`", "", self.fix, count=1).replace("`", "").strip()
        return {**asdict(self), "fix": words, "command": self.command}


def problem(check: str, observation: str, explanation: str, fix: str, since: Record | None = None) -> Finding:
    """Returns a finding that spoils the run, as it has been since a record."""
    when = (since["step"], since.get("epoch")) if since else (None, None)
    return Finding(check, "problem", observation, explanation, fix, *when)


def hint(check: str, observation: str, explanation: str, fix: str, since: Record | None = None) -> Finding:
    """Returns a finding that could make the run better, as it has been since a record."""
    when = (since["step"], since.get("epoch")) if since else (None, None)
    return Finding(check, "hint", observation, explanation, fix, *when)
