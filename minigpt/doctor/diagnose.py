"""All checks, as a table, and what comes of making them.

A check that fires may explain others, which are then left out: one cause is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minigpt.doctor import inner_checks, loss_checks, machine_checks, saved_checks, settings_checks, text_checks
from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding
from minigpt.doctor.reference_check import Normality, is_normal
from minigpt.doctor.references import Reference, read_references, usual_rate


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: the short name of its findings.
        look: makes it.
        needs: what must be known: of steps, two_validations, health, two_looks, peak_looks, report, pairs.
        live: whether it is made while a run goes on, too.
        explains: names of findings that are its consequences.
    """

    name: str
    look: Callable[[Evidence], Finding | None]
    needs: tuple[str, ...] = ()
    live: bool = True
    explains: tuple[str, ...] = ()


SPOILT = (
    "vanishing gradient",
    "exploding gradient",
    "dead units",
    "saturated heads",
    "not moving",
    "ended too early",
    "nothing saved",
    "stopped",
    "bigram",
)
"""What follows from steps that were too large. To go on would take them again."""

CHECKS = (
    Check("first loss", loss_checks.first_loss, ("steps",)),
    Check(
        "learning rate too high",
        inner_checks.rate_too_high,
        ("steps",),
        explains=("diverged", "bad steps", "learning rate too low", *SPOILT),
    ),
    Check("diverged", loss_checks.diverged, live=False, explains=("bad steps", *SPOILT)),
    Check("bad steps", loss_checks.bad_steps, explains=("nothing saved",)),
    Check("warm-up", settings_checks.warm_up, live=False, explains=("ended too early", "bigram")),
    Check("nothing saved", saved_checks.nothing_saved, live=False, explains=("stopped",)),
    Check("no checkpoint", saved_checks.no_checkpoint, live=False, explains=("stopped",)),
    Check("damaged checkpoint", saved_checks.damaged_checkpoint, live=False),
    Check("no metrics", saved_checks.no_metrics, live=False),
    Check(
        "learning rate too low",
        inner_checks.rate_too_low,
        ("steps", "health", "peak_looks"),
        explains=("not moving", "ended too early", "bigram"),
    ),
    Check("vanishing gradient", inner_checks.vanishing, ("health",)),
    Check("exploding gradient", inner_checks.exploding, ("steps",)),
    Check("dead units", inner_checks.dead_units, ("health", "two_looks")),
    Check("saturated heads", inner_checks.saturated_heads, ("health", "two_looks")),
    Check("not moving", loss_checks.not_moving, ("steps",), explains=("ended too early", "repetition", "bigram")),
    Check("bigram", loss_checks.bigram, ("pairs",), live=False, explains=("ended too early",)),
    Check("overfitting", loss_checks.overfitting, ("two_validations",), explains=("repetition",)),
    Check("repetition", loss_checks.repetition, ("two_validations",)),
    Check("ended too early", loss_checks.too_early, ("steps", "two_validations"), live=False),
    Check("stopped", loss_checks.stopped, ("steps",), live=False),
    Check("too little text", text_checks.too_little_text, ("two_validations",)),
    Check("overlap", text_checks.overlap, ("report",)),
    Check("vocabulary", text_checks.idle_vocabulary, ("report",)),
    Check("small validation", text_checks.small_validation, live=False),
    Check("batch", settings_checks.batch, live=False),
    Check("decay", settings_checks.decay, live=False),
    Check("out of memory", machine_checks.out_of_memory),
    Check("data-bound", machine_checks.data_bound, ("steps",)),
    Check("launch-bound", machine_checks.launch_bound, ("steps",)),
    Check("memory-bound", machine_checks.memory_bound, ("steps",)),
    Check("slow", machine_checks.slow, ("steps",)),
)


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says of a run.

    Attributes:
        findings: problems first.
        normality: whether its loss is normal.
        left_out: by the names of checks that were not made, what kept them from it.
        made: how many checks were made.
    """

    findings: list[Finding]
    normality: Normality
    left_out: dict[str, str]
    made: int

    def not_checked(self) -> list[str]:
        """Returns what was left out as sentences without their full stop, one for each reason."""
        return [
            f"not checked, since {why}: {', '.join(name for name, own in self.left_out.items() if own == why)}"
            for why in dict.fromkeys(self.left_out.values())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return {
            "findings": [finding.to_dict() for finding in self.findings],
            "normality": self.normality.to_dict(),
            "left_out": self.left_out,
            "made": self.made,
        }


def diagnose(evidence: Evidence, references: Sequence[Reference] | None = None) -> Diagnosis:
    """Makes every check for which enough is known.

    Args:
        evidence: what is known.
        references: the curves to compare with; those of the package when left out.
    """
    missing = {check.name: next((need for need in check.needs if not evidence.has(need)), None) for check in CHECKS}
    left_out = {name: evidence.absent.get(need, f"it has no {need}") for name, need in missing.items() if need}
    failed: dict[str, str] = {}
    found = find(evidence, CHECKS, failed)
    left_out |= {name: f"it failed ({error})" for name, error in failed.items()}
    try:
        normality = is_normal(evidence, read_references() if references is None else references)
    except Exception as error:  # as in `find`
        normality = Normality("unknown", f"The loss cannot be compared: {_named(error)}.")
    findings = sorted(found, key=lambda finding: finding.severity != "problem")
    if normality.verdict == "high" and not any(finding.severity == "problem" for finding in findings):
        findings.insert(0, higher_than_normal(evidence, normality))
    return Diagnosis(findings, normality, left_out, len(CHECKS) - len(left_out))


def find(evidence: Evidence, checks: Sequence[Check], failed: dict[str, str]) -> list[Finding]:
    """Returns what these checks find, consequences of other findings left out.

    Args:
        evidence: what is known.
        checks: which to make; those that have failed are passed over.
        failed: the errors of checks, by their names; new ones are put in.
    """
    found: list[Finding] = []
    explained: set[str] = set()
    for check in checks:
        if check.name in explained or check.name in failed or not all(map(evidence.has, check.needs)):
            continue
        try:
            finding = check.look(evidence)
        except Exception as error:  # records may hold anything; the other checks go on
            failed[check.name] = _named(error)
            continue
        if finding:
            found.append(finding)
            explained |= {*check.explains, check.name}
    return found


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def higher_than_normal(evidence: Evidence, normality: Normality) -> Finding:
    """Says that a loss lies above its reference for no other reason that was found."""
    lr, usual = evidence.config.train.lr, usual_rate(evidence.config)
    means = "The settings and the text are the same, so the code or the machine's numbers are not."
    remedy = f"See whether it is the number format: `{evidence.again('float32', '--machine.precision', 'float32')}`"
    if usual is not None and usual != lr:
        means = f"Nothing but the learning rate differs: {lr:g} is too {'high' if lr > usual else 'low'}."
        remedy = f"Train anew at the usual rate: `{evidence.again('usual', '--train.lr', f'{usual:g}')}`"
    return Finding("loss", "problem", normality.text, means, remedy)
