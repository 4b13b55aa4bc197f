"""Models for generation: the same mathematics, with each layer in the form that runs fastest on this machine.

`for_inference` makes one: its matrices become the products of quantized_linear.py, and its other layers plain functions
without the bookkeeping of torch's modules, which would take a third of a small model's step. `choose_dtype` picks a
data type by measuring; `loss_change` shows what its rounding costs. The original model is not changed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.errors import ConfigError, DeviceError, did_you_mean
from minigpt.generation.cached_batch import CachedBatch
from minigpt.generation.quantized_linear import DTYPES, HEAD_DTYPES, SMALL
from minigpt.generation.row_invariant import MakeProduct, row_invariant_activation, row_invariant_product
from minigpt.model import GPT
from minigpt.model.hooks import Point
from minigpt.runtime import synchronise

MIN_SPEEDUP = 1.1
"""How many times as fast a smaller data type must be for its rounding to be worth it."""


_REPLACED = (nn.Linear, Point, nn.GELU, nn.SiLU)
"""Layers that functions take the place of; others are copied."""


@dataclass(frozen=True)
class DtypeChoice:
    """A model for generation, and why its weights have the data type they have.

    Attributes:
        model: what `for_inference` made.
        dtype: the data type, a key of `DTYPES`.
        reason: why this one, for people.
    """

    model: GPT
    dtype: str
    reason: str


def for_inference(model: GPT, dtype: str = "float32") -> GPT:
    """Returns a model that can only generate: no training, no hooks, no saving.

    Args:
        model: the model, or what this function made of one, which is returned as it is. Later changes to its weights
            do not reach all of the new one.
        dtype: a key of `DTYPES`, for all matrices that are not `SMALL`.

    Raises:
        ConfigError: if there is no such data type.
        DeviceError: if this machine cannot compute with it.
    """
    if dtype not in DTYPES:
        hint = did_you_mean(dtype, DTYPES)
        raise ConfigError("Unknown data type for weights", got=dtype, remedy=f"{hint}Choose {', '.join(DTYPES)}.")
    if "lm_head" not in dict(model.named_children()):  # it is a function already
        return model
    replaced = (module for module in model.modules() if isinstance(module, _REPLACED))
    shared: list[object] = [*model.parameters(), *replaced]  # need no copies
    fast = copy.deepcopy(model, {id(each): each for each in shared})
    for parent in list(fast.modules()):
        parent.training = parent.training and isinstance(parent, _REPLACED)  # those are the model's own
        for name, layer in list(parent.named_children()):
            if not list(layer.children()) and layer is not fast.wte:
                delattr(parent, name)
                setattr(parent, name, _as_function(layer, HEAD_DTYPES if name == "lm_head" else DTYPES, dtype))
    return fast


def _as_function(layer: nn.Module, dtypes: Mapping[str, MakeProduct], dtype: str) -> Any:
    """Returns a function that computes what a layer computes, large matrices in the data type."""
    if isinstance(layer, nn.Linear):
        make = dtypes[dtype if layer.weight.numel() >= SMALL else "float32"]
        return row_invariant_product(make, layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
    if isinstance(layer, Point):
        return _NotWatched()
    if isinstance(layer, nn.GELU | nn.SiLU):
        return row_invariant_activation(layer.forward)
    for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        delattr(layer, name)
        setattr(layer, name, tensor.detach())  # found without a search through the module's tables
    return layer.forward


class _NotWatched:
    """A `Point` that cannot be watched."""

    watched = False

    def __call__(self, x: Tensor) -> Tensor:
        return x


def choose_dtype(model: GPT, dtype: str = "auto", rows: int = 1) -> DtypeChoice:
    """Returns the model with the data type asked for, or with the fastest one for this many rows.

    `auto` times a few steps with each data type that this machine can use. A smaller one must be `MIN_SPEEDUP` times as
    fast as the larger.

    Raises:
        ConfigError, DeviceError: as `for_inference`.
    """
    if dtype != "auto":
        return DtypeChoice(for_inference(model, dtype), dtype, "as requested")
    models = {"float32": for_inference(model, "float32")}
    for name in ("bfloat16", "int8"):
        with suppress(DeviceError):
            models[name] = for_inference(model, name)
    best = dict.fromkeys(models, float("inf"))
    for _ in range(3):  # in turns, so that a burst of another program does not hit only one of them
        for name, each in models.items():
            best[name] = min(best[name], _step_seconds(each, rows))
    chosen = "float32"
    for name, seconds in best.items():
        chosen = name if seconds * MIN_SPEEDUP < best[chosen] else chosen
    times = ", ".join(f"{name} {1000 * seconds:.2f}" for name, seconds in best.items())
    return DtypeChoice(models[chosen], chosen, f"milliseconds per step: {times}")


@torch.inference_mode()
def loss_change(model: GPT, fast: GPT, ids: Sequence[int]) -> tuple[float, float]:
    """Returns the model's mean cross-entropy on a text, in nats, and how much higher that of its other form is.

    Args:
        model: the model.
        fast: what `for_inference` made of it.
        ids: at least two token ids; predicted in windows of block_size.
    """
    text = torch.tensor(ids, dtype=torch.long, device=model.wte.weight.device)
    size, sums = model.config.block_size, [0.0, 0.0]
    for start in range(0, len(ids) - 1, size):
        window = text[start : start + size + 1]
        for at, each in enumerate((model, fast)):
            logits = each(window[None, :-1])[0].float()  # (time, vocab_size)
            sums[at] += F.cross_entropy(logits, window[1:], reduction="sum").item()
    count = len(ids) - 1
    return sums[0] / count, (sums[1] - sums[0]) / count


@torch.inference_mode()
def _step_seconds(model: GPT, rows: int, steps: int = 4) -> float:
    """Returns the shortest time of a few decoding steps, after one to warm up."""
    batch = CachedBatch(model, rows, max_length=16)
    for _ in range(rows):
        batch.add([0])
    best = float("inf")
    for step in range(1 + steps):
        begun = time.perf_counter()
        batch.next_logits()
        synchronise(batch.device)
        best = min(best, time.perf_counter() - begun) if step else best
        batch.append([0] * rows)
    return best
