"""The form of what is found in a run. What is looked for: the checks (diagnose.py)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """Something about a run that should be mended, or known.

    Attributes:
        check: the check's short name.
        severity: a problem spoils the run; a hint could make it better.
        observation: what was seen, with its figure.
        explanation: what that means.
        fix: what to do; commands between backticks, each at the end of a clause, run as they stand.
        step, epoch: since when, where it has a beginning.
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
        """The first command of the remedy, bare; None without one."""
        found = re.search("`(.+?)`", self.fix)
        return found[1] if found else None

    @property
    def since(self) -> str:
        """When it began, in words: "since step 75 (epoch 0.69)"; nothing where nobody knows."""
        if self.step is None:
            return ""
        epoch = "" if self.epoch is None else f" (epoch {self.epoch:.2f}".rstrip("0").rstrip(".") + ")"
        return f"since step {self.step:,}{epoch}"

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, the first command apart from the words of the remedy."""
        words = re.sub(r":? ?`.+?`", "", self.fix, count=1).replace("`", "").strip()
        return {**asdict(self), "fix": words, "command": self.command}
