"""`minigpt doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from minigpt.text_utils import pluralize

if TYPE_CHECKING:
    from minigpt.doctor import Diagnosis, Evidence


def doctor_command(
    run: Path,
    /,
    *,
    data: Path | None = None,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Find what is wrong with a run, and the command that fixes it.

    Checks losses, gradients, updates, dead units, speed, checkpoints and the data set, and compares the loss with that
    of a healthy run. Changes nothing. The same checks run during training.

    Examples:

    `minigpt doctor runs/books`

    `minigpt doctor runs/books --strict && minigpt export runs/books --out books-hf`

    Parameters
    ----------
    run
        Run folder of `minigpt train`: finished, stopped, or in training.
    data
        Where the run's data set is now, if it has moved.
    as_json
        Print one JSON object instead of text.
    strict
        Exit with code 1 if there is a problem; hints do not count.
    """
    from minigpt.cli.console import print_json
    from minigpt.doctor import diagnose, read_evidence

    evidence = read_evidence(run, data)
    diagnosis = diagnose(evidence)
    if as_json:
        print_json({"run": str(run), "step": evidence.last_step, **diagnosis.to_dict()})
    else:
        _show(evidence, diagnosis)
    return int(strict and any(finding.severity == "problem" for finding in diagnosis.findings))


def _show(evidence: Evidence, diagnosis: Diagnosis) -> None:
    """Prints how far the run is, whether its loss is normal, and each finding in three lines."""
    from minigpt.cli.console import Console, styled

    console = Console()

    def say(*parts: str | tuple[str, str]) -> None:
        console.print(styled(*parts))

    say(f"{evidence.run}: {progress_line(evidence)}")
    say(diagnosis.normality.text)
    colours = {"problem": "bold red", "hint": "bold yellow"}
    for finding in diagnosis.findings:
        console.print()
        title = f"{finding.severity}: {finding.check}" + (finding.since and f", {finding.since}")
        say((title, colours[finding.severity]))
        say(f"  {finding.observation}")
        say(f"  {finding.explanation}")
        say(f"  {finding.fix}")
    if not diagnosis.findings:
        say(("healthy", "bold green"), f": {diagnosis.checks_run} checks found no problem")
    for line in diagnosis.skipped_lines():
        say(line)


def progress_line(evidence: Evidence) -> str:
    """Returns how far a run is, and its losses."""
    words = f"{evidence.last_step:,} of {pluralize(evidence.total_steps, 'step')}, epoch {evidence.epochs:.3g}"
    if evidence.ended_early:
        words += f", stopped early after {pluralize(evidence.config.train.patience, 'validation')} without improvement"
    if evidence.validations:
        last = evidence.validations[-1]
        words += f"; training loss {last['train_loss']:.3f}, validation loss {last['val_loss']:.3f}"
    elif evidence.steps:
        words += f"; training loss {evidence.steps[-1]['loss']:.3f}, not yet validated"
    return words
