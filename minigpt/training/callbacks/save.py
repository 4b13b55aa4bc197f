"""Checkpoints: when the settings have one due, and before a run stops."""

from __future__ import annotations

import time
from collections.abc import Callable

from minigpt.errors import DataError, MiniGPTError
from minigpt.training.saving import save
from minigpt.training.train_state import StepResult
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class SaveCallback(TrainerCallback):
    """Saves checkpoints.

    Args:
        should_stop: asked after each step; true saves and stops the run.
    """

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self.should_stop = should_stop
        self.last_save = time.perf_counter()

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Saves when it is due, or when the run is asked to stop."""
        step = trainer.state.step
        trainer.stopped = step < trainer.total_steps and self.should_stop()
        if trainer.stopped or trainer.intervals.save(step, time.perf_counter() - self.last_save):
            save(trainer)
            self.last_save = time.perf_counter()

    def on_error(self, trainer: Trainer, error: MiniGPTError) -> None:
        """Saves when the data set was changed while it was in use: nothing has been learned from the changed one."""
        if isinstance(error, DataError):
            save(trainer)
