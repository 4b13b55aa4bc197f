"""What a run will cost, before it starts: memory from closed forms, time from a few steps of the model on this machine.

The closed forms are in model/accounting.py. The time of a step is measured with one and two sequences of random tokens,
and extrapolated linearly; likewise the time of a validation and of a few sampled tokens. Where even that would take
long, times are computed from the machine's speed in matrix products. How often each is due is in intervals.py.
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
from minigpt.training.health_probe import PROBE_TOKENS
from minigpt.training.loss_plot import SECONDS_BETWEEN_PLOTS
from minigpt.training.optimizers import make_optimizers

MAX_TRIAL_SECONDS = 0.25
"""Times of sequences that take longer than this are computed, not measured."""

TRIAL_TOKENS = 4
"""Tokens sampled to measure sampling."""

USUAL_MFU = 0.5
"""Fraction of the machine's speed in matrix products that training usually reaches (docs/benchmarks.md)."""

PLOT_BYTES, PLOT_SECONDS = 45_000_000, 0.5
"""What plotting adds to the process, which is Matplotlib, and to its time."""

DISK_RATE, SAVE_SECONDS = 4e8, 0.02
"""Bytes of a checkpoint that are hashed, written and synced per second; and what even the smallest one takes."""


@dataclass(frozen=True)
class StepTimes:
    """How long the parts of a run take, in seconds.

    Attributes:
        step: an optimizer step.
        token: a token of the validation split.
        sampled: a sampled token of all prompts, in one batch.
        how: how these were found, for people.
    """

    step: float
    token: float
    sampled: float
    how: str


@dataclass(frozen=True)
class TrainingEstimate:
    """What a run will cost.

    Attributes:
        steps: optimizer steps; None if neither data nor settings determine them.
        tokens: training tokens over the whole run; likewise.
        step_seconds: how long a step takes.
        parts: how often each part of the run is due, and how long it takes.
        how: how the times were found, for people.
        matmul_flops: this machine's FLOP/s in matrix products.
        memory: memory of a step, by part.
        process_bytes: of the process without it; 0 on a GPU.
        available_bytes: memory that a CPU has, including swap; None for other devices.
        checkpoint_bytes: of one checkpoint.
        config_warnings: settings that do not fit the run's length or its text.
    """

    steps: int | None
    tokens: int | None
    step_seconds: float
    parts: Mapping[str, tuple[int, float]]
    how: str
    matmul_flops: float
    memory: TrainingMemory
    process_bytes: int
    available_bytes: int | None
    checkpoint_bytes: int
    config_warnings: tuple[ConfigWarning, ...]

    @property
    def seconds(self) -> float | None:
        """Time of the whole run; None if its length is not known."""
        return None if self.steps is None else sum(count * each for count, each in self.parts.values())

    @property
    def bytes(self) -> int:
        """Peak memory of the process, or on a GPU of its tensors."""
        return self.process_bytes + self.memory.total

    @property
    def fits(self) -> bool:
        """Whether a CPU has the memory; a GPU that lacks it uses smaller micro-batches (accumulate.py)."""
        return self.available_bytes is None or self.bytes <= self.available_bytes

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
        config: the settings, including the vocabulary size.
        machine: as `runtime.detect_runtime` returns it.
        data: the card of the data set; without it, and without `train.steps`, the run's length is not known.
    """
    shape, settings = config.model, config.train
    kind = machine.device.type
    rows = settings.batch_size // settings.grad_accum_steps
    process_bytes = psutil.Process().memory_info().rss + PLOT_BYTES if kind == "cpu" else 0
    with machine.fork_random():
        rate = measure_matmul_flops(machine.device, machine.dtype, 1024, 0.03)
        times = _measure(config, machine, rate)
    intervals = Intervals(config, data.train.tokens, data.val.tokens) if data else Intervals.of_steps(config)
    small = data.tokenizer in ("byte", "char") if data else shape.vocab_size < 1000
    size = _checkpoint_bytes(config)
    return TrainingEstimate(
        steps=intervals.total_steps if intervals else None,
        tokens=intervals.total_steps * settings.batch_size * shape.block_size if intervals else None,
        step_seconds=times.step,
        parts=_parts(intervals, times, size, NEW_CHARACTERS if small else NEW_TOKENS) if intervals else {},
        how=times.how,
        matmul_flops=rate,
        memory=training_memory(shape, rows=rows, dtype=machine.dtype, optimizer=config.optimizer.name, kind=kind),
        process_bytes=process_bytes,
        available_bytes=psutil.virtual_memory().total + psutil.swap_memory().total if kind == "cpu" else None,
        checkpoint_bytes=size,
        config_warnings=tuple(config_warnings(intervals)) if intervals else (),
    )


def _parts(intervals: Intervals, times: StepTimes, size: int, sampled: int) -> dict[str, tuple[int, float]]:
    """Returns how often each part of a run is due, and how long it takes."""
    each = {
        "validations": intervals.val_tokens * times.token,
        "samples": len(TEMPERATURES) * sampled * times.sampled,
        "checkpoints": SAVE_SECONDS + size / DISK_RATE,
        "health checks": 2 * PROBE_TOKENS * times.token,
    }
    parts = {"steps": (intervals.total_steps, times.step)}
    parts |= {name: (intervals.counts[name], seconds) for name, seconds in each.items()}
    seconds = sum(count * each for count, each in parts.values())
    plots = 1 + min(intervals.counts["validations"], int(seconds / SECONDS_BETWEEN_PLOTS))
    return {**parts, "plots": (plots, PLOT_SECONDS)}


def _checkpoint_bytes(config: Config) -> int:
    memory = training_memory(config.model, rows=1, dtype=torch.float32, optimizer=config.optimizer.name)
    return memory.weights + memory.optimizer


def _measure(config: Config, machine: Runtime, rate: float) -> StepTimes:
    flops = sum(flops_per_token(config.model).values())
    batch, time_steps = config.train.batch_size, config.model.block_size
    prompts = max(1, config.train.sample_prompts)
    if time_steps * flops / (rate * USUAL_MFU) > MAX_TRIAL_SECONDS or parameter_count(config.model) > 60_000_000:
        token = flops / (rate * USUAL_MFU)
        how = f"computed at {USUAL_MFU:.0%} of {rate / 1e9:,.0f} GFLOP/s in matrix products"
        return StepTimes(batch * time_steps * token, token / 3, prompts * token, how)
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
        engine = Engine(model, max_batch_size=prompts, max_length=1 + TRIAL_TOKENS)
        for seed in range(prompts):
            engine.add([0], SamplingParams(max_new_tokens=TRIAL_TOKENS, seed=seed))
        while engine.has_unfinished:
            engine.step()

    two, one = _fastest([lambda: step(2), lambda: step(1)], machine)
    (validation,) = _fastest([validate], machine)
    (samples,) = _fastest([sample], machine) if config.train.sample_prompts else (0.0,)
    # A second sequence costs something; if it seems not to, another program disturbed the measurement.
    each = min(one, max(two - one, 0.3 * one))
    seconds = config.train.grad_accum_steps * (one - each) + batch * each
    how = "measured here with one and two sequences"
    return StepTimes(seconds, validation / (2 * time_steps), samples / TRIAL_TOKENS, how)


def _fastest(tasks: list[Callable[[], None]], machine: Runtime) -> list[float]:
    """Returns the time of each task after a warm-up: the minimum of two, taken in turns."""
    best = [float("inf")] * len(tasks)
    for _ in range(2):
        for number, task in enumerate(tasks):
            began = time.perf_counter()
            task()
            synchronise(machine.device)
            best[number] = min(best[number], time.perf_counter() - began)
    return best
