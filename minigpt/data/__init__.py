"""From text to batches: sources -> tokens in shards -> (x, y).

`prepare` makes a data set, `Dataset.open` opens it, `Batches` says what a step trains on.
"""

from minigpt.data.batches import Batch, Batches
from minigpt.data.dataset import Dataset
from minigpt.data.prepare import prepare
from minigpt.data.report import Report, SplitReport
from minigpt.data.shards import Shard, ShardWriter

__all__ = ["Batch", "Batches", "Dataset", "Report", "Shard", "ShardWriter", "SplitReport", "prepare"]
