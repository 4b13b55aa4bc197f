"""The transformer itself. Start with `gpt.py`."""

from minigpt.model.gpt import GPT, Block, CausalSelfAttention
from minigpt.model.kv_cache import KVCache

__all__ = ["GPT", "Block", "CausalSelfAttention", "KVCache"]
