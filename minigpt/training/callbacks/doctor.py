"""The doctor, who says what is wrong with a run while it trains."""

from __future__ import annotations

from minigpt.doctor import LiveDoctor, new_evidence
from minigpt.records import Record, read_metrics
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class DoctorCallback(TrainerCallback):
    """Checks the records of a run, earlier sessions included, and emits each `finding` once."""

    failure = "the doctor cannot check this run"

    def __init__(self) -> None:
        self.doctor: LiveDoctor | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Reads what earlier sessions have recorded."""
        self.doctor = LiveDoctor(
            new_evidence(trainer.folder, trainer.dataset),
            say=lambda finding: trainer.emit("finding", finding=finding),
            complain=lambda text: trainer.emit("message", text=text),
        )
        self.doctor.remember(read_metrics(trainer.folder.metrics_file))

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Runs the checks when it is time."""
        if self.doctor:
            self.doctor(record)
