"""`minigpt report`: one HTML page about a run, or one that compares several.

Not here: the page (minigpt.report).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from minigpt.config import MachineConfig, Precision


def report_command(
    *runs: Path,
    out: Path | None = None,
    prompt: Annotated[list[str] | None, Parameter(negative="", allow_leading_hyphen=True)] = None,
    data: Path | None = None,
    checkpoint: str = "best",
    evaluate: bool = True,
    samples: bool = True,
    device: str = "auto",
    precision: Precision = "auto",
) -> None:
    """Write one HTML page about a run, or one that compares several. Any browser opens it, without a network.

    The page shows training curves, metrics with their intervals, the doctor's diagnosis, samples at each epoch and how
    much of them is copied, settings, parameters, data, environment, and the commands that reproduce the run.

    Examples:

    `minigpt report runs/first`

    `minigpt report runs/first runs/second --out comparison.html`

    Parameters
    ----------
    runs
        Run folders of `minigpt train`, one or more.
    out
        The file to write, by default report.html in the first run's folder. An existing HTML page is replaced; any
        other file is an error.
    prompt
        A prompt that the model continues at each checkpoint, in addition to the fixed ones. May be given several times.
        In a comparison, only the latest checkpoints continue it.
    data
        Data set to evaluate on, prepared with the same tokenizer; by default, the one each run was trained on.
    checkpoint
        Checkpoint to evaluate: best (lowest validation loss), latest, or a step number.
    evaluate
        Evaluate the model. Earlier results are reused as long as they still hold. With a large validation text, this
        takes the longest.
    samples
        Show samples, how diverse they are, and how much of them occurs in the training text.
    device
        auto, cpu, cuda, mps.
    precision
        Number format of the matrix products; auto is that of the run.
    """
    from minigpt.cli.console import Console, say
    from minigpt.cli.progress import progress
    from minigpt.report import ReportOptions, write_report

    options = ReportOptions(
        data=data,
        checkpoint=checkpoint,
        evaluate=evaluate,
        samples=samples,
        prompts=tuple(prompt or ()),
        machine=MachineConfig(device=device, precision=precision),
    )
    missing: list[str] = []
    with progress() as on_progress:
        file = write_report(runs, out, options=options, on_progress=on_progress, on_missing=missing.append)
    for text in missing:
        say(f"not in the report: {text}")
    Console().print(f"report: {file} ({file.stat().st_size / 1000:,.0f} kB)")
