"""The key/value cache: what attention has already computed for earlier tokens, kept so that it is computed once.

Generating one token at a time without it would run the whole text through the model for each new token. Here is the
room and the counting; which tokens to keep when a text grows past the context is the engine's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minigpt.config import GPTConfig


class KVCache:
    """The keys and values of every block, in room that is taken once. Each row has its own length: texts differ.

    Attributes:
        keys, values: (n_layer, capacity, kv heads, room, head_dim).
        lengths: how many tokens each row holds; there are as many rows as lengths.
    """

    def __init__(
        self, config: GPTConfig, rows: int, *, device: torch.device, dtype: torch.dtype, room: int | None = None
    ) -> None:
        """Makes `rows` empty rows with room for `room` tokens each: for `block_size` when it is left out."""
        room = -(-(room or config.block_size) // 16) * 16  # so that each row begins where a processor likes to read
        shape = (config.n_layer, rows, config.kv_heads, room, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = [0] * rows

    def positions(self, time: int) -> Tensor:
        """Returns where the next `time` tokens of each row stand, (rows, time)."""
        places = [range(length, length + time) for length in self.lengths]
        return torch.tensor([list(row) for row in places], device=self.keys.device)

    def extend(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values (rows, kv heads, time, head_dim) of one block, and returns all there are.

        What is returned reaches as far as the longest row: (rows, kv heads, keys, head_dim). A shorter row ends with
        what is left in its room. `lengths` grow only with `advance`, after every block has stored its own.

        Args:
            positions: what `positions` returned for these tokens.
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
        """Counts `time` new tokens in each row as stored."""
        self.lengths = [length + time for length in self.lengths]

    def empty_row(self, row: int) -> KVCache:
        """Returns a cache of this one row, empty, in the same memory: what is stored in it is in that row.

        The row's own length is left to the caller.
        """
        part = object.__new__(KVCache)
        part.keys, part.values = self.keys[:, row : row + 1], self.values[:, row : row + 1]
        part.lengths = [0]
        return part

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order. One may come several times, as far as the capacity goes."""
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if moved:
            places, sources = (list(part) for part in zip(*moved, strict=True))
            longest = max(self.lengths[row] for row in sources)
            for memory in (self.keys, self.values):
                memory[:, places, :, :longest] = memory[:, sources, :, :longest]
        self.lengths = [self.lengths[row] for row in rows]
