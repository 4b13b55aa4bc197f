"""What a run will cost, before it begins: memory from closed forms, time from a few steps of the model on this machine.

The closed forms are in model/accounting.py. The time of a step is measured with one and two sequences of random tokens,
and goes on along the line through them; so is the time of a validation. Where even that would take long, it is
reckoned from the machine's rate of matrix products.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch.nn.utils import clip_grad_norm_

from minigpt.config import Config
from minigpt.data import Batch
from minigpt.data.report import Report
from minigpt.device import Machine, matmul_rate, synchronise
from minigpt.model import GPT
from minigpt.model.accounting import TrainingMemory, flops_per_token, parameter_count, training_memory
from minigpt.training.gradients import Gradients
from minigpt.training.optimizers import make_optimizers

MOST_TRIAL_SECONDS = 0.25
"""A sequence that takes longer than this is not tried, but reckoned."""

USUAL_SHARE = 0.5
"""Share of the machine's matrix rate that whole steps usually reach (docs/benchmarks.md)."""

PICTURE_BYTES = 45_000_000
"""What drawing the curves adds to the process: matplotlib."""


@dataclass(frozen=True)
class Plan:
    """What a run will cost.

    Attributes:
        steps: optimizer steps; None where neither data nor settings tell.
        tokens: trained on over the whole run; likewise.
        validations: how often the validation split is gone through.
        step_seconds, validation_seconds: how long a step and a validation take.
        how: where the times come from, for people.
        matrix_rate: floating-point operations a second in this machine's matrix products.
        memory: a step's memory, by part.
        program: bytes of the process without it; 0 on a GPU, whose memory holds no program.
        room: bytes of memory that a CPU has, swap included; None elsewhere.
        checkpoint_bytes: of one checkpoint.
    """

    steps: int | None
    tokens: int | None
    validations: int
    step_seconds: float
    validation_seconds: float
    how: str
    matrix_rate: float
    memory: TrainingMemory
    program: int
    room: int | None
    checkpoint_bytes: int

    @property
    def seconds(self) -> float | None:
        """The whole run's time; None where its length is not known."""
        if self.steps is None:
            return None
        return self.steps * self.step_seconds + self.validations * self.validation_seconds

    @property
    def bytes(self) -> int:
        """The most memory that the process, or on a GPU its tensors, will hold."""
        return self.program + self.memory.total

    @property
    def fits(self) -> bool:
        """Whether a CPU has the memory; a GPU that has not takes smaller parts (loop.py)."""
        return self.room is None or self.bytes <= self.room


def make_plan(config: Config, machine: Machine, data: Report | None = None) -> Plan:
    """Returns what a run with these settings will cost. The global random state is left as it was.

    Args:
        config: the settings, the vocabulary size among them.
        machine: as `device.choose` returns it.
        data: how the data was prepared; without it, and without `train.steps`, the run's length is not known.
    """
    shape, settings = config.model, config.train
    kind = machine.device.type
    rows = settings.batch_size // settings.accumulate
    program = psutil.Process().memory_info().rss + PICTURE_BYTES if kind == "cpu" else 0
    with machine.fork_random():
        rate = matmul_rate(machine.device, machine.dtype, 1024, 0.03)
        step_seconds, token_seconds, how = _pace(config, machine, rate)
    steps, validations, held_out = settings.steps, 0, 0
    if data is not None:
        per_epoch = -(-(data.train.tokens - 1) // (shape.block_size * settings.batch_size))
        steps = steps or settings.epochs * per_epoch
        every = settings.validate_every or per_epoch
        ends = {steps, *range(per_epoch, steps, per_epoch), *range(every, steps, every)}
        validations, held_out = len(ends), data.val.tokens
    return Plan(
        steps=steps,
        tokens=None if steps is None else steps * settings.batch_size * shape.block_size,
        validations=validations,
        step_seconds=step_seconds,
        validation_seconds=held_out * token_seconds,
        how=how,
        matrix_rate=rate,
        memory=training_memory(shape, rows=rows, dtype=machine.dtype, optimizer=config.optimizer.name, kind=kind),
        program=program,
        room=psutil.virtual_memory().total + psutil.swap_memory().total if kind == "cpu" else None,
        checkpoint_bytes=_checkpoint_bytes(config),
    )


def _checkpoint_bytes(config: Config) -> int:
    memory = training_memory(config.model, rows=1, dtype=torch.float32, optimizer=config.optimizer.name)
    return memory.weights + memory.optimizer


def _pace(config: Config, machine: Machine, rate: float) -> tuple[float, float, str]:
    """Returns the seconds of a step and of a validated token, and how they were found."""
    flops = sum(flops_per_token(config.model).values())
    batch, time_steps = config.train.batch_size, config.model.block_size
    if time_steps * flops / (rate * USUAL_SHARE) > MOST_TRIAL_SECONDS or parameter_count(config.model) > 60_000_000:
        token = flops / (rate * USUAL_SHARE)
        how = f"reckoned at {USUAL_SHARE:.0%} of {rate / 1e9:,.0f} GFLOP/s in matrix products"
        return batch * time_steps * token, token / 3, how
    model = GPT(config.model).to(machine.device)
    optimizers = make_optimizers(model, 0.0, config.optimizer)
    gradients = Gradients(model, machine, torch.amp.GradScaler(machine.device.type, enabled=False), batch)
    rng = np.random.default_rng(0)
    ids = rng.integers(config.model.vocab_size, size=(2, time_steps))

    def step(rows: int) -> None:
        gradients.rows = rows
        gradients.add(Batch(ids[:rows], ids[:rows]), 0, 0)
        clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)

    def validate() -> None:
        tokens = torch.from_numpy(ids).to(machine.device)
        with torch.no_grad(), machine.autocast():
            model.eval()(tokens, tokens)

    two, one = _quickest([lambda: step(2), lambda: step(1)], machine)
    (validation,) = _quickest([validate], machine)
    # A second sequence costs something; a clock that denies it was disturbed.
    each = min(one, max(two - one, 0.3 * one))
    seconds = config.train.accumulate * (one - each) + batch * each
    return seconds, validation / (2 * time_steps), "measured here with one and two sequences"


def _quickest(tasks: list[Callable[[], None]], machine: Machine) -> list[float]:
    """Returns the time of each task once everything is warm: the lesser of two, taken in turns."""
    best = [float("inf")] * len(tasks)
    for _ in range(2):
        for number, task in enumerate(tasks):
            began = time.perf_counter()
            task()
            synchronise(machine.device)
            best[number] = min(best[number], time.perf_counter() - began)
    return best
