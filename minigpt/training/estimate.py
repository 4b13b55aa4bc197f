"""What a run will cost, before it begins: memory from closed forms, time from a few steps of the model on this machine.

The closed forms are in model/accounting.py. The time of a step is measured with one and two sequences of random tokens,
and goes on along the line through them; so is the time of a validation, and of a few tokens of samples. Where even that
would take long, it is reckoned from the machine's rate of matrix products. How often each is due tells the calendar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch.nn.utils import clip_grad_norm_

from minigpt.config import Config
from minigpt.config_warnings import ConfigWarning, config_warnings
from minigpt.data import Batch
from minigpt.data.dataset_card import DatasetCard
from minigpt.generation import Engine, SamplingParams
from minigpt.generation.sample_log import NEW_CHARACTERS, NEW_TOKENS, TEMPERATURES
from minigpt.intervals import Intervals
from minigpt.model import GPT
from minigpt.model.accounting import TrainingMemory, flops_per_token, parameter_count, training_memory
from minigpt.runtime import Runtime, measure_matmul_flops, synchronise
from minigpt.training.accumulate import GradientAccumulator
from minigpt.training.health import PROBE_TOKENS
from minigpt.training.optimizers import make_optimizers
from minigpt.training.reports import SECONDS_BETWEEN_PICTURES

MOST_TRIAL_SECONDS = 0.25
"""A sequence that takes longer than this is not tried, but reckoned."""

TRIAL_TOKENS = 4
"""So many tokens of samples are tried."""

USUAL_SHARE = 0.5
"""Share of the machine's matrix rate that whole steps usually reach (docs/benchmarks.md)."""

PICTURE_BYTES = 45_000_000
"""What drawing the curves adds to the process: matplotlib."""

PICTURE_SECONDS = 0.5

DISK_RATE, SAVE_SECONDS = 4e8, 0.02
"""Bytes of a checkpoint that are summed, written and synced in a second; and what even the smallest one takes."""


@dataclass(frozen=True)
class Pace:
    """How long the parts of a run take, in seconds.

    Attributes:
        step: an optimizer step.
        token: a token of the validation split.
        sampled: a token that is sampled, of all passages side by side.
        how: where these come from, for people.
    """

    step: float
    token: float
    sampled: float
    how: str


@dataclass(frozen=True)
class TrainingEstimate:
    """What a run will cost.

    Attributes:
        steps: optimizer steps; None where neither data nor settings tell.
        tokens: trained on over the whole run; likewise.
        step_seconds: how long a step takes.
        parts: how often each thing is done that takes time, and how long it takes.
        how: where the times come from, for people.
        matmul_flops: floating-point operations a second in this machine's matrix products.
        memory: a step's memory, by part.
        program: bytes of the process without it; 0 on a GPU, whose memory holds no program.
        room: bytes of memory that a CPU has, swap included; None elsewhere.
        checkpoint_bytes: of one checkpoint.
        misfits: settings that do not fit the run's length or its text.
    """

    steps: int | None
    tokens: int | None
    step_seconds: float
    parts: Mapping[str, tuple[int, float]]
    how: str
    matmul_flops: float
    memory: TrainingMemory
    program: int
    room: int | None
    checkpoint_bytes: int
    config_warnings: tuple[ConfigWarning, ...]

    @property
    def seconds(self) -> float | None:
        """The whole run's time; None where its length is not known."""
        return None if self.steps is None else sum(count * each for count, each in self.parts.values())

    @property
    def bytes(self) -> int:
        """The most memory that the process, or on a GPU its tensors, will hold."""
        return self.program + self.memory.total

    @property
    def fits(self) -> bool:
        """Whether a CPU has the memory; a GPU that has not takes smaller parts (trainer.py)."""
        return self.room is None or self.bytes <= self.room

    def record(self) -> dict[str, Any]:
        """Returns what metrics.jsonl keeps of it."""
        return {
            "steps": self.steps,
            "planned_seconds": self.seconds,
            "planned_bytes": self.bytes,
            "step_seconds": self.step_seconds,
            "how": self.how,
            "matmul_flops": self.matmul_flops,
        }


def estimate_training(config: Config, machine: Runtime, data: DatasetCard | None = None) -> TrainingEstimate:
    """Returns what a run with these settings will cost. The global random state is left as it was.

    Args:
        config: the settings, the vocabulary size among them.
        machine: as `device.choose` returns it.
        data: how the data was prepared; without it, and without `train.steps`, the run's length is not known.
    """
    shape, settings = config.model, config.train
    kind = machine.device.type
    rows = settings.batch_size // settings.grad_accum_steps
    program = psutil.Process().memory_info().rss + PICTURE_BYTES if kind == "cpu" else 0
    with machine.fork_random():
        rate = measure_matmul_flops(machine.device, machine.dtype, 1024, 0.03)
        pace = _pace(config, machine, rate)
    calendar = Intervals(config, data.train.tokens, data.val.tokens) if data else Intervals.of_steps(config)
    small = data.tokenizer in ("byte", "char") if data else shape.vocab_size < 1000
    size = _checkpoint_bytes(config)
    return TrainingEstimate(
        steps=calendar.total_steps if calendar else None,
        tokens=calendar.total_steps * settings.batch_size * shape.block_size if calendar else None,
        step_seconds=pace.step,
        parts=_parts(calendar, pace, size, NEW_CHARACTERS if small else NEW_TOKENS) if calendar else {},
        how=pace.how,
        matmul_flops=rate,
        memory=training_memory(shape, rows=rows, dtype=machine.dtype, optimizer=config.optimizer.name, kind=kind),
        program=program,
        room=psutil.virtual_memory().total + psutil.swap_memory().total if kind == "cpu" else None,
        checkpoint_bytes=size,
        config_warnings=tuple(config_warnings(calendar)) if calendar else (),
    )


def _parts(calendar: Intervals, pace: Pace, size: int, sampled: int) -> dict[str, tuple[int, float]]:
    """Returns how often each part of a run is due, and how long it takes."""
    each = {
        "validations": calendar.val_tokens * pace.token,
        "samples": len(TEMPERATURES) * sampled * pace.sampled,
        "checkpoints": SAVE_SECONDS + size / DISK_RATE,
        "health checks": 2 * PROBE_TOKENS * pace.token,
    }
    parts = {"steps": (calendar.total_steps, pace.step)}
    parts |= {name: (calendar.counts[name], seconds) for name, seconds in each.items()}
    seconds = sum(count * each for count, each in parts.values())
    pictures = 1 + min(calendar.counts["validations"], int(seconds / SECONDS_BETWEEN_PICTURES))
    return {**parts, "pictures": (pictures, PICTURE_SECONDS)}


def _checkpoint_bytes(config: Config) -> int:
    memory = training_memory(config.model, rows=1, dtype=torch.float32, optimizer=config.optimizer.name)
    return memory.weights + memory.optimizer


def _pace(config: Config, machine: Runtime, rate: float) -> Pace:
    flops = sum(flops_per_token(config.model).values())
    batch, time_steps = config.train.batch_size, config.model.block_size
    passages = max(1, config.train.sample_prompts)
    if time_steps * flops / (rate * USUAL_SHARE) > MOST_TRIAL_SECONDS or parameter_count(config.model) > 60_000_000:
        token = flops / (rate * USUAL_SHARE)
        how = f"reckoned at {USUAL_SHARE:.0%} of {rate / 1e9:,.0f} GFLOP/s in matrix products"
        return Pace(batch * time_steps * token, token / 3, passages * token, how)
    model = GPT(config.model).to(machine.device)
    optimizers = make_optimizers(model, 0.0, config.optimizer)
    gradients = GradientAccumulator(model, machine, torch.amp.GradScaler(machine.device.type, enabled=False), batch)
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

    def sample() -> None:
        engine = Engine(model, max_batch_size=passages, max_length=1 + TRIAL_TOKENS)
        for seed in range(passages):
            engine.add([0], SamplingParams(max_new_tokens=TRIAL_TOKENS, seed=seed))
        while engine.has_unfinished:
            engine.step()

    two, one = _quickest([lambda: step(2), lambda: step(1)], machine)
    (validation,) = _quickest([validate], machine)
    (samples,) = _quickest([sample], machine) if config.train.sample_prompts else (0.0,)
    # A second sequence costs something; a clock that denies it was disturbed.
    each = min(one, max(two - one, 0.3 * one))
    seconds = config.train.grad_accum_steps * (one - each) + batch * each
    how = "measured here with one and two sequences"
    return Pace(seconds, validation / (2 * time_steps), samples / TRIAL_TOKENS, how)


def _quickest(tasks: list[Callable[[], None]], machine: Runtime) -> list[float]:
    """Returns the time of each task once everything is warm: the lesser of two, taken in turns."""
    best = [float("inf")] * len(tasks)
    for _ in range(2):
        for number, task in enumerate(tasks):
            began = time.perf_counter()
            task()
            synchronise(machine.device)
            best[number] = min(best[number], time.perf_counter() - began)
    return best
