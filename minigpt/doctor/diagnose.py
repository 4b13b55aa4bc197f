"""The table of checks, and `diagnose`, which runs them.

A problem that was found may explain others, whose checks are then passed over: each cause is reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minigpt.doctor import checkpoint_checks, data_checks, health_checks, loss_checks, settings_checks, speed_checks
from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding, problem
from minigpt.doctor.reference_check import Normality, compare
from minigpt.doctor.references import Reference, preset_lr, read_references


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: the short name of its findings.
        find: returns a finding, or None.
        needs: what must be known: steps, two_validations, health, two_probes, peak_probes, card, bigram_loss.
        live: whether it also runs during training.
        explains: findings that are consequences of this one, if it is a problem.
    """

    name: str
    find: Callable[[Evidence], Finding | None]
    needs: tuple[str, ...] = ()
    live: bool = True
    explains: tuple[str, ...] = ()


AFTER_DIVERGING = (
    "vanishing gradient",
    "exploding gradient",
    "dead units",
    "saturated heads",
    "loss plateau",
    "ended too early",
    "nothing saved",
    "stopped",
    "worse than bigram",
)
"""Consequences of steps that were too large: resuming would repeat them."""

CHECKS = (
    Check("initial loss", loss_checks.initial_loss, ("steps",)),
    Check(
        "learning rate too high",
        health_checks.lr_too_high,
        ("steps",),
        explains=("diverged", "non-finite steps", "learning rate too low", *AFTER_DIVERGING),
    ),
    Check("diverged", loss_checks.diverged, live=False, explains=("non-finite steps", *AFTER_DIVERGING)),
    Check("non-finite steps", loss_checks.nonfinite_steps, explains=("nothing saved",)),
    Check("warm-up", settings_checks.warmup, live=False, explains=("ended too early", "worse than bigram")),
    Check("nothing saved", checkpoint_checks.nothing_saved, live=False, explains=("stopped",)),
    Check("no checkpoint", checkpoint_checks.no_checkpoint, live=False, explains=("stopped",)),
    Check("damaged checkpoint", checkpoint_checks.damaged_checkpoint, live=False),
    Check("no metrics", checkpoint_checks.no_metrics, live=False),
    Check(
        "learning rate too low",
        health_checks.lr_too_low,
        ("steps", "health", "peak_probes"),
        explains=("loss plateau", "ended too early", "worse than bigram"),
    ),
    Check("vanishing gradient", health_checks.vanishing_gradient, ("health",)),
    Check("exploding gradient", health_checks.exploding_gradient, ("steps",)),
    Check("dead units", health_checks.dead_units, ("health", "two_probes")),
    Check("saturated heads", health_checks.saturated_heads, ("health", "two_probes")),
    Check(
        "loss plateau",
        loss_checks.plateau,
        ("steps",),
        explains=("ended too early", "diminishing returns", "worse than bigram"),
    ),
    Check(
        "worse than bigram",
        loss_checks.worse_than_bigram,
        ("bigram_loss",),
        live=False,
        explains=("ended too early",),
    ),
    Check("overfitting", loss_checks.overfitting, ("two_validations",), explains=("diminishing returns",)),
    Check("diminishing returns", loss_checks.diminishing_returns, ("two_validations",)),
    Check("ended too early", loss_checks.ended_too_early, ("steps", "two_validations"), live=False),
    Check("stopped", loss_checks.stopped, ("steps",), live=False),
    Check("too little text", data_checks.too_little_text, ("two_validations",)),
    Check("contamination", data_checks.contamination, ("card",)),
    Check("unused vocabulary", data_checks.unused_vocabulary, ("card",)),
    Check("small validation", data_checks.small_validation, live=False),
    Check("batch size", settings_checks.batch_size, live=False),
    Check("decay", settings_checks.decay, live=False),
    Check("out of memory", speed_checks.out_of_memory),
    Check("data-bound", speed_checks.data_bound, ("steps",)),
    Check("launch-bound", speed_checks.launch_bound, ("steps",)),
    Check("memory-bound", speed_checks.memory_bound, ("steps",)),
)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a run.

    Attributes:
        findings: problems first.
        normality: whether its loss is normal.
        skipped: by the names of checks that did not run, the reason.
        checks_run: how many checks ran.
    """

    findings: list[Finding]
    normality: Normality
    skipped: dict[str, str]
    checks_run: int

    def skipped_lines(self) -> list[str]:
        """Returns what was skipped as sentences without their full stop, one for each reason."""
        return [
            f"skipped, because {reason}: {', '.join(name for name, own in self.skipped.items() if own == reason)}"
            for reason in dict.fromkeys(self.skipped.values())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return {
            "findings": [finding.to_dict() for finding in self.findings],
            "normality": self.normality.to_dict(),
            "skipped": self.skipped,
            "checks_run": self.checks_run,
        }


def diagnose(evidence: Evidence, references: Sequence[Reference] | None = None) -> Diagnosis:
    """Runs every check for which enough is known.

    Args:
        evidence: what is known of the run.
        references: the curves to compare with; by default those of the package.
    """
    unmet = {check.name: next((need for need in check.needs if not evidence.has(need)), None) for check in CHECKS}
    skipped = {name: evidence.missing.get(need, f"the run has no {need}") for name, need in unmet.items() if need}
    failed: dict[str, str] = {}
    found = run_checks(evidence, CHECKS, failed)
    skipped |= {name: f"it failed ({error})" for name, error in failed.items()}
    try:
        normality = compare(evidence, read_references() if references is None else references)
    except Exception as error:  # as in `run_checks`
        normality = Normality("unknown", f"The loss cannot be compared: {_named(error)}.")
    findings = sorted(found, key=lambda finding: finding.severity != "problem")
    if normality.verdict == "high" and not any(finding.severity == "problem" for finding in findings):
        findings.insert(0, loss_too_high(evidence, normality))
    return Diagnosis(findings, normality, skipped, len(CHECKS) - len(skipped))


def run_checks(evidence: Evidence, checks: Sequence[Check], failed: dict[str, str]) -> list[Finding]:
    """Returns what these checks find, consequences of problems left out.

    Args:
        evidence: what is known of the run.
        checks: which to run, except those that have failed before.
        failed: the errors of checks, by name; new ones are added.
    """
    found: list[Finding] = []
    explained: set[str] = set()
    for check in checks:
        if check.name in explained or check.name in failed or not all(map(evidence.has, check.needs)):
            continue
        try:
            finding = check.find(evidence)
        except Exception as error:  # records may hold anything; the other checks go on
            failed[check.name] = _named(error)
            continue
        if finding:
            found.append(finding)
            explained |= {*check.explains} if finding.severity == "problem" else set()
    return found


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def loss_too_high(evidence: Evidence, normality: Normality) -> Finding:
    """Returns the finding for a loss above its reference that no check explains."""
    lr, usual = evidence.config.train.lr, preset_lr(evidence.config)
    explanation = "The settings and the text are the same, so the code or the machine's numbers must differ."
    fix = f"Check the number format: {evidence.train_again('float32', '--machine.precision', 'float32')}"
    if usual is not None and usual != lr:
        explanation = f"Only the learning rate differs: {lr:g} is too {'high' if lr > usual else 'low'}."
        fix = f"Train again at the preset's rate: {evidence.train_again('preset-lr', '--train.lr', f'{usual:g}')}"
    return problem("loss", normality.text, explanation, fix)
