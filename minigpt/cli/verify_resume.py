"""`minigpt verify-resume`."""

from __future__ import annotations

from pathlib import Path

from minigpt.cli.console import Console
from minigpt.cli.signals import interruptible
from minigpt.config import resolve
from minigpt.text_utils import pluralize


def verify_resume_command(
    *,
    data: Path,
    preset: str | None = None,
    config: Path | None = None,
    init_from: Path | None = None,
    steps: int = 20,
    kills: int = 3,
) -> int:
    """Check on this machine that a run that was killed and resumed ends with the same bits as one that was not.

    Trains twice for a few steps: once without interruption, and once killed at random moments, so that nothing can be
    saved at the end, and resumed each time. Then compares every byte of weights and optimizer state, and every metric.
    The exit code is 1 if anything differs.

    Example:

    `minigpt verify-resume --data data/pylib --preset laptop`

    Parameters
    ----------
    data
        Folder that `minigpt prepare` made.
    preset
        Settings to check.
    config
        TOML file of settings to check, as for `minigpt train`.
    init_from
        Run whose weights to start from, as for `minigpt train`.
    steps
        Steps of each run.
    kills
        How often the second run is killed.
    """
    from minigpt.runs.folder import RunFolder
    from minigpt.training.resume_check import verify_resume

    console = Console()
    settings = resolve(preset, config, model=RunFolder.open(init_from).config().model if init_from else None)
    with interruptible():
        killed, found = verify_resume(
            data, settings, steps=steps, kills=kills, init_from=init_from, report=console.print
        )
    if not killed:
        console.print("Nothing was checked: each run ended before it could be killed. Give more --steps.")
        return 1
    runs = f"killed {pluralize(killed, 'time')} in {pluralize(steps, 'step')}"
    if found:
        console.print(f"NOT identical: {runs}, the run differs from the one without interruption:")
        for difference in found[:20]:
            console.print(f"  {difference}")
        return 1
    console.print(
        f"identical: {runs}, the run ended with the same bytes of weights and optimizer state, and the same metrics, "
        "as the run without interruption"
    )
    return 0
