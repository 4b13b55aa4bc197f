"""How long a run is, and what is due when: lines of metrics, health checks, samples, validations, checkpoints.

All of it follows from the settings and the number of tokens, never from the clock (except in `save`): a run that was
resumed must not differ from one that was not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from minigpt.config import Config

MIN_STEPS_BETWEEN, MAX_EPOCH_ENDS = 50, 10
"""Ends of epochs are validated, saved and sampled at least this many steps apart; in a run of fewer than 500 steps, a
tenth of it. A checkpoint and a dozen samples cost as much as 10 to 100 steps of a small model (docs/log.md)."""


def count_sequences(n_tokens: int, block_size: int) -> int:
    """Returns the training sequences in a text: every token but the first is a target once; the last may be padded."""
    return max(1, -(-(n_tokens - 1) // block_size))


def steps_per_epoch(n_tokens: int, block_size: int, batch_size: int) -> int:
    """Returns the steps of one pass over a text; the last batch may have empty rows."""
    return -(-count_sequences(n_tokens, block_size) // batch_size)


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
        """Returns those of a run on an unknown text, as if it were one epoch; None if its length is not known."""
        settings = config.train
        if settings.steps is None:
            return None
        return cls(config, settings.steps * settings.batch_size * config.model.block_size + 1, 0)

    @cached_property
    def sequences(self) -> int:
        """Sequences in the training split."""
        return count_sequences(self.train_tokens, self.config.model.block_size)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training split."""
        return steps_per_epoch(self.train_tokens, self.config.model.block_size, self.config.train.batch_size)

    @cached_property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.train.steps or self.config.train.epochs * self.steps_per_epoch

    @cached_property
    def between(self) -> int:
        """Steps between two ends of epochs that are validated: whole epochs.

        In between, at least as many tokens are trained on as a validation reads, so that validating takes at most a
        quarter of the time.
        """
        steps = min(MIN_STEPS_BETWEEN, -(-self.total_steps // MAX_EPOCH_ENDS))
        epochs = max(-(-steps // self.steps_per_epoch), -(-self.val_tokens // max(1, self.train_tokens)))
        return epochs * self.steps_per_epoch

    @cached_property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""
        return self.config.schedule.warmup(self.total_steps)

    def log(self, step: int) -> bool:
        """Whether a step record is due."""
        return self._first_or_last(step) or step % self.config.train.log_every == 0

    def health(self, step: int) -> bool:
        """Whether a health check is due."""
        every = self.config.train.health_every
        return every > 0 and (self._first_or_last(step) or step % every == 0)

    def _first_or_last(self, step: int) -> bool:
        return step in (1, self.total_steps)

    def epoch_ends(self, step: int) -> bool:
        """Whether this is the end of the run, or of an epoch that is validated."""
        return step % self.between == 0 or step == self.total_steps

    def validation(self, step: int) -> bool:
        """Whether a validation is due."""
        every = self.config.train.validate_every
        return self.epoch_ends(step) or (every is not None and step % every == 0)

    def save(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due, `seconds` after the last one; always before a validation."""
        every, minutes = self.config.train.save_every, self.config.train.save_minutes
        by_step = every is not None and step % every == 0
        by_time = minutes > 0 and seconds > 60 * minutes
        return self.validation(step) or by_step or by_time

    @cached_property
    def counts(self) -> dict[str, int]:
        """How often each is due in the whole run; `checkpoints` without those saved by time."""
        settings, total = self.config.train, self.total_steps
        validations = (self.between, settings.validate_every)
        first = settings.health_every > 1 and total > 1  # the first step is checked too
        return {
            "samples": _count(total, self.between) if settings.sample_prompts else 0,
            "validations": _count(total, *validations),
            "checkpoints": _count(total, *validations, settings.save_every),
            "health checks": _count(total, settings.health_every) + first if settings.health_every else 0,
        }


def _count(total: int, *every: int | None) -> int:
    """Returns how many steps up to `total` are the last one, or a multiple of one of these numbers."""
    given = {number for number in every if number}
    some = [part for size in range(1, len(given) + 1) for part in combinations(given, size)]
    return 1 + sum((total - 1) // math.lcm(*part) * (-1) ** (len(part) + 1) for part in some)
