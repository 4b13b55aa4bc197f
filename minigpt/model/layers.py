"""Building blocks of a GPT and their variants: norms, position encodings, feed-forward layers.

Each variant is a class and a line in the table below its group; the feed-forward layer of GPT-2 is in gpt.py. `kinds`
says what each parameter of a layer is; initialization, weight decay and Muon depend on it (`parameter_kinds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import GPTConfig
from minigpt.model.hooks import Point

Kind: TypeAlias = Literal["matrix", "embedding", "gain", "bias"]
"""A matrix between two layers, a table of vectors (or the head that mirrors it), a scale, or a shift."""


EPSILON = 1e-5
"""What both norms add before they divide, as in GPT-2 and Llama."""


class Linear(nn.Linear):
    """`nn.Linear`, with the kinds of its parameters."""

    kinds: ClassVar[Mapping[str, Kind]] = {"weight": "matrix", "bias": "bias"}


class OutputProjection(Linear):
    """The vocabulary head: one row per token, as in an embedding."""

    kinds: ClassVar[Mapping[str, Kind]] = {"weight": "embedding"}


class Embedding(nn.Embedding):
    """`nn.Embedding`, with the kind of its parameter."""

    kinds: ClassVar[Mapping[str, Kind]] = {"weight": "embedding"}


def parameter_kinds(model: nn.Module) -> dict[str, Kind]:
    """Returns the kind of each parameter by name; a shared parameter once, under its first name."""
    kinds = {
        f"{prefix}.{name}": kind
        for prefix, module in model.named_modules()
        for name, kind in getattr(module, "kinds", {}).items()
    }
    return {name: kinds[name] for name, _ in model.named_parameters()}


class LayerNorm(nn.Module):
    """Subtracts the mean, divides by the standard deviation, then scales and shifts (Ba et al. 2016)."""

    kinds: ClassVar[Mapping[str, Kind]] = {"weight": "gain", "bias": "bias"}

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (..., width) normalized over its last dimension."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, eps=EPSILON)


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, then scales: no mean, no shift (Zhang and Sennrich 2019)."""

    kinds: ClassVar[Mapping[str, Kind]] = {"weight": "gain"}

    def __init__(self, width: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (..., width) normalized over its last dimension."""
        return F.rms_norm(x, self.weight.shape, self.weight, eps=EPSILON)


NORMS = {
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
}


class LearnedPositions(nn.Module):
    """One learned vector for each of the `block_size` positions, added to the token's embedding (GPT-2)."""

    kinds: ClassVar[Mapping[str, Kind]] = {"weight": "embedding"}

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.block_size, config.n_embd))

    def forward(self, positions: Tensor) -> Tensor:
        """Returns the vectors (..., n_embd) of positions (...)."""
        return self.weight[positions]


class SinusoidalPositions(nn.Module):
    """Fixed sines and cosines of falling frequency, added to the embedding (Vaswani et al. 2017, section 3.5)."""

    waves: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        cos, sin = _waves(config.block_size, config.n_embd)
        # The paper's amplitude of 1 would drown embeddings with an initial standard deviation of 0.02.
        self.register_buffer("waves", 0.02 * torch.cat((sin, cos), dim=-1), persistent=False)  # (block_size, n_embd)

    def forward(self, positions: Tensor) -> Tensor:
        """Returns the vectors (..., n_embd) of positions (...)."""
        return self.waves[positions]


POSITION_EMBEDDINGS = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
}
"""Position encodings that are added to the token embedding."""


class RotaryPositions(nn.Module):
    """Rotates each query and key by angles proportional to its position (RoPE, Su et al. 2021).

    The product of a query and a key then depends on their distance, not on their absolute positions.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        for name, wave in zip(("cos", "sin"), _waves(config.block_size, config.head_dim), strict=True):
            self.register_buffer(name, wave, persistent=False)  # (block_size, head_dim / 2)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns queries or keys x with pairs of components rotated by the angles of their positions.

        Args:
            x: (batch, heads, time, head_dim).
            positions: (time), or (batch, time) if rows differ.
        """
        # (1 or batch, 1, time, head_dim / 2): the same for all heads
        cos, sin = (wave[positions].unsqueeze(-3).to(x.dtype) for wave in (self.cos, self.sin))
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


ROTARY = {
    "rope": RotaryPositions,
}
"""Position encodings that act on queries and keys inside attention. "none" is in neither table: the model infers order
from the causal mask alone (Kazemnejad et al. 2023)."""


def _waves(count: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines (count, width / 2) with wavelengths from 2 pi to 20,000 pi tokens."""
    exponent = torch.arange(0, width, 2, dtype=torch.float32) / width
    angles = torch.arange(count)[:, None].float() * 10_000.0**-exponent
    return angles.cos(), angles.sin()


class ReLU2MLP(nn.Module):
    """Two linear layers around a squared ReLU (So et al. 2021): cheaper than GELU, with many units exactly 0."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.n_inner, bias=config.bias)
        self.c_proj = Linear(config.n_inner, config.n_embd, bias=config.bias)
        self.hidden = Point()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's contribution to the residual stream, (batch, time, n_embd)."""
        return self.c_proj(self.hidden(F.relu(self.c_fc(x)).square()))


class SwiGLUMLP(nn.Module):
    """A linear layer gated by another, as in Llama (Shazeer 2020); three matrices instead of two."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_gate = Linear(config.n_embd, config.n_inner, bias=config.bias)
        self.c_fc = Linear(config.n_embd, config.n_inner, bias=config.bias)
        self.act = nn.SiLU()
        self.c_proj = Linear(config.n_inner, config.n_embd, bias=config.bias)
        self.hidden = Point()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's contribution to the residual stream, (batch, time, n_embd)."""
        return self.c_proj(self.hidden(self.act(self.c_gate(x)) * self.c_fc(x)))


MLPS = {
    "relu2": ReLU2MLP,
    "swiglu": SwiGLUMLP,
}
"""Feed-forward layers in addition to GPT-2's, which is in gpt.py."""
