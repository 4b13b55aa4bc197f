"""How well a model predicts, and what its samples are like."""

from minigpt.evaluation.evaluate import Evaluation, evaluate
from minigpt.evaluation.loss import SplitLoss, perplexity, split_loss

__all__ = ["Evaluation", "SplitLoss", "evaluate", "perplexity", "split_loss"]
