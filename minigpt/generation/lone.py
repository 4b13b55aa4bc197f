"""The next token of a lone text on a CPU: the operations of `minigpt/model`, one after another.

A step of a small model is a hundred operations of a few microseconds, and half of its time would be Python's way from
class to class. Here the way is short. The mathematics is that of `GPT.hidden` with one row and one token, to the last
bit, and the tests hold it to that; what differs between variants (norms, feed-forward layers, positions) is called, not
repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model import GPT, Block, KVCache
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.positions import Positions


class LoneStep:
    """Does what `model.hidden` does for the newest token of a cache's first row, when that is the only one.

    Args:
        model: what `with_weights` made.
        cache: the cache, on a CPU.
    """

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.cache = cache
        self.words = dict(model.named_parameters())["wte.weight"].detach()  # (vocab_size, n_embd)
        config, encoding = model.config, model.wpe
        self.positions = torch.arange(config.block_size)
        nothing = self.words.new_zeros(1, config.block_size, config.n_embd)
        self.places = encoding.add(nothing, self.positions)[0]  # (block_size, n_embd), what a position adds
        self.rotate = None if type(encoding).rotate is Positions.rotate else encoding.rotate
        self.split = (3, 1, config.n_head, 1, config.head_dim)
        blocks = [layer for layer in model.modules() if isinstance(layer, Block)]
        attentions = [layer for layer in model.modules() if isinstance(layer, CausalSelfAttention)]
        self.layers = [
            (block.ln_1, attention.c_attn, keys[:1], values[:1], attention.c_proj, block.ln_2, block.mlp)
            for block, attention, keys, values in zip(blocks, attentions, cache.keys, cache.values, strict=True)
        ]
        self.last_norm = model.ln_f

    def __call__(self, token: int) -> Tensor:
        """Returns the normalised residual stream above the last block, (1, 1, n_embd); the cache grows by one."""
        at = self.cache.lengths[0]
        x = (self.words[token] + self.places[at]).view(1, 1, -1)
        for norm_1, c_attn, keys, values, c_proj, norm_2, mlp in self.layers:
            q, k, v = c_attn(norm_1(x)).view(self.split)  # each (1, heads, 1, head_dim)
            if self.rotate:
                q, k = self.rotate(q, self.positions[at : at + 1]), self.rotate(k, self.positions[at : at + 1])
            keys.narrow(2, at, 1).copy_(k)
            values.narrow(2, at, 1).copy_(v)
            heads = F.scaled_dot_product_attention(q, keys.narrow(2, 0, at + 1), values.narrow(2, 0, at + 1))
            x = x + c_proj(heads.view(1, 1, -1))
            x = x + mlp(norm_2(x))
        self.cache.advance(1)
        return self.last_norm(x)
