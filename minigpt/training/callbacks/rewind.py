"""What is done about steps that go wrong: say so, and after too many of them go back to a checkpoint, or stop."""

from __future__ import annotations

from minigpt.data import Batch
from minigpt.training.saving import rewind
from minigpt.training.step_guard import MAX_BAD_STEPS, bad_steps_error, save_dump
from minigpt.training.train_state import StepProblem
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback

MAX_REWINDS = 3
"""How often `on_nonfinite = "rewind"` reshuffles the data before it gives up."""


class RewindCallback(TrainerCallback):
    """Notes each problem, and applies `train.on_nonfinite`."""

    def on_problem(self, trainer: Trainer, problem: StepProblem, batch: Batch) -> None:
        """Notes the problem of a step; after too many, rewinds.

        Raises:
            MiniGPTError: if it may not rewind.
        """
        if problem.kind == "overflow":
            return  # float16's loss scaler has halved its scale: this is how it finds the right one
        trainer.note(problem.text)
        if problem.kind == "spike":
            return
        trainer.state.bad_steps += 1
        if trainer.state.bad_steps < MAX_BAD_STEPS:
            return
        if trainer.config.train.on_nonfinite == "rewind" and trainer.state.order < MAX_REWINDS:
            rewind(trainer)
            trainer.throughput.reset()
            return
        dump = save_dump(trainer.folder, trainer.model, batch, trainer.state, trainer.seed)
        raise bad_steps_error(trainer.state.step, problem, dump, trainer.config)
