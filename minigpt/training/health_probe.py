"""How a model is doing inside, part by part, in one step of its training: what `health` records tell.

A look costs about as much as a step of the body on a thousand tokens, and changes nothing. What its figures mean is
decided in minigpt/doctor/.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minigpt.config import IGNORE_INDEX
from minigpt.data import Batch, BatchLoader
from minigpt.model import GPT
from minigpt.model.hooks import Watcher, hooked
from minigpt.runtime import Runtime

PROBE_TOKENS = 1024
"""The hidden units and heads are watched on so many tokens: on few, a healthy unit may be silent by chance."""

SAMPLED = 65_536
"""So many weights of each parameter, evenly spaced, stand for all when the change of a step is measured."""

SILENT = 1e-3
"""A hidden unit is dead if it never comes to this share of its layer's root mean square on the probe."""

SATURATED = 0.99
"""A head is saturated if its queries give this share of their weight to one token, on average."""


class HealthProbe:
    """A look at one step: made when its gradients are there, read when they are applied.

    Args:
        model: the model, with unclipped gradients.
        probe: ids to watch units and heads on, (sequences, time); `probe_ids` gives some.
        machine: where and in which precision it is trained.
    """

    def __init__(self, model: GPT, probe: np.ndarray[Any, Any], machine: Runtime) -> None:
        self.model = model
        self.parts = [{"module": name, **measured} for name, measured in self._by_part(_norms).items()]
        self.before = {name: _sample(parameter) for name, parameter in model.named_parameters()}
        dead, saturated = _probe(model, probe, machine)
        for part in self.parts:
            name = str(part["module"])
            if name in dead:
                part["dead_unit_ratio"] = dead[name]
            if name in saturated:
                part["saturated_head_ratio"] = saturated[name]

    def read(self) -> list[dict[str, Any]]:
        """Returns each part's figures, after the optimizer's step: see minigpt/records.py."""
        updates = self._by_part(self._update)
        return [{**part, **updates[str(part["module"])]} for part in self.parts]

    def _by_part(self, measure: Any) -> dict[str, dict[str, float]]:
        members: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.model.named_parameters():
            members.setdefault(part_of(name), []).append((name, parameter))
        with torch.no_grad():
            return {part: measure(parameters) for part, parameters in members.items()}

    def _update(self, parameters: list[tuple[str, nn.Parameter]]) -> dict[str, float]:
        changes, sizes = [], []
        for name, parameter in parameters:
            was, now = self.before[name], _sample(parameter)
            share = parameter.numel() / was.numel()  # of each sampled weight, in the whole
            changes.append((now - was).square().sum() * share)
            sizes.append(was.square().sum() * share)
        size = float(torch.stack(sizes).sum())
        return {"update_ratio": _rounded(math.sqrt(float(torch.stack(changes).sum()) / size) if size else 0.0)}


def part_of(name: str) -> str:
    """Returns the part that a parameter belongs to: embedding, h.0.attn, h.0.mlp, ..., head.

    The norm before a layer counts with it, and the last norm with the head.
    """
    if match := re.match(r"(h\.\d+)\.(ln_1|attn|ln_2|mlp)", name):
        return f"{match[1]}.{'attn' if match[2] in ('ln_1', 'attn') else 'mlp'}"
    return "embedding" if name.startswith(("wte", "wpe")) else "head"


def _norms(parameters: list[tuple[str, nn.Parameter]]) -> dict[str, float]:
    """Returns the Euclidean norms of a part's gradient and weights."""
    gradients = [p.grad.norm() for _, p in parameters if p.grad is not None]
    weights = [p.norm() for _, p in parameters]
    return {
        "grad_norm": _rounded(float(torch.stack(gradients).norm()) if gradients else 0.0),
        "weight_norm": _rounded(float(torch.stack(weights).norm())),
    }


def probe_ids(batches: BatchLoader, step: int) -> np.ndarray[Any, Any]:
    """Returns sequences of the batches from a step on, so many that they hold PROBE_TOKENS; none with padding."""
    rows: list[np.ndarray[Any, Any]] = []
    wanted = -(-PROBE_TOKENS // batches.block_size)
    for ahead in range(wanted):
        batch: Batch = batches.batch(step + ahead)
        rows += list(batch.x[(batch.y != IGNORE_INDEX).all(axis=1)])
        if len(rows) >= wanted:
            break
    return np.stack(rows[:wanted] or [batches.batch(step).x[0]])[:, :PROBE_TOKENS]


def _sample(parameter: Tensor) -> Tensor:
    """Returns some of the weights, as a copy in float64, which not every GPU knows."""
    flat = parameter.detach().flatten()
    return flat[:: -(-flat.numel() // SAMPLED)].float().cpu().double()


def _probe(model: GPT, probe: np.ndarray[Any, Any], machine: Runtime) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the shares of dead hidden units and of saturated heads, by part, on the probe."""
    ids = torch.from_numpy(probe).to(machine.device)
    dead: dict[str, float] = {}
    saturated: dict[str, float] = {}

    def watch_units(part: str) -> Watcher:
        def watch(units: Tensor) -> None:
            units = units.float().flatten(0, -2)  # (batch * time, n_inner)
            silent = units.abs().amax(0) < SILENT * units.square().mean().sqrt()
            dead[part] = _rounded(float(silent.float().mean()))

        return watch

    def watch_heads(part: str) -> Watcher:
        def watch(pattern: Tensor) -> None:
            most = pattern.float().amax(-1)  # (batch, heads, time)
            late = most[..., most.size(-1) // 2 :]  # early queries have few tokens to choose from
            saturated[part] = _rounded(float((late.mean((0, 2)) > SATURATED).float().mean()))

        return watch

    watchers: dict[str, Watcher] = {}
    for layer in range(model.config.n_layer):
        attention, mlp = f"h.{layer}.attn", f"h.{layer}.mlp"
        watchers |= {f"{attention}.pattern": watch_heads(attention), f"{mlp}.hidden": watch_units(mlp)}
    was_training = model.training
    try:
        with torch.no_grad(), machine.autocast(), hooked(model, watchers):
            model.eval()(ids, logits_to_keep=0)
    finally:
        model.train(was_training)
    return dead, saturated


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
