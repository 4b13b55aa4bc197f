"""What a callback is: the moments of a training at which it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minigpt.data import Batch
from minigpt.errors import MiniGPTError
from minigpt.records import Callback, Record
from minigpt.training.train_state import StepProblem, StepResult

if TYPE_CHECKING:
    from minigpt.training.trainer import Trainer


class TrainerCallback:
    """Something that happens around the steps of a training; each method does nothing unless overridden.

    Attributes:
        failure: what to note, once, when a method raises; the training then goes on. None: the error ends the run.
    """

    failure: str | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step of a session."""

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """For each record that is emitted (minigpt/records.py)."""

    def on_gradients(self, trainer: Trainer) -> None:
        """When the gradients of a step are there, neither clipped nor applied."""

    def on_problem(self, trainer: Trainer, problem: StepProblem, batch: Batch) -> None:
        """After a step with a problem; may go back to an earlier step."""

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """After each step."""

    def on_restore(self, trainer: Trainer) -> None:
        """After going back to a checkpoint."""

    def on_error(self, trainer: Trainer, error: MiniGPTError) -> None:
        """Before an error ends the run."""

    def on_end(self, trainer: Trainer) -> None:
        """After the last step of a session."""


class FunctionCallback(TrainerCallback):
    """A function that is given each record, such as a progress display. An error of it ends the run."""

    def __init__(self, function: Callback) -> None:
        self.function = function

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Calls the function."""
        self.function(record)
