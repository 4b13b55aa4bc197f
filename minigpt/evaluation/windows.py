"""Sliding windows over a text: each token is predicted exactly once, from the tokens before it in its window.

A window has `block_size` tokens and their targets. The first window of a sequence predicts all of them; each later one
begins `stride` tokens further on and predicts only the last `stride`, so that these have at least `block_size - stride`
tokens of context. With `stride = block_size` the windows do not overlap, as in training and validation.
"""

from __future__ import annotations

import numpy as np

from minigpt.config import IGNORE_INDEX
from minigpt.errors import ConfigError
from minigpt.evaluation.eval_text import EvalText, Ints


class Windows:
    """All windows of a text, in order.

    Args:
        text: what to predict.
        block_size: the model's context length.
        stride: tokens from one window to the next, from 1 to block_size.

    Raises:
        ConfigError: if the stride is out of range.
    """

    def __init__(self, text: EvalText, block_size: int, stride: int) -> None:
        if not 1 <= stride <= block_size:
            raise ConfigError(
                "The stride is out of range", got=stride, remedy=f"Give 1 to {block_size}, the model's context."
            )
        self.text, self.block_size = text, block_size
        ends = np.append(text.sequences[1:], len(text.tokens))
        targets = ends - text.sequences - 1  # the first token of a sequence is not one
        counts = np.where(targets > 0, 1 + np.maximum(0, -((block_size - targets) // stride)), 0)
        sequence = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self._starts = text.sequences[sequence] + number * stride  # (windows,)
        self._ends = ends[sequence]
        self._first_targets = np.maximum(
            self._starts + 1 + np.where(number > 0, block_size - stride, 0),
            (text.sequences + text.leads)[sequence],
        )

    def __len__(self) -> int:
        return len(self._starts)

    def rows(self, first: int, stop: int) -> tuple[Ints, Ints, Ints]:
        """Returns windows `first` to before `stop`.

        Returns:
            Three arrays (rows, time), time being the longest's, at most block_size:
            x: token ids; 0 beyond the end of a sequence.
            y: the token that follows each of x, or IGNORE_INDEX where it is not to be predicted here.
            positions: the position of each of y in the text.
        """
        starts, ends = self._starts[first:stop, None], self._ends[first:stop, None]  # (rows, 1)
        time = min(self.block_size, int((ends - starts).max()) - 1)
        positions = starts + np.arange(time + 1)  # (rows, time + 1)
        tokens = self.text.tokens
        ids = tokens[np.minimum(positions, len(tokens) - 1)].astype(np.int64)
        x = np.where(positions < ends, ids, 0)[:, :-1]
        positions = positions[:, 1:]
        wanted = (positions >= self._first_targets[first:stop, None]) & (positions < ends)
        if self.text.segment_length:
            wanted &= positions % self.text.segment_length != 0
        return x, np.where(wanted, ids[:, 1:], IGNORE_INDEX), positions
