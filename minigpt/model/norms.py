"""Normalisation: brings each token's vector to a fixed scale, so that deep stacks stay trainable.

A new variant is a class and a line in `NORMS`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import GPTConfig


class LayerNorm(nn.Module):
    """Subtracts the mean, divides by the standard deviation, then scales and shifts (Ba et al. 2016)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.bias = nn.Parameter(torch.zeros(config.n_embd)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (..., n_embd) normalised over its last dimension."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, eps=1e-5)


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, then scales: no mean, no shift (Zhang and Sennrich 2019)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.n_embd))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (..., n_embd) normalised over its last dimension."""
        return F.rms_norm(x, self.weight.shape, self.weight, eps=1e-5)


NORMS = {
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
}
