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
        """Returns the embeddings x (batch, time, n_embd) of the tokens at `positions`, told where they are.

        Args:
            positions: (time), or (batch, time) where the rows differ.
        """
        return x

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns queries or keys x (batch, heads, time, head_dim), likewise."""
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

    waves: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        cos, sin = _waves(config.block_size, config.n_embd)
        # The paper's amplitude of 1 would drown embeddings that begin at a standard deviation of 0.02.
        self.register_buffer("waves", 0.02 * torch.cat((sin, cos), dim=-1), persistent=False)  # (block_size, n_embd)

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns x plus the wave of each position."""
        return x + self.waves[positions].to(x.dtype)


class RotaryPositions(Positions):
    """Turns each query and key by an angle that grows with its position (RoPE, Su et al. 2021).

    The product of a query and a key then depends on how far apart they stand, not on where.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        for name, wave in zip(("cos", "sin"), _waves(config.block_size, config.head_dim), strict=True):
            self.register_buffer(name, wave, persistent=False)  # (block_size, head_dim / 2)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns x with its pairs of numbers turned by the angles of each position."""
        # (1 or batch, 1, time, head_dim / 2): alike for all heads
        cos, sin = (wave[positions].unsqueeze(-3).to(x.dtype) for wave in (self.cos, self.sin))
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def _waves(count: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines (count, width / 2) with wavelengths from 2 pi to 20,000 pi tokens."""
    exponent = torch.arange(0, width, 2, dtype=torch.float32) / width
    angles = torch.arange(count)[:, None].float() * 10_000.0**-exponent
    return angles.cos(), angles.sin()


POSITIONS = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rope": RotaryPositions,
    "none": Positions,
}
