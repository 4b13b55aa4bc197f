"""Health of gradients, updates, hidden units and heads, every `train.health_every` steps."""

from __future__ import annotations

from minigpt.training.health_probe import HealthProbe, probe_ids
from minigpt.training.train_state import StepResult
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class HealthCallback(TrainerCallback):
    """Measures a step before it is applied, and emits `health` after it."""

    failure = "the health of the model was not measured"  # for lack of memory, most likely

    def __init__(self) -> None:
        self.probe: HealthProbe | None = None

    def on_gradients(self, trainer: Trainer) -> None:
        """Measures gradients, weights and activations."""
        self.probe = None
        if trainer.intervals.health(trainer.state.step + 1):
            self.probe = HealthProbe(trainer.model, probe_ids(trainer.batches, trainer.state.step), trainer.machine)

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Measures what the step has changed."""
        probe, self.probe = self.probe, None
        if probe:
            trainer.emit("health", modules=probe.read())
