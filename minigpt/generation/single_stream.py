"""The next token of a single text on a CPU: the operations of minigpt/model/gpt.py, one after another.

A step of a small model takes a hundred operations of a few microseconds, and Python would spend half of its time
between them, on the way through the modules. Here that way is short. The result is bit for bit that of `GPT.forward`
for one row and one token, and tests hold it to that. What differs between variants (norms, feed-forward layers,
positions) is called, not repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model import GPT, Block, KVCache
from minigpt.model.layers import ROTARY


class SingleStreamStep:
    """Computes the logits after the newest token of a cache's first row, when that is the only one.

    Args:
        model: a model that `for_inference` made.
        cache: the cache, on a CPU.
    """

    def __init__(self, model: GPT, cache: KVCache) -> None:
        config = model.config
        self.cache = cache
        self.embedding = model.wte.weight.detach()  # (vocab_size, n_embd)
        self.positions = torch.arange(config.block_size)
        self.position_vectors = None if model.wpe is None else model.wpe(self.positions)  # (block_size, n_embd)
        self.n_heads, self.head_dim = (config.n_head, config.kv_heads, config.kv_heads), config.head_dim
        self.queries_per_key, self.qk_norm = config.n_head // config.kv_heads, config.qk_norm
        self.rotates = config.position in ROTARY
        self.layers = []
        blocks = [module for module in model.modules() if isinstance(module, Block)]
        for block, keys, values in zip(blocks, cache.keys, cache.values, strict=True):
            c_attn, c_proj, mlp = block.attn.c_attn, block.attn.c_proj, block.mlp.forward
            self.layers.append((block.ln_1, c_attn, block.attn, keys[:1], values[:1], c_proj, block.ln_2, mlp))
        self.ln_f, self.lm_head = model.ln_f, model.lm_head

    def __call__(self, token: int) -> Tensor:
        """Returns the logits of the token that follows, (1, 1, vocab_size); the cache grows by one."""
        at = self.cache.lengths[0]
        position = self.positions[at : at + 1] if self.rotates else self.positions
        x = self.embedding[token]
        if self.position_vectors is not None:
            x = x + self.position_vectors[at]
        x = x.view(1, 1, -1)
        for ln_1, c_attn, attention, keys, values, c_proj, ln_2, mlp in self.layers:
            qkv = c_attn(ln_1(x)).view(1, -1, 1, self.head_dim)
            q, k, v = qkv.split(self.n_heads, dim=1)  # each (1, heads, 1, head_dim)
            if self.qk_norm:
                q, k = attention.q_norm(q), attention.k_norm(k)
            if attention.rotary:
                q, k = attention.rotary(q, position), attention.rotary(k, position)
            keys.narrow(2, at, 1).copy_(k)
            values.narrow(2, at, 1).copy_(v)
            k, v = keys.narrow(2, 0, at + 1), values.narrow(2, 0, at + 1)
            if self.queries_per_key > 1:
                k, v = (each.repeat_interleave(self.queries_per_key, dim=1) for each in (k, v))
            z = F.scaled_dot_product_attention(q, k, v)
            x = x + c_proj(z.view(1, 1, -1))
            x = x + mlp(ln_2(x))
        self.cache.advance(1)
        return self.lm_head(self.ln_f(x))
