"""training_metrics.png, redrawn as a run goes on."""

from __future__ import annotations

import time

from minigpt.records import Record
from minigpt.training.loss_plot import SECONDS_BETWEEN_PLOTS, plot_losses
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class PlotCallback(TrainerCallback):
    """Plots the losses after validations and at the end."""

    failure = "the plot could not be drawn"  # because of the disk, a name or a font

    def __init__(self) -> None:
        self.last_plot = time.perf_counter()

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Plots after a validation, unless the last plot is recent."""
        if record["kind"] == "validation" and time.perf_counter() - self.last_plot > SECONDS_BETWEEN_PLOTS:
            self.plot(trainer)

    def on_end(self, trainer: Trainer) -> None:
        """Plots the whole run."""
        self.plot(trainer)

    def plot(self, trainer: Trainer) -> None:
        """Draws training_metrics.png."""
        self.last_plot = time.perf_counter()
        plot_losses(trainer.folder.metrics_file, trainer.folder.picture_file, trainer.folder.name)
