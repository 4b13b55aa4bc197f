"""Texts decoded together with one key/value cache: the logits of the token that follows each.

Which tokens the model sees is decided here. All of a text but its newest token is read once, alone (prefill); then the
newest tokens of all texts go through the model together, one for each step, with the cached keys and values of those
before them (decode). Of a prompt longer than the context, the model sees the end.

When a text has filled the context, its last half is read again as a new beginning. So each token is chosen with at
least half a context of text before it, and with exactly the logits that the model gives for that window without a
cache. Dropping only the oldest keys would be cheaper and wrong: learned positions would have to move, and in any
variant the keys of the upper blocks would still depend on the dropped tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minigpt.generation.single_stream import SingleStreamStep
from minigpt.model import GPT, KVCache


class CachedBatch:
    """Several texts that may join, grow and leave at any time without any effect on the others.

    Args:
        model: a model that `for_inference` made.
        max_rows: how many texts there is room for.
        max_length: how many tokens each may have; None for any number.
        vocab_size: how many logits to return, if the model's vocabulary is padded; None for all.

    Attributes:
        texts: the token ids of each text, prompt included. They grow by `append` only.
    """

    def __init__(self, model: GPT, max_rows: int, max_length: int | None = None, vocab_size: int | None = None) -> None:
        self.model, self.context, self.vocab_size = model, model.config.block_size, vocab_size
        weight = model.wte.weight
        self.device = weight.device
        room = min(max_length or self.context, self.context)
        self.cache = KVCache(model.config, max_rows, device=self.device, dtype=weight.dtype, room=room)
        self.cache.select([])
        self.single_stream = SingleStreamStep(model, self.cache) if self.device.type == "cpu" else None
        self.texts: list[list[int]] = []

    def add(self, text: Sequence[int]) -> None:
        """Adds a text of at least one token as the last row."""
        assert text, "a text begins with at least one token"
        self.texts.append(list(text))
        self.cache.lengths.append(0)
        self._prefill(len(self.texts) - 1, self.texts[-1][-self.context :])

    def next_logits(self) -> Tensor:
        """Reads the newest token of each text, and returns the logits of the one after it: (texts, vocab_size)."""
        for row, text in enumerate(self.texts):
            if self.cache.lengths[row] == self.context:
                self._prefill(row, text[-max(1, self.context // 2) :])
        if self.single_stream and len(self.texts) == 1:
            logits = self.single_stream(self.texts[0][-1])
        else:
            newest = torch.tensor([[text[-1]] for text in self.texts], device=self.device)  # (texts, 1)
            logits = self.model(newest, cache=self.cache)
        return logits[:, 0, : self.vocab_size].float()

    def append(self, tokens: Sequence[int]) -> None:
        """Adds one token to each text; `next_logits` must have read the one before."""
        for text, token in zip(self.texts, tokens, strict=True):
            text.append(token)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order. A row may be repeated, as far as there is room."""
        self.texts = [list(self.texts[row]) for row in rows]
        self.cache.select(rows)

    def _prefill(self, row: int, window: list[int]) -> None:
        """Fills the cache's row with a window of its text, all but the last token."""
        before = window[:-1]
        if before:
            ids = torch.tensor([before], device=self.device)
            self.model(ids, cache=self.cache.empty_row(row), logits_to_keep=0)
        self.cache.lengths[row] = len(before)
