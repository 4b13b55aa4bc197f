"""The transformer itself. Start with `gpt.py`."""

from minigpt.model.cache import KVCache
from minigpt.model.gpt import GPT, Block

__all__ = ["GPT", "Block", "KVCache"]
