"""`minigpt verify-resume`."""

from __future__ import annotations

from pathlib import Path

from minigpt.cli.console import Console
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
    seed: int = 0,
) -> int:
    """See proven, on this machine, that a killed and resumed run ends bit for bit like one left alone.

    Trains twice for a few steps: once without a break, and once killed at random moments, so that nothing can be
    saved on the way out, and resumed each time. Then every byte of weights and optimizer and every figure of the
    metrics is compared. Ends with exit code 1 if anything differs.

    Example:

    `minigpt verify-resume --data data/pylib --preset laptop`

    Parameters
    ----------
    data
        Folder that `minigpt prepare` made.
    preset
        The settings to prove it for.
    config
        TOML file of settings to prove it for, as for `minigpt train`.
    init_from
        Run whose weights to begin with, as for `minigpt train`.
    steps
        Steps of each run.
    kills
        How often the second run is killed.
    seed
        Decides when it is killed.
    """
    from minigpt.runs.folder import RunFolder
    from minigpt.training.resume_check import verify_resume

    console = Console()
    settings = resolve(preset, config, model=RunFolder.open(init_from).config().model if init_from else None)
    verdict = verify_resume(
        data, settings, steps=steps, kills=kills, seed=seed, init_from=init_from, tell=console.print
    )
    if not verdict.kills:
        console.print("nothing is proven: each run ended before it could be killed; give more --steps")
        return 1
    if verdict.differences:
        console.print(f"NOT the same after {pluralize(verdict.kills, 'kill')} in {pluralize(verdict.steps, 'step')}:")
        for difference in verdict.differences[:20]:
            console.print(f"  {difference}")
        return 1
    console.print(
        f"the same: killed {pluralize(verdict.kills, 'time')} in {pluralize(verdict.steps, 'step')}, the run ended "
        "with the same bytes of weights and optimizer, and the same metrics, as the run that was left alone"
    )
    return 0
