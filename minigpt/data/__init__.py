"""From text to batches: sources -> tokens in token files -> (x, y).

`prepare` makes a data set, `Dataset.open` opens it, `BatchLoader` yields the batch of a step.
"""

from minigpt.data.batch_loader import Batch, BatchLoader
from minigpt.data.dataset import Dataset
from minigpt.data.dataset_card import DatasetCard, SplitCard
from minigpt.data.prepare import prepare
from minigpt.data.token_file import TokenFile, TokenFileWriter

__all__ = ["Batch", "BatchLoader", "Dataset", "DatasetCard", "SplitCard", "TokenFile", "TokenFileWriter", "prepare"]
