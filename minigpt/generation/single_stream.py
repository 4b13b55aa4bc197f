"""The next token of a lone text on a CPU: the operations of `minigpt/model`, one after another.

A step of a small model is a hundred operations of a few microseconds, and half of its time would be Python's way from
class to class. Here the way is short. The mathematics is that of `GPT.forward` with one row and one token, to the last
bit, and the tests hold it to that; what differs between variants (norms, feed-forward layers, positions) is called, not
repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model import GPT, Block, CausalSelfAttention, KVCache
from minigpt.model.layers import ROTARY


class SingleStreamStep:
    """Does what the model does for the newest token of a cache's first row, when that is the only one.

    Args:
        model: what `with_weights` made.
        cache: the cache, on a CPU.
    """

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.cache = cache
        self.words = dict(model.named_parameters())["wte.weight"].detach()  # (vocab_size, n_embd)
        config = model.config
        self.positions = torch.arange(config.block_size)
        self.places = None if model.wpe is None else model.wpe(self.positions)  # (block_size, n_embd)
        self.heads, self.head_dim = (config.n_head, config.kv_heads, config.kv_heads), config.head_dim
        self.sharing, self.qk_norm = config.n_head // config.kv_heads, config.qk_norm
        self.rotates = config.position in ROTARY
        blocks = [layer for layer in model.modules() if isinstance(layer, Block)]
        attentions = [layer for layer in model.modules() if isinstance(layer, CausalSelfAttention)]
        self.layers = [
            (block.ln_1, attention.c_attn, attention, keys[:1], values[:1], attention.c_proj, block.ln_2, block.mlp)
            for block, attention, keys, values in zip(blocks, attentions, cache.keys, cache.values, strict=True)
        ]
        self.last_norm, self.lm_head = model.ln_f, model.lm_head

    def __call__(self, token: int) -> Tensor:
        """Returns the logits of the token that follows, (1, 1, vocab_size); the cache grows by one."""
        at = self.cache.lengths[0]
        position = self.positions[at : at + 1] if self.rotates else self.positions
        x = self.words[token] if self.places is None else self.words[token] + self.places[at]
        x = x.view(1, 1, -1)
        for norm_1, c_attn, attention, keys, values, c_proj, norm_2, mlp in self.layers:
            qkv = c_attn(norm_1(x)).view(1, -1, 1, self.head_dim)
            q, k, v = qkv.split(self.heads, dim=1)  # each (1, heads, 1, head_dim)
            if self.qk_norm:
                q, k = attention.q_norm(q), attention.k_norm(k)
            if attention.rotary:
                q, k = attention.rotary(q, position), attention.rotary(k, position)
            keys.narrow(2, at, 1).copy_(k)
            values.narrow(2, at, 1).copy_(v)
            k, v = keys.narrow(2, 0, at + 1), values.narrow(2, 0, at + 1)
            if self.sharing > 1:
                k, v = k.repeat_interleave(self.sharing, dim=1), v.repeat_interleave(self.sharing, dim=1)
            z = F.scaled_dot_product_attention(q, k, v)
            x = x + c_proj(z.view(1, 1, -1))
            x = x + mlp(norm_2(x))
        self.cache.advance(1)
        return self.lm_head(self.last_norm(x))
