"""How good a model is."""

from minigpt.evaluation.loss import SplitLoss, perplexity, split_loss
from minigpt.evaluation.measure import Evaluation, measure

__all__ = ["Evaluation", "SplitLoss", "measure", "perplexity", "split_loss"]
