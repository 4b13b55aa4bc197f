"""The health of a model in one training step, module by module: what `health` records contain.

A probe costs about as much as a step on a thousand tokens, and changes nothing. minigpt/doctor/ interprets the figures.
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
from minigpt.model.eval_mode import eval_mode
from minigpt.model.hooks import Watcher, hooked
from minigpt.runtime import Runtime

PROBE_TOKENS = 1024
"""Tokens to observe hidden units and heads on: on few, a healthy unit may be inactive by chance."""

SAMPLED = 65_536
"""Weights of each parameter, evenly spaced, on which the update of a step is measured."""

INACTIVE = 1e-3
"""A hidden unit is dead if it never reaches this fraction of its layer's root mean square on the probe."""

SATURATED = 0.99
"""A head is saturated if its queries give this much of their attention to one token, on average."""


class HealthProbe:
    """Measures one step: made when its gradients are computed, read when they are applied.

    Args:
        model: the model, with unclipped gradients.
        probe: ids to observe units and heads on, (sequences, time), as `probe_ids` returns them.
        machine: where and in which precision it is trained.
    """

    def __init__(self, model: GPT, probe: np.ndarray[Any, Any], machine: Runtime) -> None:
        self.model = model
        self.parts = [{"module": name, **measured} for name, measured in self._by_module(_norms).items()]
        self.before = {name: _sample(parameter) for name, parameter in model.named_parameters()}
        dead, saturated = _probe(model, probe, machine)
        for part in self.parts:
            name = str(part["module"])
            if name in dead:
                part["dead_unit_ratio"] = dead[name]
            if name in saturated:
                part["saturated_head_ratio"] = saturated[name]

    def read(self) -> list[dict[str, Any]]:
        """Returns the figures of each module, after the optimizer's step: see minigpt/records.py."""
        updates = self._by_module(self._update)
        return [{**part, **updates[str(part["module"])]} for part in self.parts]

    def _by_module(self, measure: Any) -> dict[str, dict[str, float]]:
        members: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.model.named_parameters():
            members.setdefault(module_of(name), []).append((name, parameter))
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


def module_of(name: str) -> str:
    """Returns the module that a parameter belongs to: embedding, h.0.attn, h.0.mlp, ..., head.

    The norm before a layer counts with it, and the last norm with the head.
    """
    if match := re.match(r"(h\.\d+)\.(ln_1|attn|ln_2|mlp)", name):
        return f"{match[1]}.{'attn' if match[2] in ('ln_1', 'attn') else 'mlp'}"
    return "embedding" if name.startswith(("wte", "wpe")) else "head"


def _norms(parameters: list[tuple[str, nn.Parameter]]) -> dict[str, float]:
    """Returns the Euclidean norms of a module's gradient and weights."""
    gradients = [p.grad.norm() for _, p in parameters if p.grad is not None]
    weights = [p.norm() for _, p in parameters]
    return {
        "grad_norm": _rounded(float(torch.stack(gradients).norm()) if gradients else 0.0),
        "weight_norm": _rounded(float(torch.stack(weights).norm())),
    }


def probe_ids(batches: BatchLoader, step: int) -> np.ndarray[Any, Any]:
    """Returns sequences of the batches from a step on, without padding, that hold PROBE_TOKENS."""
    rows: list[np.ndarray[Any, Any]] = []
    wanted = -(-PROBE_TOKENS // batches.block_size)
    for ahead in range(wanted):
        batch: Batch = batches.batch(step + ahead)
        rows += list(batch.x[(batch.y != IGNORE_INDEX).all(axis=1)])
        if len(rows) >= wanted:
            break
    return np.stack(rows[:wanted] or [batches.batch(step).x[0]])[:, :PROBE_TOKENS]


def _sample(parameter: Tensor) -> Tensor:
    """Returns some of the weights, as a copy in float64 on the CPU, since not every GPU has float64."""
    flat = parameter.detach().flatten()
    return flat[:: -(-flat.numel() // SAMPLED)].float().cpu().double()


def _probe(model: GPT, probe: np.ndarray[Any, Any], machine: Runtime) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the fractions of dead hidden units and of saturated heads, by module, on the probe."""
    ids = torch.from_numpy(probe).to(machine.device)
    dead: dict[str, float] = {}
    saturated: dict[str, float] = {}

    def watch_units(part: str) -> Watcher:
        def watch(units: Tensor) -> None:
            units = units.float().flatten(0, -2)  # (batch * time, n_inner)
            silent = units.abs().amax(0) < INACTIVE * units.square().mean().sqrt()
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
    with eval_mode(model), machine.autocast(), hooked(model, watchers):
        model(ids, logits_to_keep=0)
    return dead, saturated


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
