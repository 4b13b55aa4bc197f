"""The key/value cache: what attention has already computed for earlier tokens, kept so that it is computed once.

Generating one token at a time without it would run the whole text through the model for each new token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minigpt.config import GPTConfig


class KVCache:
    """Room for the keys and values of every block, for `block_size` tokens, taken once.

    Attributes:
        keys, values: (n_layer, batch, n_head, block_size, head_dim).
        length: how many tokens are in it.
    """

    def __init__(self, config: GPTConfig, batch: int, *, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, batch, config.n_head, config.block_size, config.head_dim)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values (batch, heads, new, head_dim) of one block, and returns all there are.

        `length` grows only with `advance`, after every block has stored its own.
        """
        end = self.length + k.size(2)
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, count: int) -> None:
        """Counts `count` new tokens as stored."""
        self.length += count

    def clear(self) -> None:
        """Forgets everything; the room stays."""
        self.length = 0
