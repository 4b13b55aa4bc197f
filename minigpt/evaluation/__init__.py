"""How good a model is."""

from minigpt.evaluation.loss import SplitLoss, perplexity, split_loss

__all__ = ["SplitLoss", "perplexity", "split_loss"]
