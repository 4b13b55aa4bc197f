"""`minigpt replay`."""

from __future__ import annotations

from pathlib import Path

from minigpt.cli.console import Console


def replay_command(dump: Path, /) -> None:
    """Take a bad step again, from the dump that a run left of it, and name what is not finite.

    A run that meets five steps in a row without a finite loss or gradient stops, and leaves such a dump: the weights,
    the batch and the random state of the last of them.

    Example:

    `minigpt replay runs/books/dumps/step-000000123`

    Parameters
    ----------
    dump
        The folder that the run's last message named.
    """
    from minigpt.training.replay import replay

    found = replay(dump)
    console = Console()
    console.print(f"step {found.step}: loss {found.loss}")
    for what, name in (
        ("weight", found.first_weight),
        ("output", found.first_activation),
        ("gradient", found.first_gradient),
    ):
        console.print(f"first {what} that is not finite: {name or 'none'}")
