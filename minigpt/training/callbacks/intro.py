"""What a run is about to do: its size, its estimated cost, the origin of its weights, and settings that do not fit."""

from __future__ import annotations

from minigpt.config_warnings import config_warnings
from minigpt.model.accounting import parameter_table
from minigpt.training.estimate import TrainingEstimate
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class IntroCallback(TrainerCallback):
    """Emits `start`, and `plan` and warnings of a new run."""

    def __init__(self, estimate: TrainingEstimate | None, warn: bool) -> None:
        self.estimate, self.warn = estimate, warn

    def on_start(self, trainer: Trainer) -> None:
        """Emits them."""
        trainer.emit(
            "start",
            total=trainer.total_steps,
            steps_per_epoch=trainer.intervals.steps_per_epoch,
            sequences=trainer.intervals.sequences,
            parameters=parameter_table(trainer.config.model),
            machine=trainer.machine,
            config=trainer.config,
        )
        if not trainer.state.step:
            if self.estimate:
                trainer.emit("plan", **self.estimate.record())
            if origin := trainer.folder.origin():
                trainer.emit("message", text=f"starting from the weights of {origin['folder']}")
        if self.warn or not trainer.state.step:
            for warning in config_warnings(trainer.intervals):
                trainer.emit("message", text=str(warning))
