"""Texts side by side in one cache, and the logits of the token that follows each.

Here it is decided which tokens the model sees. All of a text but its newest token is read once, alone (prefill); the
newest tokens of all texts then go through the model together, one a step, against the keys and values kept of those
before them (decode). A prompt longer than the context is seen from its end.

When a text has filled the context, its last half is read again as a new beginning, and the text goes on from there. So
each token is chosen with at least half a context of text before it, and with exactly the logits that the model gives
for that window without a cache. Dropping only the oldest keys would be cheaper and wrong: learned positions would have
to move, and in any variant the keys of the upper blocks would still know the tokens that were dropped.

What becomes of the logits is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minigpt.generation.single_stream import SingleStreamStep
from minigpt.model import GPT, KVCache


class Decoder:
    """A model at work on several texts, which may join, grow and leave at any time without a trace in the others.

    Attributes:
        texts: the token ids of each, the prompt's and the new ones. They grow by `append` only.
    """

    def __init__(self, model: GPT, capacity: int, longest: int | None = None) -> None:
        """Makes room for `capacity` texts of up to `longest` tokens; for any length when it is left out.

        The model is one that `for_inference` made.
        """
        self.model = model
        self.context = model.config.block_size
        weight = next(model.parameters())
        self.device = weight.device
        room = min(longest or self.context, self.context)
        self.cache = KVCache(model.config, capacity, device=self.device, dtype=weight.dtype, room=room)
        self.cache.select([])
        self.lone = SingleStreamStep(model, self.cache) if self.device.type == "cpu" else None
        self.texts: list[list[int]] = []

    def add(self, text: Sequence[int]) -> None:
        """Adds a text of at least one token, after those that are there."""
        assert text, "a text begins with at least one token"
        self.texts.append(list(text))
        self.cache.lengths.append(0)
        self._read(len(self.texts) - 1, self.texts[-1][-self.context :])

    def next_logits(self) -> Tensor:
        """Reads the newest token of each text, and returns the logits of the one after it: (texts, vocab_size)."""
        for row, text in enumerate(self.texts):
            if self.cache.lengths[row] == self.context:
                self._read(row, text[-max(1, self.context // 2) :])
        if self.lone and len(self.texts) == 1:
            logits = self.lone(self.texts[0][-1])
        else:
            newest = torch.tensor([[text[-1]] for text in self.texts], device=self.device)  # (texts, 1)
            logits = self.model(newest, cache=self.cache)
        return logits[:, 0].float()

    def append(self, tokens: Sequence[int]) -> None:
        """Puts one more token behind each text; `next_logits` must have read the one before."""
        for text, token in zip(self.texts, tokens, strict=True):
            text.append(token)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these texts, in this order. One may come several times, as far as the capacity goes."""
        self.texts = [list(self.texts[row]) for row in rows]
        self.cache.select(rows)

    def _read(self, row: int, window: list[int]) -> None:
        """Fills the cache's row with a window of its text, all but the last token."""
        before = window[:-1]
        if before:
            ids = torch.tensor([before], device=self.device)
            self.model(ids, cache=self.cache.empty_row(row), logits_to_keep=0)
        self.cache.lengths[row] = len(before)
