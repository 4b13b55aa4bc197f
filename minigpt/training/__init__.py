"""Training: `trainer.py` reads from top to bottom; what happens around its steps is in `callbacks/`."""

from minigpt.training.api import resume, train
from minigpt.training.train_state import TrainResult
from minigpt.training.trainer_callback import TrainerCallback

__all__ = ["TrainResult", "TrainerCallback", "resume", "train"]
