"""When something is due: lines of metrics, looks inside, samples, validations and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.config import TrainConfig


@dataclass(frozen=True)
class Calendar:
    """What is due after a step, counted from 1.

    Attributes:
        settings: how often.
        steps_per_epoch, total_steps: where epochs and the run end.
    """

    settings: TrainConfig
    steps_per_epoch: int
    total_steps: int

    def log(self, step: int) -> bool:
        """Whether a line of metrics is due."""
        return step in (1, self.total_steps) or step % self.settings.log_every == 0

    def health(self, step: int) -> bool:
        """Whether a look at gradients, updates and units is due."""
        every = self.settings.health_every
        return every > 0 and (step in (1, self.total_steps) or step % every == 0)

    def epoch_ends(self, step: int) -> bool:
        """Whether an epoch is complete, or the run."""
        return step % self.steps_per_epoch == 0 or step == self.total_steps

    def validation(self, step: int) -> bool:
        """Whether a validation is due."""
        every = self.settings.validate_every
        return self.epoch_ends(step) or (every is not None and step % every == 0)

    def save(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due, so many seconds after the last one.

        Always before validating, so that no accident there loses what was learned.
        """
        every, minutes = self.settings.save_every, self.settings.save_minutes
        by_step = every is not None and step % every == 0
        by_time = minutes > 0 and seconds > 60 * minutes
        return self.validation(step) or by_step or by_time
