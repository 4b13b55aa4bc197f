"""Steps that went wrong: what counts as wrong, how it is named, and the dump that reproduces it.

A loss or gradient that is not finite is never applied. float16's overflow is its scaler's business. A gradient far
outside its running distribution, a spike, is said, and skipped if the settings ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch

from minigpt.config import Config
from minigpt.data import Batch
from minigpt.errors import MiniGPTError
from minigpt.model import GPT
from minigpt.runs import checkpoint
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.state_dict import model_tensors
from minigpt.text_utils import shell_word
from minigpt.training.train_state import GradientNorms, TrainState

MOST_BAD_STEPS = 5
"""So many bad steps in a row are too many."""


@dataclass(frozen=True)
class StepProblem:
    """What was wrong with a step.

    Attributes:
        text: for people.
        bad: whether its loss or gradient was not finite for a reason that is not float16's.
        overflow: whether it overflowed float16, which the scaler handles.
    """

    text: str
    bad: bool = False
    overflow: bool = False


def check_step(
    loss: float, grad_norm: float, norms: GradientNorms, scaler: torch.amp.GradScaler, first_bad: Callable[[], str]
) -> StepProblem | None:
    """Returns what is wrong with a step, before it is applied; None if nothing is.

    Args:
        loss: its mean loss.
        grad_norm: the norm of its gradient.
        norms: what gradients are usual.
        scaler: float16's scaler. While its scale is above 1, halving it may help.
        first_bad: names the first tensor that is not finite.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        if norms.is_spike(grad_norm):
            usual = math.exp(norms.mean)
            return StepProblem(f"the gradient's norm is {grad_norm:.3g}, far above the usual {usual:.3g}")
        return None
    if math.isfinite(loss) and scaler.is_enabled() and scaler.get_scale() > 1:
        return StepProblem("float16 overflowed", overflow=True)
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient of {first_bad()} is not finite"
    return StepProblem(f"{what}: the step is not applied", bad=True)


def first_not_finite(model: GPT) -> str:
    """Returns the name of the first parameter whose gradient is not finite."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return name
    return "no parameter alone, but their norm"


class Dumped(TypedDict):
    """The plain values of a dump."""

    step: int
    seed: int


def save_dump(folder: RunFolder, model: GPT, batch: Batch, at: TrainState, seed: int) -> Path:
    """Saves what `minigpt replay` needs to take a run's last step again, and returns where."""
    dump = folder.path / "dumps" / f"step-{at.step:09d}"
    checkpoint.save(
        dump,
        {
            MODEL: model_tensors(model),
            "batch": {"x": torch.from_numpy(batch.x), "y": torch.from_numpy(batch.y)},
        },
        {"step": at.step, "seed": seed},
    )
    return dump


def bad_steps_error(step: int, trouble: StepProblem, dump: Path, config: Config) -> MiniGPTError:
    """Returns the error that ends a run whose steps stay bad."""
    rewound = config.train.on_nonfinite == "rewind"
    setting = 'precision = "float32" under [machine]'
    setting = setting if rewound else f'on_bad_steps = "rewind" under [train] or {setting}'
    return MiniGPTError(
        f"{MOST_BAD_STEPS} steps in a row had no finite loss or gradient"
        + (", also with the data in another order" if rewound else ""),
        got=f"step {step}: {trouble.text}",
        remedy=(
            "Nothing of them was applied, and the checkpoints are as they were. To look at the step: "
            f"`minigpt replay {shell_word(dump)}`. To go on, write {setting} into the run's config.toml, and "
            f"resume it. To begin again, try a --train.lr below {config.train.lr:g} or some --schedule.warmup-steps."
        ),
    )
