"""The loss of a model over a whole split, as validation measures it.

Every token of the split but the first is predicted once, from the 1 to `block_size` tokens before it in its sequence,
without dropout. The logits of at most a few hundred tokens are held at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from minigpt.config import IGNORE_INDEX
from minigpt.data import BatchLoader, TokenFile
from minigpt.errors import DataError
from minigpt.model import GPT
from minigpt.model.eval_mode import eval_mode
from minigpt.runtime import Runtime


@dataclass(frozen=True)
class SplitLoss:
    """The loss of a split.

    Attributes:
        loss: mean cross-entropy per token, in nats.
        tokens: the number of predicted tokens.
        bytes_per_token: mean number of UTF-8 bytes of text per token of the split.
    """

    loss: float
    tokens: int
    bytes_per_token: float

    @property
    def perplexity(self) -> float:
        """exp(loss): the number of equally likely tokens that would be as hard to predict."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits needed to encode a byte of text: comparable between tokenizers, unlike perplexity."""
        return self.loss / math.log(2) / self.bytes_per_token


def perplexity(loss: float) -> float:
    """Returns exp(loss), or infinity where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf


def split_loss(
    model: GPT,
    split: TokenFile,
    runtime: Runtime,
    *,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SplitLoss:
    """Returns the loss over all tokens of a split but the first.

    Args:
        model: the model; left in the mode it was in.
        split: the split's tokens.
        runtime: device and precision.
        batch_size: sequences per forward pass; affects only rounding.
        on_progress: called with sequences done and in all.
    """
    batches = BatchLoader(split, model.config.block_size, batch_size)
    total, count, done = 0.0, 0, 0
    with eval_mode(model), runtime.autocast():
        for batch in batches.in_order():
            ids, targets = (torch.from_numpy(part).to(runtime.device) for part in (batch.x, batch.y))
            total += model(ids, targets).item()
            count += int((batch.y != IGNORE_INDEX).sum())
            done += len(batch.x)
            on_progress(min(done, batches.n_sequences), batches.n_sequences)
    if not count:
        raise DataError("The split contains nothing to predict", got=split.path, remedy="Prepare more text.")
    return SplitLoss(total / count, count, split.n_bytes / split.n_tokens)
