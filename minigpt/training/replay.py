"""Taking a bad step again, from the dump that the run left of it, to see where it goes wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt import runtime
from minigpt.config import IGNORE_INDEX, GPTConfig
from minigpt.data import Batch
from minigpt.errors import RunError
from minigpt.files import is_file
from minigpt.model import GPT
from minigpt.model.hooks import Point
from minigpt.runs import checkpoint
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.state_dict import check_size, first_bad_tensor, load_weights, misfit, model_tensors
from minigpt.training.accumulate import GradientAccumulator
from minigpt.training.step_guard import Dumped, first_not_finite


@dataclass(frozen=True)
class Replay:
    """What a step did.

    Attributes:
        step: which one.
        loss: its mean loss.
        first_weight: the first weight that is not finite already, or None.
        first_activation: the first part of the model whose output is not finite, or None.
        first_gradient: the first weight whose gradient is not finite, or None.
    """

    step: int
    loss: float
    first_weight: str | None
    first_activation: str | None
    first_gradient: str | None


def replay(dump: Path | str) -> Replay:
    """Takes the step of a dump again, as it was: same weights, batch, dropout and precision.

    Args:
        dump: a folder RUN/dumps/step-... that a run left.

    Raises:
        RunError: if it does not stand in a run folder.
        CheckpointError: if it is damaged, or not of the run's model.
    """
    dump = Path(dump)
    if not is_file(dump / checkpoint.STATE):
        raise RunError("This is no dump of a bad step", got=dump, remedy="They stand in RUN/dumps, as step-000000123.")
    folder = RunFolder.open(dump.resolve().parent.parent)
    config = folder.config()
    machine = runtime.restore_runtime(folder.environment(), config.machine)
    values: Dumped = checkpoint.load_values(dump, Dumped)
    batch = checkpoint.load_tensors(dump, "batch")
    weights = checkpoint.load_tensors(dump, MODEL, machine.device)
    _check_batch(batch, config.model)
    check_size(config.model, weights)
    model = GPT(config.model).to(machine.device)
    load_weights(model, weights, finite=False)
    first_weight = first_bad_tensor(model_tensors(model))

    outputs: list[str] = []
    for name, part in model.named_modules():
        if not isinstance(part, Point):  # a watched one would lead the step another way
            part.register_forward_hook(_noting(name, outputs))
    tokens = int((batch["y"] != IGNORE_INDEX).sum())
    rows = config.train.batch_size // config.train.grad_accum_steps
    gradients = GradientAccumulator(model, machine, torch.amp.GradScaler(machine.device.type, enabled=False), rows)
    x, y = (batch[name].cpu().numpy() for name in ("x", "y"))
    loss_sum = float(gradients.add(Batch(x, y), values["seed"], values["step"] - 1)[0])
    bad_gradient = any(p.grad is not None and not p.grad.isfinite().all() for p in model.parameters())
    return Replay(
        step=values["step"],
        loss=loss_sum / tokens if tokens else math.nan,
        first_weight=first_weight,
        first_activation=outputs[0] if outputs else None,
        first_gradient=first_not_finite(model) if bad_gradient else None,
    )


def _check_batch(batch: Mapping[str, Tensor], config: GPTConfig) -> None:
    """Raises CheckpointError unless a dump holds ids and targets that the model knows."""
    x, y = (batch.get(name, torch.empty(0)) for name in ("x", "y"))
    if x.dtype != torch.int64 or y.dtype != torch.int64 or x.shape != y.shape or x.dim() != 2 or not x.numel():
        raise misfit(f"a batch of {tuple(x.shape)} {x.dtype} and {tuple(y.shape)} {y.dtype} in the dump")
    lowest, highest = min(int(x.min()), int(y.min()) - IGNORE_INDEX), max(int(x.max()), int(y.max()))
    if lowest < 0 or highest >= config.vocab_size or x.shape[1] > config.block_size:
        raise misfit(f"ids up to {highest} in sequences of {x.shape[1]} in the dump")


def _noting(name: str, outputs: list[str]) -> object:
    def note(part: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and not bool(output.isfinite().all()):
            outputs.append(name)

    return note
