"""The figures of a run, kept in RUN/evaluation.json, so that a second report needs no minutes for them.

They are taken from there only if weights, tokens, device, precision and program are those they were measured with.
Whatever cannot be read is measured again; whatever cannot be written is not kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minigpt import __version__
from minigpt.checkpoint import STATE, write_file
from minigpt.config import MachineConfig
from minigpt.device import choose_again
from minigpt.evaluation import Evaluation, measure
from minigpt.evaluation.figures import Bin, Estimate, Figures, Group
from minigpt.run import MODEL, RunFolder

Progress = Callable[[str, int, int], None]


def measured(
    folder: RunFolder, checkpoint: str, data: Path | None, settings: MachineConfig, on_progress: Progress
) -> Evaluation:
    """Returns how well a run's model predicts the validation split: as kept, or else measured now and kept.

    Raises:
        MiniGPTError: if the checkpoint or the data is not there, damaged, or does not fit.
    """
    place, dataset = folder.find_checkpoint(checkpoint), folder.open_data(data)
    machine = choose_again(folder.environment(), settings)
    made_of = {
        "program": __version__,
        "weights": _sums(place).get(f"{MODEL}.safetensors"),
        "train": dataset.train.sha256,
        "val": dataset.val.sha256,
        "device": str(machine.device),
        "precision": machine.precision,
    }
    kept = _read(folder.evaluation_file, made_of)
    if kept is not None:
        return kept
    found = measure(folder.path, data=data, checkpoint=checkpoint, machine=settings, on_progress=on_progress)
    if made_of["weights"] and found.figures.by_frequency is not None:  # it may have more to say on another day
        with suppress(OSError):  # in a folder that cannot be written, it is measured each time
            write_file(folder.evaluation_file, json.dumps({"made_of": made_of, "evaluation": asdict(found)}))
    return found


def _sums(place: Path) -> dict[str, Any]:
    """Returns the checksums of a checkpoint's files; `measure` verifies them."""
    try:
        return dict(json.loads((place / STATE).read_text("utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _read(file: Path, made_of: dict[str, Any]) -> Evaluation | None:
    """Returns what is kept, if it was made of the same."""
    try:
        content = json.loads(file.read_text("utf-8"))
        if not made_of["weights"] or content["made_of"] != made_of:
            return None
        raw = content["evaluation"]
        return Evaluation(
            run=str(raw["run"]),
            step=int(raw["step"]),
            text=str(raw["text"]),
            precision=str(raw["precision"]),
            block_size=int(raw["block_size"]),
            stride=int(raw["stride"]),
            figures=_figures(raw["figures"]),
            notes=tuple(map(str, raw["notes"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _figures(raw: dict[str, Any]) -> Figures:
    """Returns figures of plain values; what is no number raises ValueError or TypeError."""

    def estimate(value: dict[str, Any]) -> Estimate:
        interval = value["interval"]
        return Estimate(float(value["value"]), (float(interval[0]), float(interval[1])) if interval else None)

    def groups(values: list[dict[str, Any]]) -> tuple[Group, ...]:
        return tuple(
            Group(
                str(value["name"]),
                int(value["tokens"]),
                float(value["loss"]),
                float(value["accuracy"]),
                None if value["bigram"] is None else float(value["bigram"]),
            )
            for value in values
        )

    return Figures(
        tokens=int(raw["tokens"]),
        documents=int(raw["documents"]),
        bytes_per_token=float(raw["bytes_per_token"]),
        loss=estimate(raw["loss"]),
        perplexity=estimate(raw["perplexity"]),
        bits_per_byte=estimate(raw["bits_per_byte"]),
        accuracy=estimate(raw["accuracy"]),
        top5_accuracy=estimate(raw["top5_accuracy"]),
        calibration_error=float(raw["calibration_error"]),
        calibration=tuple(
            Bin(int(part["tokens"]), float(part["confidence"]), float(part["accuracy"])) for part in raw["calibration"]
        ),
        yardsticks={str(name): estimate(value) for name, value in raw["yardsticks"].items()},
        by_context=groups(raw["by_context"]),
        by_frequency=groups(raw["by_frequency"]),
        by_document=groups(raw["by_document"]),
        interval_from=None if raw["interval_from"] is None else str(raw["interval_from"]),
    )
