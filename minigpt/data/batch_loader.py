"""Tokens to (x, y): which batch comes at which step, as a function without state.

The tokens are cut into sequences of `block_size`; y is x shifted by one, so every token but the very first is a target
exactly once. The order within an epoch follows from (seed, epoch) by a permutation that needs no memory. So a resumed
run, or another number of processes, sees the very same batches, and there is no position to save besides the step.

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
from minigpt.intervals import count_sequences, steps_per_epoch
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
    """The batches of a split: shuffled, by step; or all, in order.

    Args:
        data: a token file, or ids of shape (n_tokens,). Where a token file joins unrelated segments, the first token of
            the next one is not a target.
        block_size: the length of a sequence, at least 1.
        batch_size: sequences per batch, over all processes, at least 1.
        seed: decides the order.
        rank, world_size: which of how many processes that share each batch; their rows, in order, are the batch of a
            single process.

    Attributes:
        n_sequences: sequences in the split; the last one may be padded.
        steps_per_epoch: batches in an epoch; the last one may have empty rows.

    Raises:
        ConfigError: block_size or batch_size is not positive, or world_size does not divide batch_size.
        DataError: there are fewer than two tokens, so nothing to predict.
    """

    def __init__(
        self,
        data: TokenFile | Tokens,
        block_size: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, value in (("block size", block_size), ("batch size", batch_size)):
            if value < 1:
                raise ConfigError(f"The {name} must be positive", got=value, remedy="Set it to 1 or more.")
        if batch_size % world_size:
            raise ConfigError(
                "The processes cannot share a batch evenly",
                got=f"{pluralize(batch_size, 'sequence')}, {world_size} processes",
                remedy=f"Set the batch size to a multiple of {world_size}.",
            )
        self._data = data
        self._state = data.state if isinstance(data, TokenFile) else None
        self.tokens, self._segment = (data.tokens, data.segment_length) if isinstance(data, TokenFile) else (data, 0)
        self.n_tokens = len(self.tokens)
        if self.n_tokens < 2:
            raise DataError(
                "A split needs at least two tokens: one to predict, and one to predict it from",
                got=self.n_tokens,
                remedy="Prepare more text.",
            )
        self.block_size, self.batch_size, self.seed = block_size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.n_sequences = count_sequences(self.n_tokens, block_size)
        self.steps_per_epoch = steps_per_epoch(self.n_tokens, block_size, batch_size)

    def batch(self, step: int) -> Batch:
        """Returns the batch of a training step: a pure function of (seed, step, rank).

        Args:
            step: counted from 0 over all epochs.

        Returns:
            x and y of shape (batch_size / world_size, block_size). The last batch of an epoch is padded
            with rows of IGNORE_INDEX, so that shapes never change.

        Raises:
            DataError: the split has not a single whole sequence, or its file was changed in the meantime.
        """
        assert step >= 0, step
        if self.n_tokens <= self.block_size:
            raise DataError(
                "The training split is too short for one sequence",
                got=f"{pluralize(self.n_tokens, 'token')}; {self.block_size + 1:,} needed",
                remedy=f"Set --model.block-size to {self.n_tokens - 1} or less, or prepare more text.",
            )
        epoch, position = divmod(step, self.steps_per_epoch)
        rows = position * self.batch_size + self._rows()
        sequences = np.full(rows.shape, self.n_sequences, dtype=np.int64)  # one past the last: empty
        inside = rows < self.n_sequences
        sequences[inside] = Permutation(self.n_sequences, self.seed, epoch)(rows[inside])
        return self._sequences(sequences)

    def in_order(self, batch_size: int | None = None) -> Iterator[Batch]:
        """Yields all sequences once, from first to last, for validation; padded as in `batch`.

        Args:
            batch_size: sequences per batch over all processes, if not the loader's own.
        """
        whole = self
        if batch_size is not None:
            whole = BatchLoader(self._data, self.block_size, batch_size, 0, self.rank, self.world_size)
        for position in range(whole.steps_per_epoch):
            yield self._sequences(position * whole.batch_size + whole._rows())

    def _rows(self) -> Ints:
        """Returns the rows of a batch that belong to this process, shape (batch_size / world_size,)."""
        per_rank = self.batch_size // self.world_size
        return np.arange(self.rank * per_rank, (self.rank + 1) * per_rank, dtype=np.int64)

    def _sequences(self, numbers: Ints) -> Batch:
        """Returns sequences by their numbers, shape (rows,); those from n_sequences on are empty."""
        if isinstance(self._data, TokenFile) and self._state:
            self._state = self._data.check_unchanged(self._state)
        columns = np.arange(self.block_size + 1, dtype=np.int64)
        places = numbers[:, None] * self.block_size + columns  # (rows, block_size + 1)
        ids = self.tokens[np.minimum(places, self.n_tokens - 1)].astype(np.int64)
        ids[places >= self.n_tokens] = IGNORE_INDEX
        ids[numbers >= self.n_sequences] = IGNORE_INDEX  # its first token may exist, as the last target before it
        x, y = ids[:, :-1].copy(), ids[:, 1:].copy()
        if self._segment:
            y[places[:, 1:] % self._segment == 0] = IGNORE_INDEX
        x[x == IGNORE_INDEX] = 0
        return Batch(x, y)
