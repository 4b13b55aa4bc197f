"""Scalars for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minigpt.errors import MissingExtraError
from minigpt.records import Record
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class TensorBoardCallback(TrainerCallback):
    """Writes every number of `step` and `validation` records.

    Args:
        folder: where to; by default `tensorboard` in the run folder.

    Raises:
        MissingExtraError: if the extra `tensorboard` is not installed.
    """

    failure = "TensorBoard was not updated"

    def __init__(self, folder: Path | None = None) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise MissingExtraError("TensorBoard", "tensorboard") from None
        self.folder = folder
        self.writer: Any = None

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Writes the record's numbers."""
        if record["kind"] in ("step", "validation"):
            writer = self.open(trainer)
            for name, value in record.items():
                if isinstance(value, (int, float)) and name not in ("step", "epoch"):
                    writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])
            writer.flush()

    def open(self, trainer: Trainer) -> Any:
        """Returns the writer; it is made at the first record, since it makes the folder."""
        from torch.utils.tensorboard import SummaryWriter

        if self.writer is None:
            self.writer = SummaryWriter(str(self.folder or trainer.folder.path / "tensorboard"))
        return self.writer
