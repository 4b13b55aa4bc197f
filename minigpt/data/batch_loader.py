"""Tokens to (x, y): which batch comes at which step, as a function and not as a state.

The tokens are cut into sequences of `block_size`; y is x moved by one, so every token but the very first is a
target exactly once. What an epoch goes through in which order follows from (seed, epoch) by a permutation
that needs no memory. A resumed run, another number of processes, or a look at step 1,000,000 therefore see
the very same batches, and there is no position to save besides the step.

Not here: moving arrays to a device. The arrays are numpy's; `torch.from_numpy` takes them without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minigpt.config import IGNORE_INDEX
from minigpt.data.permutation import Permutation
from minigpt.data.token_file import TokenFile, Tokens
from minigpt.errors import ConfigError, DataError
from minigpt.text_utils import pluralize

Ints = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Inputs and targets.

    Attributes:
        x: token ids, int64, shape (batch, block_size); 0 where the sequence is over.
        y: the id that follows each of x, int64, shape (batch, block_size); IGNORE_INDEX where there is none.
    """

    x: Ints
    y: Ints


class BatchLoader:
    """The batches of a split, at random by step or all in order.

    Args:
        data: a shard, or ids of shape (n_tokens,). A shard brings its seams: targets across them are left
        out. block_size: the length of a sequence, at least 1. batch_size: the sequences of a whole batch,
        over all ranks, at least 1. seed: decides the order.

    Attributes:
        n_sequences: ceil((n_tokens - 1) / block_size); the last one may be padded.
        steps_per_epoch: ceil(n_sequences / batch_size); the last batch may hold empty rows.

    Raises:
        ConfigError: block_size or batch_size is not positive.
        DataError: there are fewer than two tokens, so nothing to predict.
    """

    def __init__(self, data: TokenFile | Tokens, block_size: int, batch_size: int, seed: int = 0) -> None:
        for name, value in (("block size", block_size), ("batch size", batch_size)):
            if value < 1:
                raise ConfigError(f"The {name} must be positive", got=value, remedy="Set it to 1 or more.")
        self._data = data
        self._state = data.state if isinstance(data, TokenFile) else None
        self.tokens, self._seam = (data.tokens, data.segment_length) if isinstance(data, TokenFile) else (data, 0)
        self.n_tokens = len(self.tokens)
        if self.n_tokens < 2:
            raise DataError(
                "A split needs at least two tokens, one to predict from and one to predict",
                got=self.n_tokens,
                remedy="Prepare more text.",
            )
        self.block_size, self.batch_size, self.seed = block_size, batch_size, seed
        self.n_sequences = -(-(self.n_tokens - 1) // block_size)
        self.steps_per_epoch = -(-self.n_sequences // batch_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The batch of a training step: a pure function of (seed, step, rank).

        Args:
            step: counted from 0 over all epochs.
            rank: which process asks; the ranks' rows, one after the other, are the batch of a single process.
            world_size: how many processes share the batch.

        Returns:
            x and y of shape (batch_size / world_size, block_size). The last batch of an epoch is filled up
            with rows of nothing but IGNORE_INDEX, so that shapes never change.

        Raises:
            ConfigError: world_size does not divide batch_size.
            DataError: the split has not one whole sequence to train on, or its file was changed meanwhile.
        """
        assert step >= 0, step
        if self.n_tokens <= self.block_size:
            raise DataError(
                "The training split is too short for one sequence",
                got=f"{pluralize(self.n_tokens, 'token')}; {self.block_size + 1:,} needed",
                remedy=f"Set --model.block-size to {self.n_tokens - 1} or less, or prepare more text.",
            )
        epoch, position = divmod(step, self.steps_per_epoch)
        rows = position * self.batch_size + self._rows_of(rank, world_size)
        sequences = np.full(rows.shape, self.n_sequences, dtype=np.int64)  # one past the last: empty
        inside = rows < self.n_sequences
        sequences[inside] = Permutation(self.n_sequences, self.seed, epoch)(rows[inside])
        return self._sequences(sequences)

    def in_order(self, batch_size: int | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """All sequences once, from first to last, for validation; padded as in `batch`.

        Args:
            batch_size: the sequences of a batch over all ranks, if not the one given at the start.
            rank: which process asks.
            world_size: how many processes share every batch.
        """
        whole = self if batch_size is None else BatchLoader(self._data, self.block_size, batch_size)
        rows = whole._rows_of(rank, world_size)
        for position in range(whole.steps_per_epoch):
            yield self._sequences(position * whole.batch_size + rows)

    def _rows_of(self, rank: int, world_size: int) -> Ints:
        """The rows of a batch that are a rank's, shape (batch_size / world_size,)."""
        assert 0 <= rank < world_size, (rank, world_size)
        if self.batch_size % world_size:
            raise ConfigError(
                "The batch cannot be shared out evenly",
                got=f"{pluralize(self.batch_size, 'sequence')} over {world_size} processes",
                remedy=f"Set the batch size to a multiple of {world_size}.",
            )
        per_rank = self.batch_size // world_size
        return np.arange(rank * per_rank, (rank + 1) * per_rank, dtype=np.int64)

    def _sequences(self, numbers: Ints) -> Batch:
        """Some sequences by their numbers, shape (rows,); those from n_sequences on are empty."""
        if isinstance(self._data, TokenFile) and self._state:
            self._state = self._data.check_unchanged(self._state)
        columns = np.arange(self.block_size + 1, dtype=np.int64)
        places = numbers[:, None] * self.block_size + columns  # (rows, block_size + 1)
        ids = self.tokens[np.minimum(places, self.n_tokens - 1)].astype(np.int64)
        ids[places >= self.n_tokens] = IGNORE_INDEX
        ids[numbers >= self.n_sequences] = IGNORE_INDEX  # its first token may exist, as the last target before it
        x, y = ids[:, :-1].copy(), ids[:, 1:].copy()
        if self._seam:
            y[places[:, 1:] % self._seam == 0] = IGNORE_INDEX
        x[x == IGNORE_INDEX] = 0
        return Batch(x, y)
