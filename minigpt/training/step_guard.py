"""Steps that go wrong: how they are detected and named, and the dump that lets you look at one.

A loss or gradient that is not finite is never applied. float16's overflow is left to its loss scaler. A gradient far
above its running distribution, a spike, is reported, and skipped if the settings ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch

from minigpt.config import Config
from minigpt.data import Batch
from minigpt.errors import MiniGPTError
from minigpt.model import GPT
from minigpt.records import SKIPPED_STEP
from minigpt.runs import checkpoint
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.state_dict import model_tensors
from minigpt.training.train_state import GradientNorms, StepProblem, TrainState

MAX_BAD_STEPS = 5
"""Consecutive steps without a finite gradient before the run stops or rewinds."""


def check_step(
    loss: float, grad_norm: float, norms: GradientNorms, scaler: torch.amp.GradScaler, first_bad: Callable[[], str]
) -> StepProblem | None:
    """Returns what is wrong with a step before it is applied, or None.

    Args:
        loss: its mean loss.
        grad_norm: the norm of its gradient.
        norms: which gradient norms are normal.
        scaler: float16's loss scaler. While its scale is above 1, halving it may help.
        first_bad: names the first gradient that is not finite.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        if norms.is_spike(grad_norm):
            return StepProblem(
                "spike", f"the gradient norm is {grad_norm:.3g}, far above the usual {math.exp(norms.mean):.3g}"
            )
        return None
    if math.isfinite(loss) and scaler.is_enabled() and scaler.get_scale() > 1:
        return StepProblem("overflow", "float16 overflowed")
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient of {first_bad()} is not finite"
    return StepProblem("nonfinite", f"{what}; {SKIPPED_STEP}")


def first_nonfinite_gradient(model: GPT) -> str:
    """Returns the name of the first parameter whose gradient is not finite."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return name
    return "all parameters together"  # each is finite, but their common norm overflows


def save_dump(folder: RunFolder, model: GPT, batch: Batch, state: TrainState, seed: int) -> Path:
    """Saves the weights, batch and seed of a run's last step, to take it again in Python; returns where."""
    dump = folder.path / "dumps" / f"step-{state.step:09d}"
    ids = {"x": torch.from_numpy(batch.x), "y": torch.from_numpy(batch.y)}
    checkpoint.save(dump, {MODEL: model_tensors(model), "batch": ids}, {"step": state.step, "seed": seed})
    return dump


def bad_steps_error(step: int, problem: StepProblem, dump: Path, config: Config) -> MiniGPTError:
    """Returns the error that ends a run whose steps stay without a finite gradient."""
    rewound = config.train.on_nonfinite == "rewind"
    setting = 'precision = "float32" under [machine]'
    setting = setting if rewound else f'on_nonfinite = "rewind" under [train], or {setting}'
    return MiniGPTError(
        f"{MAX_BAD_STEPS} consecutive steps had no finite loss or gradient"
        + (", even after reshuffling the data" if rewound else ""),
        got=f"step {step}: {problem.text}",
        remedy=(
            "None of them was applied, and all checkpoints are intact. To continue, set "
            f"{setting} in the run's config.toml, and resume. To start over, lower --train.lr from "
            f"{config.train.lr:g}, or add --schedule.warmup-steps. Weights and batch of this step are in {dump}; "
            "docs/reliability.md shows how to look at them."
        ),
    )
