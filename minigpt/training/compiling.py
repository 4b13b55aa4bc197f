"""Whether to compile the model with `torch.compile`: decided before a run, by what it would save.

On a CPU the costly parts have kernels of our own (model/kernels/), and the compiled rest was slower in every setting
measured (docs/log.md). On a GPU it is tried: the model runs a few steps each way, and the time that compiling takes is
weighed against what it would save in this run. A compiler that fails costs one line of output, not the run.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from minigpt.config import Config
from minigpt.data import Batch
from minigpt.model import GPT
from minigpt.runtime import COMPILE_MODES, Runtime, synchronise
from minigpt.training.accumulate import GradientAccumulator

STEPS = 5
"""Steps to time."""


def decide_compile(machine: Runtime, config: Config, steps: int) -> Runtime:
    """Returns the machine with `compiled` and its reason set, for a run of `steps` steps.

    The global random state does not change.
    """
    setting, kind = config.machine.compile, machine.device.type
    if setting == "off":
        return replace(machine, compiled="off", compiled_reason="as requested")
    if setting == "auto" and kind != "cuda":
        why = "slower than our kernels on a CPU" if kind == "cpu" else "not mature on this kind of device"
        return replace(machine, compiled="off", compiled_reason=why)
    modes = COMPILE_MODES if kind == "cuda" else COMPILE_MODES[:1]
    with machine.fork_random():
        return _try(machine, config, steps, modes, eager_too=setting == "auto")


def _try(machine: Runtime, config: Config, steps: int, modes: tuple[str, ...], eager_too: bool) -> Runtime:
    """Times each mode, and returns the machine with the one that finishes the run first."""
    results: dict[str, tuple[float, float]] = {"off": _trial(machine, config)} if eager_too else {}
    failure = ""
    for mode in modes:
        try:
            results[mode] = _trial(replace(machine, compiled=mode), config)
        except Exception as error:  # whatever a compiler may raise: the run does not need it
            lines = str(error).strip().splitlines()
            failure = f"torch.compile failed: {type(error).__name__}: {lines[0] if lines else ''}"[:200]
    if not results:
        return replace(machine, compiled="off", compiled_reason=failure)
    best = min(results, key=lambda mode: results[mode][0] + steps * results[mode][1])
    times = ", ".join(
        f"{mode} {1000 * step:.1f} ms a step" + (f" after {first:.0f} s of compiling" if mode != "off" else "")
        for mode, (first, step) in results.items()
    )
    reason = f"measured for {steps} steps: {times}" if eager_too else f"as requested: {times}"
    return replace(machine, compiled=best, compiled_reason=reason + (f"; {failure}" if failure else ""))


def _trial(machine: Runtime, config: Config) -> tuple[float, float]:
    """Returns the seconds that compiling takes, which is in the first steps, and those of a later step."""
    shape, rows = config.model, config.train.batch_size // config.train.grad_accum_steps
    model = GPT(shape).to(machine.device)
    gradients = GradientAccumulator(model, machine, torch.amp.GradScaler(machine.device.type, enabled=False), rows)
    ids = np.random.default_rng(0).integers(shape.vocab_size, size=(rows, shape.block_size))
    times = []
    for step in range(STEPS + 2):
        began = time.perf_counter()
        gradients.add(Batch(ids, ids), 0, step)
        model.zero_grad(set_to_none=True)
        synchronise(machine.device)
        times.append(time.perf_counter() - began)
    steady = sorted(times[2:])[STEPS // 2]
    return max(0.0, times[0] + times[1] - 2 * steady), steady
