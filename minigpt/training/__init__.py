"""Training: `loop.py` reads top to bottom; optimizers, schedules and metrics stand beside it."""

from minigpt.training.loop import Outcome
from minigpt.training.start import resume, train

__all__ = ["Outcome", "resume", "train"]
