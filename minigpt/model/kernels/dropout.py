"""Dropout (Srivastava et al. 2014), on a CPU with one 64-bit random number for several elements.

torch draws a random number per element, in one thread, which costs more than the layer before it (docs/log.md). Here a
64-bit number decides on four elements of bfloat16 or two of float32, and the decision goes straight into the bits of
the factor: no comparison, no conversion. GPUs draw fast enough, and compiled code draws its own numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Dropout(nn.Module):
    """Sets each element to 0 with probability `dropout` in training, and scales the rest up so that the mean stays."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Returns x, of any shape, after dropout."""
        if not self.training or not self.dropout:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.dropout)
        signs = dropout_bits(tuple(x.shape), x.dtype, self.dropout)
        up = torch.tensor(1 / (1 - self.dropout), dtype=x.dtype)
        # Spread over the whole number, the sign bit gives all ones where x is dropped; masking `up` gives the factor.
        dropped = signs.bitwise_right_shift_(8 * x.dtype.itemsize - 1)
        factor = dropped.bitwise_not_().bitwise_and_(up.view(signs.dtype)).view(x.dtype)  # 0 or up
        return x * factor


def dropout_bits(shape: tuple[int, ...], dtype: torch.dtype, dropout: float) -> Tensor:
    """Returns integers as wide as `dtype`, zero except for the sign bit, which is set with probability `dropout`.

    The probability is exact to 1/32,768 for bfloat16 and to 1/2^31 for float32.
    """
    integer = _INTEGERS[dtype.itemsize]
    count = torch.Size(shape).numel()
    words = torch.empty(-(-count * dtype.itemsize // 8), dtype=torch.int64)
    words.random_(-(2**63), None)  # the whole range; by default the top bit is always 0
    top = torch.iinfo(integer).max
    numbers = words.view(integer)[:count].view(shape).bitwise_and_(top)  # uniform from 0 to top
    return numbers.sub_(round(dropout * (top + 1))).bitwise_and_(-top - 1)
