"""`minigpt report`: all that is known of runs, as one HTML page.

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
    """Write one HTML page about a run, or one that compares several: open it in any browser, without a network.

    Curves, figures with their intervals, what is wrong and what mends it, what the model says at each epoch and how
    much of that is copied, settings, parameters, text, machine, and the commands that make it again.

    Examples:

    `minigpt report runs/first`

    `minigpt report runs/first runs/second --out comparison.html`

    Parameters
    ----------
    runs
        Run folders of `minigpt train`, one or more.
    out
        The file; report.html in the first run's folder when left out. An HTML page that is there is replaced, any other
        file is left as it is.
    prompt
        A text that a model continues at each checkpoint, beside the fixed passages; may be given several times. Of
        several runs, only the latest checkpoints continue it.
    data
        Data set to measure on, made with the same tokenizer; the one each run was trained on when left out.
    checkpoint
        What is measured: best (lowest validation loss), latest, or a step number.
    evaluate
        Measure the figures, unless those from before still hold: the longest part where the validation text is large.
    samples
        Say what the models wrote, how diverse it is, and how much of it stands in the training text.
    device
        auto, cpu, cuda, mps.
    precision
        Number format of the matrix products; auto is that of the run.
    """
    from minigpt.cli.console import Console, say
    from minigpt.cli.progress import progress
    from minigpt.report import ReportOptions, write_report

    wishes = ReportOptions(
        data=data,
        checkpoint=checkpoint,
        evaluate=evaluate,
        samples=samples,
        prompts=tuple(prompt or ()),
        machine=MachineConfig(device=device, precision=precision),
    )
    with progress() as on_progress:
        left_out: list[str] = []
        file = write_report(runs, out, wishes=wishes, on_progress=on_progress, on_left_out=left_out.append)
    size = file.stat().st_size / 1000
    for text in left_out:
        say(f"left out: {text}")
    Console().print(f"report: {file} ({size:,.0f} kB)")
