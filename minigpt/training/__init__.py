"""Training: `trainer.py` reads top to bottom; optimizers, schedules and metrics stand beside it."""

from minigpt.training.api import resume, train
from minigpt.training.trainer import TrainResult

__all__ = ["TrainResult", "resume", "train"]
