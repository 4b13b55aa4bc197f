"""The key/value cache: keys and values of earlier tokens, kept so that each is computed only once.

Without it, generating a token would run the whole text through the model again. This module stores and counts; which
tokens to keep when a text outgrows the context is up to the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minigpt.config import GPTConfig


class KVCache:
    """Keys and values of every block, in memory allocated once. Each row has its own length.

    Attributes:
        keys, values: (n_layer, capacity, kv heads, room, head_dim).
        lengths: number of tokens in each row; there are as many rows as lengths.
    """

    def __init__(
        self, config: GPTConfig, rows: int, *, device: torch.device, dtype: torch.dtype, room: int | None = None
    ) -> None:
        """Allocates `rows` empty rows with room for `room` tokens each, by default `block_size`."""
        room = -(-(room or config.block_size) // 16) * 16  # keeps rows aligned
        shape = (config.n_layer, rows, config.kv_heads, room, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = [0] * rows

    def positions(self, time: int) -> Tensor:
        """Returns the positions of the next `time` tokens of each row, (rows, time)."""
        places = [range(length, length + time) for length in self.lengths]
        return torch.tensor([list(row) for row in places], device=self.keys.device)

    def extend(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values of one block, (rows, kv heads, time, head_dim), and returns all stored so far.

        The result is as long as the longest row, (rows, kv heads, keys, head_dim); shorter rows end with stale values.
        `lengths` grow only with `advance`, after every block has stored its own.

        Args:
            positions: the result of `positions` for these tokens.
        """
        rows, start, time = len(self.lengths), max(self.lengths), k.size(2)
        keys, values = self.keys[layer, :rows], self.values[layer, :rows]  # (rows, heads, room, head_dim)
        if min(self.lengths) == start:
            keys[:, :, start : start + time] = k
            values[:, :, start : start + time] = v
        else:
            row = torch.arange(rows, device=k.device)[:, None]
            keys[row, :, positions] = k.transpose(1, 2)  # (rows, time, heads, head_dim)
            values[row, :, positions] = v.transpose(1, 2)
        return keys[:, :, : start + time], values[:, :, : start + time]

    def advance(self, time: int) -> None:
        """Adds `time` to the length of each row."""
        self.lengths = [length + time for length in self.lengths]

    def empty_row(self, row: int) -> KVCache:
        """Returns an empty cache of one row that shares the memory of `row`.

        The caller sets the row's length here.
        """
        part = object.__new__(KVCache)
        part.keys, part.values = self.keys[:, row : row + 1], self.values[:, row : row + 1]
        part.lengths = [0]
        return part

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order. A row may be repeated, up to the capacity."""
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if moved:
            places, sources = (list(part) for part in zip(*moved, strict=True))
            longest = max(self.lengths[row] for row in sources)
            for memory in (self.keys, self.values):
                memory[:, places, :, :longest] = memory[:, sources, :, :longest]
        self.lengths = [self.lengths[row] for row in rows]
