"""Which checkpoints of a run are whole. Reads them, and changes nothing: `minigpt resume` sets damaged ones aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import CheckpointError, NewerVersionError
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder


@dataclass(frozen=True)
class Saved:
    """The checkpoints of a run.

    Attributes:
        newest: the step of the newest whole one; None without any.
        damaged: what is wrong with each newer one, by its step.
        best: what is wrong with the best one; None if nothing is, or none is noted.
    """

    newest: int | None
    damaged: Mapping[int, str]
    best: str | None


def read_saved(folder: RunFolder) -> Saved:
    """Returns how a run's checkpoints are, by their checksums: from the newest to the first whole one, and the best."""
    newest, damaged = None, {}
    for place in reversed(folder.checkpoint_folders()):
        fault = _fault(place)
        if fault is None:
            newest = folder.checkpoint_step(place)
            break
        damaged[folder.checkpoint_step(place)] = fault
    noted = folder.best()
    there = {place.name: place for place in folder.checkpoint_folders()}
    if noted is None:
        best = None
    elif (name := noted["checkpoint"]) not in there:
        best = f"{folder.checkpoints / name}: it is not there"
    else:
        step = folder.checkpoint_step(there[name])
        best = None if step == newest else damaged.get(step) or _fault(there[name])
    return Saved(newest, damaged, best)


def _fault(place: Path) -> str | None:
    try:
        checkpoint.verify(place)
    except NewerVersionError:
        return None  # whole, for another version
    except CheckpointError as error:
        return str(error.got)
    return None
