"""Matrix products for generation, with the weights in the data type and layout that can be read fastest.

Each new token needs every weight once, so reading them sets the speed. On a CPU, oneDNN reads a matrix packed into its
own layout two to five times as fast as torch reads the original, in float32 too; bfloat16 halves the bytes, int8 halves
them again.

To add a data type, write a function and add a line to `DTYPES`. inference_weights.py decides which one a model gets,
row_invariant.py with how many rows it is called.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.errors import DeviceError
from minigpt.generation.row_invariant import MakeProduct, Product

SMALL = 2**17
"""Matrices with fewer weights stay in the processor's cache: packing or rounding them would gain nothing."""


def float32(weight: Tensor, bias: Tensor | None) -> Product:
    """The exact weights."""
    if weight.device.type != "cpu":
        return lambda x: F.linear(x, weight, bias)
    # MKL's bits also depend on whether a row begins where memory is aligned to 16 bytes.
    if (weight.numel() >= SMALL or weight.size(1) % 4) and _packs(weight.dtype):
        return _packed(weight, bias)
    return _row_by_row(weight, bias)


def bfloat16(weight: Tensor, bias: Tensor | None) -> Product:
    """Weights and results rounded to 8 significant bits."""
    narrow, narrow_bias = weight.bfloat16(), None if bias is None else bias.bfloat16()
    if weight.device.type == "cpu" and _packs(torch.bfloat16):
        return _packed(narrow, narrow_bias)
    return lambda x: F.linear(x.bfloat16(), narrow, narrow_bias).to(x.dtype)


def int8(weight: Tensor, bias: Tensor | None) -> Product:
    """Weights rounded to integers up to 127, with a scale for each output; inputs and results rounded to bfloat16."""
    if not _multiplies_int8(weight.device.type):
        raise DeviceError(
            "This build of torch has no int8 product for the device",
            got=f"torch {torch.__version__}, {weight.device}",
            remedy="Use --dtype auto.",
        )
    # The scale is rounded before the weights are divided by it, so that its rounding adds no error of its own.
    scale = (weight.abs().amax(dim=1) / 127).bfloat16().clamp(min=1e-20)  # (n_out)
    narrow = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    missing = -weight.size(1) % 32  # the kernel reads whole blocks of 32 inputs
    narrow = F.pad(narrow, (0, missing))

    def product(x: Tensor) -> Tensor:
        inputs = F.pad(x.flatten(0, 1).bfloat16(), (0, missing))  # (rows * time, n_in)
        y = torch._weight_int8pack_mm(inputs, narrow, scale).to(x.dtype).unflatten(0, x.shape[:2])
        return y if bias is None else y + bias

    return product


def int8_head(weight: Tensor, bias: Tensor | None) -> Product:
    """Like `int8`, but on a CPU that multiplies bytes the inputs are rounded to 255 steps, and the results not at all.

    The product is then a sum of integers, for which there are special instructions. For the vocabulary head only, whose
    inputs a norm has evened out: elsewhere one large input would leave the others no digits (Dettmers et al. 2022).
    """
    if weight.device.type != "cpu" or not _multiplies_bytes():
        return int8(weight, bias)
    scale = weight.abs().amax(dim=1).clamp(min=1e-20) / 127  # (n_out)
    packed = torch.ops.onednn.qlinear_prepack((weight / scale[:, None]).round().to(torch.int8), None)
    multiply, zeros = torch.ops.onednn.qlinear_pointwise.default, torch.zeros(len(weight), dtype=torch.int32)
    least, middle = torch.tensor(1e-20), torch.tensor(128.5)  # with the half, truncation rounds

    def product(x: Tensor) -> Tensor:
        step = torch.add(least, x.abs().amax(dim=-1, keepdim=True), alpha=1 / 127)  # (rows, time, 1)
        inputs = torch.addcdiv(middle, x, step).to(torch.uint8)
        y = multiply(inputs, 1.0, 128, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], "").mul_(step)
        return y if bias is None else y.add_(bias)

    return product


DTYPES: dict[str, MakeProduct] = {
    "float32": float32,
    "bfloat16": bfloat16,
    "int8": int8,
}
"""The data types of a matrix."""

HEAD_DTYPES = DTYPES | {"int8": int8_head}
"""The data types of the vocabulary head."""


def _row_by_row(weight: Tensor, bias: Tensor | None) -> Product:
    one = weight.t()[None]  # (1, n_in, n_out)
    rest = weight.new_zeros(()) if bias is None else bias

    def product(x: Tensor) -> Tensor:
        rows, time, _ = x.shape
        if time > 1:  # several tokens of one text, always read alone
            return F.linear(x, weight, bias)
        return torch.baddbmm(
            rest, x, one if rows == 1 else one.expand(rows, -1, -1)
        )  # a product of its own for each row

    return product


def _packed(weight: Tensor, bias: Tensor | None) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    multiply, dtype = torch.ops.mkldnn._linear_pointwise.default, weight.dtype
    return lambda x: multiply(x.to(dtype), packed, bias, "none", [], "").to(x.dtype)


@lru_cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN is available and multiplies packed matrices of this data type."""
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


@lru_cache
def _multiplies_bytes() -> bool:
    """Whether oneDNN multiplies bytes here without overflow (which needs VNNI instructions)."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        packed = torch.ops.onednn.qlinear_prepack(torch.full((16, 512), 127, dtype=torch.int8), None)
        inputs, ones = torch.full((3, 512), 255, dtype=torch.uint8), torch.ones(16)
        zeros, wide = torch.zeros(16, dtype=torch.int32), torch.float32
        multiply = torch.ops.onednn.qlinear_pointwise.default
        y = multiply(inputs, 1.0, 0, packed, ones, zeros, None, 1.0, 0, wide, "none", [], "")
        return bool((y == 512 * 127 * 255).all())
    except (AttributeError, RuntimeError, TypeError):
        return False
