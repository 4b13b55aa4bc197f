"""Where a token stands in the text. Attention itself sees a set, not a sequence; these classes give it the order.

A variant acts at one of two places: `add` changes the embeddings before the first block, `rotate` turns queries and
keys inside every attention. A new variant is a class and a line in `POSITIONS`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minigpt.config import GPTConfig


class Positions(nn.Module):
    """No positions: the order is left to what the causal mask gives away (Kazemnejad et al. 2023).

    The variants below replace one of the two methods.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns the embeddings x (batch, time, n_embd) of the tokens at `positions` (time), told where they are."""
        return x

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns queries or keys x (batch, heads, time, head_dim) of the tokens at `positions` (time), likewise."""
        return x


class LearnedPositions(Positions):
    """One learned vector for each of the `block_size` positions, added to the embedding (GPT-2)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.empty(config.block_size, config.n_embd))

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns x plus the vector of each position."""
        return x + self.weight[positions]


class SinusoidalPositions(Positions):
    """Fixed sines and cosines of falling frequency, added to the embedding (Vaswani et al. 2017, section 3.5)."""

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns x plus the wave of each position."""
        cos, sin = _waves(positions, x.size(-1))  # (time, n_embd / 2)
        # The paper's amplitude of 1 would drown embeddings that begin at a standard deviation of 0.02.
        return x + 0.02 * torch.cat((sin, cos), dim=-1).to(x.dtype)


class RotaryPositions(Positions):
    """Turns each query and key by an angle that grows with its position (RoPE, Su et al. 2021).

    The product of a query and a key then depends on how far apart they stand, not on where.
    """

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns x with its pairs of numbers turned by the angles of each position."""
        cos, sin = (wave.to(x.dtype) for wave in _waves(positions, x.size(-1)))  # (time, head_dim / 2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def _waves(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines (time, width / 2) with wavelengths from 2 pi to 20,000 pi tokens."""
    exponent = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angles = positions[:, None].float() * 10_000.0**-exponent
    return angles.cos(), angles.sin()


POSITIONS = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rope": RotaryPositions,
    "none": Positions,
}
