"""What training.py, scaling.py and gpu.py share: token ids, steps on the clock, a process for each, tables, pictures.

Ours is trained as minigpt/training/trainer.py trains it, a peer as its own users would. What is measured runs in a
process
of its own (`apart`), for its peak of memory is then its own, and no buffer, cache or compiler of another is around.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from peers import PEERS, Peer, Shape
from torch import nn

WARM_UP = 2
"""Steps that are not counted: the first compiles, the second still takes memory anew."""

SEED = Shape()
"""The model of preset `seed`."""

TINY = Shape(vocab_size=300, block_size=32, n_layer=1, n_head=2, n_embd=16, n_inner=32)
"""For trying a script out: its figures mean nothing."""

OURS, OURS_FLOAT32, COMPILED, PEER = "#0072B2", "#56B4E9", "#009E73", "#999999"
"""Colours of the Okabe-Ito palette: told apart with any kind of colour vision."""


@dataclass(frozen=True)
class Ours:
    """Mini-GPT in one setting.

    Attributes:
        title: for tables.
        precision: of its matrix products.
        compiled: "off", or the mode of `torch.compile`.
    """

    title: str
    precision: str
    compiled: str = "off"


OUR_SETTINGS = {
    "ours-bf16": Ours("Mini-GPT, bfloat16", "bfloat16"),
    "ours-f32": Ours("Mini-GPT, float32", "float32"),
    "ours-bf16-compiled": Ours("Mini-GPT, bfloat16, compiled", "bfloat16", "default"),
    "ours-bf16-graphs": Ours("Mini-GPT, bfloat16, compiled, reduce-overhead", "bfloat16", "reduce-overhead"),
}
CONTESTANTS: dict[str, Ours | Peer] = {**OUR_SETTINGS, **PEERS}


@dataclass(frozen=True)
class Workload:
    """What is trained on what.

    Attributes:
        shape: of the model.
        batch: sequences in each step.
        steps: how many are counted.
        device: "cpu", "cuda" or "mps".
    """

    shape: Shape = SEED
    batch: int = 8
    steps: int = 5
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        """Tokens in each step."""
        return self.batch * self.shape.block_size

    def to_json(self) -> str:
        """Returns it as one line, for the command line of a process of its own."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Workload:
        """Reads such a line."""
        values = json.loads(text)
        return cls(**{**values, "shape": Shape(**values["shape"])})


def zipf_ids(vocab_size: int, count: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns ids distributed as words are: the k-th most frequent with probability in proportion to 1/k."""
    ranks = (vocab_size + 1.0) ** np.random.default_rng(seed).random(count)  # from 1 up to, not including, V + 1
    return np.minimum(ranks.astype(np.int64), vocab_size) - 1


def train(contestant: Ours | Peer, work: Workload) -> dict[str, Any]:
    """Trains for a few steps.

    Returns:
        first: seconds of the very first step, compiling included.
        seconds: those of each counted step.
        tokens_per_second: by the median of these.
        peak_memory: the most bytes that this process has held, None where the system does not tell.
        losses: nats a token, of every step.
    """
    from minigpt import runtime

    torch.manual_seed(0)
    make = _our_step if isinstance(contestant, Ours) else _peer_step
    take_step = make(contestant, work)
    count = work.tokens + work.batch
    ids = zipf_ids(work.shape.vocab_size, count * (WARM_UP + work.steps), seed=1)
    batches = ids.reshape(-1, work.batch, work.shape.block_size + 1)  # (steps, batch, time + 1)
    seconds, losses = [], []
    for batch in batches:
        began = time.perf_counter()
        losses.append(take_step(np.ascontiguousarray(batch[:, :-1]), np.ascontiguousarray(batch[:, 1:])))
        runtime.synchronise(torch.device(work.device))
        seconds.append(time.perf_counter() - began)
    return {
        "first": seconds[0],
        "seconds": seconds[WARM_UP:],
        "tokens_per_second": work.tokens / statistics.median(seconds[WARM_UP:]),
        "peak_memory": runtime.peak_memory(torch.device(work.device)),
        "losses": losses,
    }


Step = Callable[[Any, Any], float]


def our_config(shape: Shape) -> Any:
    """Returns preset `seed` with this shape."""
    from minigpt.config import resolve

    return resolve("seed", overrides={f"model.{name}": value for name, value in asdict(shape).items()})


def _our_step(setting: Ours, work: Workload) -> Step:
    from torch.nn.utils import clip_grads_with_norm_, get_total_norm

    from minigpt import runtime
    from minigpt.data import Batch
    from minigpt.model import GPT
    from minigpt.training.accumulate import GradientAccumulator
    from minigpt.training.optimizers import make_optimizers

    config = our_config(work.shape)
    machine = replace(runtime.detect_runtime(work.device, setting.precision), compiled=setting.compiled)
    model = GPT(config.model).to(machine.device)
    optimizers = make_optimizers(model, config.train.lr, config.optimizer)
    scaler = torch.amp.GradScaler(machine.device.type, enabled=setting.precision == "float16")
    gradients = GradientAccumulator(model, machine, scaler, work.batch, print)
    steps = 0

    def take_step(ids: Any, targets: Any) -> float:
        nonlocal steps
        loss_sum, tokens = gradients.add(Batch(ids, targets), 1, steps)
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        loss = float(loss_sum) / tokens
        clip_grads_with_norm_(model.parameters(), config.train.grad_clip, norm)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        model.zero_grad(set_to_none=True)
        steps += 1
        return loss

    return take_step


def _peer_step(peer: Peer, work: Workload) -> Step:
    device, lowered = torch.device(work.device), peer.precision != "float32"
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, which trainers for GPUs switch on
    model = peer.build(work.shape).to(device).train()
    forward = torch.compile(model) if peer.compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, fused=True)

    def take_step(ids: Any, targets: Any) -> float:
        x, y = (torch.from_numpy(part).to(device) for part in (ids, targets))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=lowered):
            loss = forward(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return take_step


def machine_facts(device_name: str, size: int) -> dict[str, Any]:
    """Returns what the machine is, and the measured rates of its matrix products of this size in FLOP/s."""
    from minigpt import runtime

    machine = runtime.detect_runtime(device_name)
    seconds = 0.5 if size > 128 else 0.02  # the small ones are for trying a script out
    types = ["bfloat16", "float32"] + (["float16"] if machine.device.type == "cuda" else [])
    rates = {name: runtime.measure_matmul_flops(machine.device, runtime.DTYPES[name], size, seconds) for name in types}
    return {"environment": runtime.environment(machine), "size": size, "rates": rates}


def training_flops(shape: Shape) -> int:
    """Returns the floating-point operations that a token of training takes: 41.7 million in preset `seed`."""
    from minigpt.model.accounting import flops_per_token

    return sum(flops_per_token(our_config(shape).model).values())


class Failed(Exception):
    """A process of its own that ended without a result; the message says why."""


def apart(script: str, *words: str, timeout: float | None = None) -> Any:
    """Runs a script in a process of its own, and returns the JSON that its last line of output is.

    Raises:
        Failed: if there is none, or not in time.
    """
    command = [sys.executable, script, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", errors="replace") as process:
        try:
            out, complaint = process.communicate(timeout=timeout)
        except BaseException as stop:  # too late, or Ctrl-C: its own children, such as compilers, must go with it
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            if isinstance(stop, subprocess.TimeoutExpired):
                raise Failed(f"not done after {timeout:.0f} s") from None
            raise
    if process.returncode == 0 and out.strip():
        return json.loads(out.strip().splitlines()[-1])
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    raise Failed(reason(lines) or f"exit code {process.returncode}")


def reason(lines: Sequence[str]) -> str:
    """Returns the line of a complaint that names the error: the last such one, else the last of all."""
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    return ([*lines, *named] or [""])[-1][:300]


def main_options(about: str | None, out: str) -> argparse.ArgumentParser:
    """Returns a parser with what all scripts take: --out, --tiny, --device."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for table, JSON and picture")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: to try the script out")
    return parser


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, padded so that it can be read as it stands; all columns but the first to the right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        fitted = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(fitted) + " |"

    rule = "|" + "|".join(("-" * (width + 1) + ":") if i else "-" * (width + 2) for i, width in enumerate(widths)) + "|"
    return "\n".join([line(heads), rule, *(line(row) for row in rows)])


def megabytes(size: float | None) -> str:
    """Returns bytes as whole megabytes (10^6), or a dash."""
    return "-" if size is None else f"{size / 1e6:,.0f}"


def describe(facts: dict[str, Any]) -> str:
    """Returns the machine in a line."""
    found = facts["environment"]
    rates = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in facts["rates"].items())
    where = found["gpu"] or f"{found['processor']}, {found['threads']} threads"
    return (
        f"{where}; {found['system']}, Python {found['python']}, torch {found['torch']}; "
        f"matrix products of {facts['size']}: {rates} GFLOP/s"
    )


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure with a light background that no window system has to do with."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure
