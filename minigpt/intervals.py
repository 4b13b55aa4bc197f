"""How long a run is, and what is due when in it: lines of metrics, health checks, samples, validations, checkpoints.

All of it is a function of the settings and the number of tokens, never of the clock (but for `save`): a run that was
resumed must not differ from one that was not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from minigpt.config import Config

LEAST_STEPS, MOST_SHARE = 50, 10
"""Epochs' ends are validated, saved and sampled this many steps apart at least; in a run of fewer than 500 steps, a
tenth of it. A checkpoint and a dozen samples cost as much as 10 to 100 steps of a small model (docs/log.md)."""


@dataclass(frozen=True)
class Intervals:
    """What is due after a step, counted from 1.

    Attributes:
        config: how often.
        train_tokens, val_tokens: of the two splits.
    """

    config: Config
    train_tokens: int
    val_tokens: int

    @classmethod
    def of_steps(cls, config: Config) -> Intervals | None:
        """Returns that of a run on an unknown text, as if one epoch long; None if nothing tells the run's length."""
        settings = config.train
        if settings.steps is None:
            return None
        return cls(config, settings.steps * settings.batch_size * config.model.block_size + 1, 0)

    @cached_property
    def sequences(self) -> int:
        """Sequences of the training split."""
        return max(1, -(-(self.train_tokens - 1) // self.config.model.block_size))

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training split."""
        return -(-self.sequences // self.config.train.batch_size)

    @cached_property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.train.steps or self.config.train.epochs * self.steps_per_epoch

    @cached_property
    def between(self) -> int:
        """Steps between two epochs' ends that are validated: whole epochs, no fewer than is worth it.

        As many tokens are trained on as a validation reads, so that validating takes a quarter of the time at most.
        """
        steps = min(LEAST_STEPS, -(-self.total_steps // MOST_SHARE))
        epochs = max(-(-steps // self.steps_per_epoch), -(-self.val_tokens // max(1, self.train_tokens)))
        return epochs * self.steps_per_epoch

    @cached_property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""
        return self.config.schedule.warmup(self.total_steps)

    def log(self, step: int) -> bool:
        """Whether a line of metrics is due."""
        return self._first_or_last(step) or step % self.config.train.log_every == 0

    def health(self, step: int) -> bool:
        """Whether a look at gradients, updates and units is due."""
        every = self.config.train.health_every
        return every > 0 and (self._first_or_last(step) or step % every == 0)

    def _first_or_last(self, step: int) -> bool:
        return step in (1, self.total_steps)

    def epoch_ends(self, step: int) -> bool:
        """Whether an epoch is complete that is validated, or the run."""
        return step % self.between == 0 or step == self.total_steps

    def validation(self, step: int) -> bool:
        """Whether a validation is due."""
        every = self.config.train.validate_every
        return self.epoch_ends(step) or (every is not None and step % every == 0)

    def save(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due, so many seconds after the last one.

        Always before validating, so that no accident there loses what was learned.
        """
        every, minutes = self.config.train.save_every, self.config.train.save_minutes
        by_step = every is not None and step % every == 0
        by_time = minutes > 0 and seconds > 60 * minutes
        return self.validation(step) or by_step or by_time

    @cached_property
    def counts(self) -> dict[str, int]:
        """How often each is due in the whole run: and `checkpoints` by their steps alone."""
        settings, total = self.config.train, self.total_steps
        validations = (self.between, settings.validate_every)
        first = settings.health_every > 1 and total > 1  # which is looked at too
        return {
            "samples": _times(total, self.between) if settings.sample_prompts else 0,
            "validations": _times(total, *validations),
            "checkpoints": _times(total, *validations, settings.save_every),
            "health checks": _times(total, settings.health_every) + first if settings.health_every else 0,
        }


def _times(total: int, *every: int | None) -> int:
    """Returns how many steps up to `total` are its last, or a multiple of one of these numbers."""
    given = {number for number in every if number}
    some = [part for size in range(1, len(given) + 1) for part in combinations(given, size)]
    return 1 + sum((total - 1) // math.lcm(*part) * (-1) ** (len(part) + 1) for part in some)
