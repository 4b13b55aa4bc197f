"""Where a run stands: all that a checkpoint holds beside the weights and the optimizer's memory.

Everything else that a step depends on is a function of (seed, order, step): which batch, which dropout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypedDict

from minigpt.schema import Count


@dataclass
class GradientNorms:
    """The running distribution of the logarithm of the gradient's norm, to tell a spike from the usual.

    Attributes:
        mean, variance: exponential averages over about the last 50 steps.
        count: how many norms they are of.
    """

    mean: float = 0.0
    variance: float = 0.0
    count: Count = 0

    def is_spike(self, norm: float) -> bool:
        """Whether a norm lies far outside: over six standard deviations, and over three times the usual."""
        if self.count < 50 or norm <= 0:
            return False
        return math.log(norm) - self.mean > max(6 * math.sqrt(self.variance), math.log(3))

    def add(self, norm: float) -> None:
        """Counts a norm that was applied."""
        if norm <= 0:
            return
        self.count += 1
        share = max(1 / self.count, 0.02)
        away = math.log(norm) - self.mean
        self.mean += share * away
        self.variance = (1 - share) * (self.variance + share * away * away)


@dataclass
class TrainState:
    """Where a run stands.

    Attributes:
        step: optimizer steps behind it.
        tokens: targets trained on.
        seconds: time spent on it, over all its sittings.
        epoch_loss, epoch_tokens: summed training loss since the last validation, and the targets it is over.
        logged_loss, logged_tokens: the same since the last line of metrics.
        best_loss, best_step: the lowest validation loss, and when it was.
        patience_since: the step behind which validations count towards `train.patience`.
        order: how often the order of the data was changed to get past bad steps.
        bad_steps: the last steps, in a row, whose loss or gradient was not finite.
        norms: what gradients are usual.
    """

    step: Count = 0
    tokens: Count = 0
    seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_tokens: Count = 0
    logged_loss: float = 0.0
    logged_tokens: Count = 0
    best_loss: float | None = None
    best_step: int | None = None
    patience_since: Count = 0
    order: Count = 0
    bad_steps: Count = 0
    norms: GradientNorms = field(default_factory=GradientNorms)

    def count(self, loss_sum: float, tokens: int) -> None:
        """Moves past a step with this summed loss over so many targets; a loss that is not finite is left out."""
        self.step += 1
        self.tokens += tokens
        if math.isfinite(loss_sum):
            self.epoch_loss += loss_sum
            self.epoch_tokens += tokens
            self.logged_loss += loss_sum
            self.logged_tokens += tokens

    def take_logged_loss(self) -> float:
        """Returns the mean loss since it was last asked for, and starts over."""
        mean = self.logged_loss / self.logged_tokens if self.logged_tokens else math.nan
        self.logged_loss, self.logged_tokens = 0.0, 0
        return mean

    def take_epoch_loss(self) -> float:
        """Returns the mean loss since the last validation, and starts over."""
        mean = self.epoch_loss / self.epoch_tokens if self.epoch_tokens else math.nan
        self.epoch_loss, self.epoch_tokens = 0.0, 0
        return mean


class SavedTraining(TypedDict):
    """The plain values of a checkpoint that a run goes on from."""

    progress: TrainState
    scaler: dict[str, Any]
    config: dict[str, dict[str, Any]]
    total_steps: int
