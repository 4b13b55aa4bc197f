"""Where a training is: everything that a checkpoint holds besides weights and optimizer state; and what a step returns.

Everything else that a step depends on is a function of (seed, order, step): which batch, which dropout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from minigpt.schema import Count


@dataclass
class GradientNorms:
    """Running mean and variance of the logarithm of the gradient norm, to tell a spike from normal variation.

    Attributes:
        mean, variance: exponential averages over about the last 50 steps.
        count: number of norms seen.
    """

    mean: float = 0.0
    variance: float = 0.0
    count: Count = 0

    def is_spike(self, norm: float) -> bool:
        """Whether a norm is more than six standard deviations above the mean, and more than three times it."""
        if self.count < 50 or norm <= 0:
            return False
        return math.log(norm) - self.mean > max(6 * math.sqrt(self.variance), math.log(3))

    def add(self, norm: float) -> None:
        """Updates the averages with the norm of a step."""
        if norm <= 0:
            return
        self.count += 1
        weight = max(1 / self.count, 0.02)
        delta = math.log(norm) - self.mean
        self.mean += weight * delta
        self.variance = (1 - weight) * (self.variance + weight * delta * delta)


@dataclass
class TrainState:
    """Where a training is.

    Attributes:
        step: optimizer steps taken.
        tokens: targets trained on.
        seconds: training time, over all sessions.
        epoch_loss, epoch_tokens: summed training loss since the last validation, and the targets it is over.
        logged_loss, logged_tokens: the same since the last step record.
        best_loss, best_step: the lowest validation loss, and its step.
        validated_step: the step of the last validation that this state accounts for.
        patience_counter: validations since the loss last improved, for early stopping.
        order: how often the data was reshuffled to get past non-finite steps.
        bad_steps: consecutive steps, up to now, without a finite loss and gradient.
        norms: which gradient norms are normal.
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
    validated_step: Count = 0
    patience_counter: Count = 0
    order: Count = 0
    bad_steps: Count = 0
    norms: GradientNorms = field(default_factory=GradientNorms)

    def count(self, loss_sum: float, tokens: int) -> None:
        """Moves past a step with this summed loss over `tokens` targets; a loss that is not finite is not added."""
        self.step += 1
        self.tokens += tokens
        if math.isfinite(loss_sum):
            self.epoch_loss += loss_sum
            self.epoch_tokens += tokens
            self.logged_loss += loss_sum
            self.logged_tokens += tokens

    def take_logged_loss(self) -> float:
        """Returns the mean loss since the last call, and starts over."""
        mean = self.logged_loss / self.logged_tokens if self.logged_tokens else math.nan
        self.logged_loss, self.logged_tokens = 0.0, 0
        return mean

    def take_epoch_loss(self) -> float:
        """Returns the mean loss since the last validation, and starts over."""
        mean = self.epoch_loss / self.epoch_tokens if self.epoch_tokens else math.nan
        self.epoch_loss, self.epoch_tokens = 0.0, 0
        return mean

    def count_validation(self, loss: float, best: bool) -> None:
        """Takes the result of a validation at the current step into account."""
        self.validated_step = self.step
        self.patience_counter = 0 if best else self.patience_counter + 1
        if best:
            self.best_loss, self.best_step = loss, self.step


class SavedTraining(TypedDict):
    """The plain values of a checkpoint that a run resumes from."""

    state: TrainState
    scaler: dict[str, Any]
    config: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class StepProblem:
    """What was wrong with a step.

    Attributes:
        kind: "spike": a gradient far above normal; "overflow": of float16, which its loss scaler handles; "nonfinite":
            a loss or gradient that is not finite for another reason.
        text: for people.
    """

    kind: Literal["spike", "overflow", "nonfinite"]
    text: str


class StepResult(NamedTuple):
    """What a step did: its summed loss in nats, the targets it is over, the learning rate, the gradient's norm before
    clipping, and what was wrong with it, if anything."""

    loss_sum: float
    tokens: int
    lr: float
    grad_norm: float
    problem: StepProblem | None


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        run: the run folder.
        steps: optimizer steps taken, over all sessions.
        best_loss, best_step: the lowest validation loss, in nats per token, and its step; None before the first.
        seconds: training time, over all sessions.
        stopped: whether it was asked to stop before its last step.
        stopped_early: whether early stopping (`train.patience`) ended it.
    """

    run: Path
    steps: int
    best_loss: float | None
    best_step: int | None
    seconds: float
    stopped: bool
    stopped_early: bool
