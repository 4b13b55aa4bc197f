"""How well a model predicts a text: its loss over a whole split, the same whenever it is asked.

Every token of the split but the first is predicted once, from the 1 to `block_size` tokens before it in its sequence.
The model's dropout is off, no random number is drawn, and the logits of a few hundred tokens at most are held at once.
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
from minigpt.runtime import Runtime


@dataclass(frozen=True)
class SplitLoss:
    """The loss of a split.

    Attributes:
        loss: mean cross-entropy of a token, in nats.
        tokens: how many tokens were predicted.
        bytes_per_token: how many UTF-8 bytes of text a token of the split stands for, on average.
    """

    loss: float
    tokens: int
    bytes_per_token: float

    @property
    def perplexity(self) -> float:
        """exp(loss): among how many equally likely tokens the model seems to choose."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of text: comparable between tokenizers, as perplexity is not."""
        return self.loss / math.log(2) / self.bytes_per_token


def perplexity(loss: float) -> float:
    """Returns exp(loss), or infinity where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf


def split_loss(
    model: GPT,
    shard: TokenFile,
    machine: Runtime,
    *,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SplitLoss:
    """Returns the loss over all tokens of a split but the first.

    Args:
        model: the model; left in the mode it was in.
        shard: the split's tokens.
        machine: device and precision to compute with.
        batch_size: sequences at once; the result depends on it by rounding only.
        on_progress: called with sequences done and in all.
    """
    batches = BatchLoader(shard, model.config.block_size, batch_size)
    was_training = model.training
    model.eval()
    total, count, done = 0.0, 0, 0
    with torch.no_grad(), machine.autocast():
        for batch in batches.in_order():
            ids, targets = (torch.from_numpy(part).to(machine.device) for part in (batch.x, batch.y))
            total += model(ids, targets).item()
            count += int((batch.y != IGNORE_INDEX).sum())
            done += len(batch.x)
            on_progress(min(done, batches.n_sequences), batches.n_sequences)
    model.train(was_training)
    if not count:
        raise DataError("The split holds nothing to predict", got=shard.path, remedy="Prepare more text.")
    return SplitLoss(total / count, count, shard.n_bytes / shard.n_tokens)
