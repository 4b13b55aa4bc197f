"""Models for generation: the same mathematics, with every layer in the form in which it runs quickest here.

`for_inference` makes one: its matrices are those of quantized_linear.py, and torch's bookkeeping around each call of
a layer is
left out, which would take a third of a small model's step. `choose_dtype` decides on a form by measuring, and
`loss_change`
tells what its rounding costs. The model that comes in is left as it is.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.errors import ConfigError, DeviceError, did_you_mean
from minigpt.generation.decoder import Decoder
from minigpt.generation.quantized_linear import HEADS, KINDS, SMALL, float32
from minigpt.generation.row_invariant import Form, is_row_invariant, row_invariant
from minigpt.model import GPT
from minigpt.model.hooks import Point
from minigpt.runtime import synchronise

GAIN = 1.1
"""How many times as fast a narrower form must make a step for its rounding to be worth it."""


@dataclass(frozen=True)
class DtypeChoice:
    """A model for generation, and why its weights have the form they have.

    Attributes:
        model: what `for_inference` made.
        kind: the form, a key of `KINDS`.
        reason: why this one, for people.
    """

    model: GPT
    kind: str
    reason: str


def for_inference(model: GPT, kind: str) -> GPT:
    """Returns a model that can generate and nothing else: no training, no hooks, no saving.

    Args:
        model: the model; left as it is. Later changes to its weights do not reach all of the new one.
        kind: a key of `KINDS`, for all matrices that are not `SMALL`.

    Raises:
        ConfigError: if there is no such kind.
        DeviceError: if this machine cannot compute with it.
    """
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise ConfigError("There is no such form of weights", got=kind, remedy=f"{hint}Choose {', '.join(KINDS)}.")
    fixed = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})  # shares those
    for parent in fixed.eval().modules():
        for name, tensor in parent.named_parameters(recurse=False):
            parent.__dict__[name] = tensor.detach()
        for name, layer in parent.named_children():
            # An entry here goes before the module of the same name, which stays behind it.
            parent.__dict__[name] = _as_function(layer, (HEADS if parent is fixed else KINDS)[kind])
    return fixed


def ready(model: GPT) -> GPT:
    """Returns the model if `for_inference` made it, else what that makes of it in float32."""
    return for_inference(model, "float32") if isinstance(model.lm_head, nn.Linear) else model


def _as_function(layer: nn.Module, form: Form) -> Any:
    """Returns what computes the same as a layer, with a large matrix in that form, without torch's bookkeeping."""
    if isinstance(layer, nn.Linear):
        form = form if layer.weight.numel() >= SMALL else float32
        return is_row_invariant(form, layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
    if isinstance(layer, nn.GELU | nn.SiLU):
        return row_invariant(layer.forward)
    if isinstance(layer, nn.ModuleList):
        return tuple(part.forward for part in layer)
    return _Unwatched() if isinstance(layer, Point) else layer.forward


class _Unwatched:
    """A `Point` that nobody can watch."""

    watched = False

    def __call__(self, x: Tensor) -> Tensor:
        return x


def choose_dtype(model: GPT, kind: str = "auto", rows: int = 1) -> DtypeChoice:
    """Returns the model with the weights asked for, or with those that are quickest here for so many rows.

    `auto` measures a few steps with each form that this machine has. A narrower one must gain (`GAIN`) over the wider.

    Raises:
        ConfigError, DeviceError: as `for_inference`.
    """
    if kind != "auto":
        return DtypeChoice(for_inference(model, kind), kind, "as asked for")
    models = {"float32": for_inference(model, "float32")}
    for name in ("bfloat16", "int8"):
        with suppress(DeviceError):
            models[name] = for_inference(model, name)
    best = dict.fromkeys(models, float("inf"))
    for _ in range(3):  # in turns, so that another program's burst does not hit one of them alone
        for name, each in models.items():
            best[name] = min(best[name], _step_seconds(each, rows))
    chosen = "float32"
    for name, seconds in best.items():
        chosen = name if seconds * GAIN < best[chosen] else chosen
    times = ", ".join(f"{name} {1000 * seconds:.2f}" for name, seconds in best.items())
    return DtypeChoice(models[chosen], chosen, f"milliseconds a step: {times}")


@torch.inference_mode()
def loss_change(model: GPT, fixed: GPT, ids: Sequence[int]) -> tuple[float, float]:
    """Returns the model's mean cross-entropy on a text, in nats, and by how much that of its other form is higher.

    Args:
        model: the model.
        fixed: what `for_inference` made of it.
        ids: at least two token ids; predicted in windows of block_size.
    """
    text = torch.tensor(ids, dtype=torch.long, device=next(model.parameters()).device)
    size, sums = model.config.block_size, [0.0, 0.0]
    for start in range(0, len(ids) - 1, size):
        window = text[start : start + size + 1]
        for at, each in enumerate((model, fixed)):
            logits = each(window[None, :-1])[0].float()  # (time, vocab_size)
            sums[at] += F.cross_entropy(logits, window[1:], reduction="sum").item()
    count = len(ids) - 1
    return sums[0] / count, (sums[1] - sums[0]) / count


@torch.inference_mode()
def _step_seconds(model: GPT, rows: int, steps: int = 4) -> float:
    """Returns the best time of a few steps of decoding, after one to warm up."""
    decoder = Decoder(model, rows, longest=16)
    for _ in range(rows):
        decoder.add([0])
    best = float("inf")
    for step in range(1 + steps):
        begun = time.perf_counter()
        decoder.next_logits()
        synchronise(decoder.device)
        best = min(best, time.perf_counter() - begun) if step else best
        decoder.append([0] * rows)
    return best
