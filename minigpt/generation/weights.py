"""Weights for generation: the same model with its matrices kept in the form that is quickest to read.

A new token needs every weight once, so its pace is that of reading them. On a CPU, oneDNN reads a matrix that has been
packed into its own layout two to five times as fast as torch reads the original, in float32 too; bfloat16 halves the
bytes, int8 halves them again. The residual stream, attention and all sums stay in float32.

On a CPU all products here have a second virtue: what they give for one row does not depend on how many others there
are, to the last bit. torch's usual ones choose their order of summing by the number of rows, and a difference in the
last bit can turn a choice.

`choose` decides by measuring, `with_weights` converts, `loss_change` tells what it costs. The model that comes in is
left as it is.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.device import synchronise
from minigpt.errors import ConfigError, DeviceError, did_you_mean
from minigpt.model import GPT, KVCache

Product: TypeAlias = Callable[[Tensor], Tensor]
"""x (rows, time, n_in) to W x + b (rows, time, n_out), both in the residual stream's type."""

SMALL = 2**17
"""Matrices with fewer weights stay in the processor's cache, so packing and narrowing gain nothing: they stay as is."""

GAIN = 1.15
"""How many times as fast a narrower form must make a step for its rounding to be worth it."""


@dataclass(frozen=True)
class Choice:
    """A model for generation, and why its weights have the form they have.

    Attributes:
        model: what `with_weights` made.
        kind: the form, a key of `KINDS`.
        reason: why this one, for people.
    """

    model: GPT
    kind: str
    reason: str


def float32(weight: Tensor, bias: Tensor | None) -> Product:
    """The weights as they are."""
    if weight.device.type != "cpu":
        return lambda x: F.linear(x, weight, bias)
    # MKL's bits also depend on whether a row begins where memory is aligned to 16 bytes.
    if (weight.numel() >= SMALL or weight.size(1) % 4) and _packs(weight.dtype):
        return _packed(weight, bias)
    return _row_by_row(weight, bias)


def bfloat16(weight: Tensor, bias: Tensor | None) -> Product:
    """The weights rounded to 8 significant bits; the product's result too."""
    narrow, narrow_bias = weight.bfloat16(), None if bias is None else bias.bfloat16()
    if weight.device.type == "cpu" and _packs(torch.bfloat16):
        return _packed(narrow, narrow_bias)
    return lambda x: F.linear(x.bfloat16(), narrow, narrow_bias).to(x.dtype)


def int8(weight: Tensor, bias: Tensor | None) -> Product:
    """The weights rounded to whole numbers up to 127, with a scale for each output; inputs and results in bfloat16."""
    if not _multiplies_int8(weight.device.type):
        raise DeviceError(
            "int8 weights cannot be used here", seen=f"torch {torch.__version__} on {weight.device}", remedy="Try auto."
        )
    # The scale is rounded before it is used, so that what is left of its own rounding is in the weights' rounding.
    scale = (weight.abs().amax(dim=1) / 127).bfloat16().clamp(min=1e-20)  # (n_out)
    narrow = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    missing = -weight.size(1) % 32  # the kernel reads whole blocks of inputs, and does not look where they end
    narrow = F.pad(narrow, (0, missing))

    def product(x: Tensor) -> Tensor:
        inputs = F.pad(x.flatten(0, 1).bfloat16(), (0, missing))  # (rows * time, n_in)
        y = torch._weight_int8pack_mm(inputs, narrow, scale).to(x.dtype)
        return (y if bias is None else y + bias).unflatten(0, x.shape[:2])

    return product


KINDS: dict[str, Callable[[Tensor, Tensor | None], Product]] = {
    "float32": float32,
    "bfloat16": bfloat16,
    "int8": int8,
}


class FixedLinear(nn.Module):
    """A linear layer whose weights are ready for one form of product, and for nothing else."""

    def __init__(self, product: Product) -> None:
        super().__init__()
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's output, (rows, time, n_out)."""
        return self.product(x)


class SteadyActivation(nn.Module):
    """An activation that gives each row the bits which it gives that row alone.

    A CPU takes 32 numbers at once, and what is left over at the end of a thread's share goes through other code, whose
    last bits differ. With several rows, that end may lie elsewhere than with one.
    """

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Returns act(x) for x (rows, time, n_hidden)."""
        nothing_left_over = x.size(2) % 32 == 0 and x.numel() <= 2**14  # above, threads share the work
        if len(x) == 1 or nothing_left_over:
            return self.act(x)
        return torch.cat([self.act(row) for row in x.split(1)])


def with_weights(model: GPT, kind: str) -> GPT:
    """Returns a model for generation only, which shares everything but its matrices with the one given.

    Args:
        model: the model; left as it is. Later changes to its weights do not reach the new one.
        kind: a key of `KINDS`, for all matrices that are not `SMALL`.

    Raises:
        ConfigError: if there is no such kind.
        DeviceError: if this machine cannot compute with it.
    """
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise ConfigError("There is no such form of weights", seen=kind, remedy=f"{hint}Choose {', '.join(KINDS)}.")
    fixed = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})  # shares those
    with torch.no_grad():
        for parent in list(fixed.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, nn.Linear):
                    make = KINDS[kind] if layer.weight.numel() >= SMALL else float32
                    setattr(parent, name, FixedLinear(make(layer.weight.detach(), layer.bias)))
                elif isinstance(layer, nn.GELU | nn.SiLU) and fixed.wte.weight.device.type == "cpu":
                    setattr(parent, name, SteadyActivation(layer))
    return fixed.eval()


def choose(model: GPT, kind: str = "auto", rows: int = 1) -> Choice:
    """Returns the model with the weights asked for, or with those that are quickest here for so many rows.

    `auto` measures a few steps with each form that this machine has. A narrower one must gain (`GAIN`) over the wider.

    Raises:
        ConfigError, DeviceError: as `with_weights`.
    """
    if kind != "auto":
        return Choice(with_weights(model, kind), kind, "as asked for")
    models = {"float32": with_weights(model, "float32")}
    for name in ("bfloat16", "int8"):
        with suppress(DeviceError):
            models[name] = with_weights(model, name)
    best = dict.fromkeys(models, float("inf"))
    for _ in range(3):  # in turns, so that another program's burst does not hit one of them alone
        for name, each in models.items():
            best[name] = min(best[name], _step_seconds(each, rows))
    chosen = "float32"
    for name, seconds in best.items():
        chosen = name if seconds * GAIN < best[chosen] else chosen
    times = ", ".join(f"{name} {1000 * seconds:.2f}" for name, seconds in best.items())
    return Choice(models[chosen], chosen, f"milliseconds a step: {times}")


@torch.inference_mode()
def loss_change(model: GPT, fixed: GPT, ids: Sequence[int]) -> tuple[float, float]:
    """Returns the model's mean cross-entropy on a text, in nats, and by how much that of its other form is higher.

    Args:
        model: the model.
        fixed: what `with_weights` made of it.
        ids: at least two token ids; predicted in windows of block_size.
    """
    text = torch.tensor(ids, dtype=torch.long, device=model.wte.weight.device)
    size, sums = model.config.block_size, [0.0, 0.0]
    for start in range(0, len(ids) - 1, size):
        window = text[start : start + size + 1]
        for at, each in enumerate((model, fixed)):
            logits = each(window[None, :-1])[0].float()  # (time, vocab_size)
            sums[at] += F.cross_entropy(logits, window[1:], reduction="sum").item()
    count = len(ids) - 1
    return sums[0] / count, (sums[1] - sums[0]) / count


def _row_by_row(weight: Tensor, bias: Tensor | None) -> Product:
    transposed = weight.t()
    rest = weight.new_zeros(()) if bias is None else bias

    def product(x: Tensor) -> Tensor:
        if x.size(1) > 1:  # several tokens of one text, always read alone
            return F.linear(x, weight, bias)
        return torch.baddbmm(rest, x, transposed.expand(len(x), -1, -1))  # (rows, 1, n_out): a small product each

    return product


def _packed(weight: Tensor, bias: Tensor | None) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    multiply, dtype = torch.ops.mkldnn._linear_pointwise.default, weight.dtype
    # A lone row of more than 1,024 inputs would be summed in another order than several: it goes in twice.
    doubled = weight.size(1) > 1024

    def product(x: Tensor) -> Tensor:
        narrow = x.to(dtype)
        if doubled and x.size(0) == x.size(1) == 1:
            return multiply(torch.cat((narrow, narrow)), packed, bias, "none", [], "")[:1].to(x.dtype)
        return multiply(narrow, packed, bias, "none", [], "").to(x.dtype)

    return product


@lru_cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and multiplies packed matrices of this type."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        eye = torch.eye(16, dtype=dtype)
        return torch.equal(_packed(eye, None)(eye[None])[0], eye)
    except (AttributeError, RuntimeError, TypeError):
        return False


@lru_cache
def _multiplies_int8(device: str) -> bool:
    """Whether torch has a product with int8 weights for this device."""
    try:
        eye = torch.eye(32, dtype=torch.bfloat16, device=device)
        one = torch.ones(32, dtype=torch.bfloat16, device=device)
        return torch.equal(torch._weight_int8pack_mm(eye, eye.to(torch.int8), one), eye)
    except (AttributeError, RuntimeError, TypeError):
        return False


@torch.inference_mode()
def _step_seconds(model: GPT, rows: int, steps: int = 4) -> float:
    """Returns the best time of a few steps of decoding, after one to warm up."""
    ids = torch.zeros(rows, 1, dtype=torch.long, device=model.wte.weight.device)
    cache = KVCache(model.config, rows, device=ids.device, dtype=model.wte.weight.dtype, room=16)
    best = float("inf")
    for step in range(1 + steps):
        cache.lengths = [0] * rows
        begun = time.perf_counter()
        model(ids, cache)
        synchronise(ids.device)
        best = min(best, time.perf_counter() - begun) if step else best
    return best
