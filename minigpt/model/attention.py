"""Causal multi-head self-attention: how a token gathers what it needs from the tokens before it.

`CausalSelfAttention` makes the queries, keys and values and puts the heads back together; `attend` is the one door
to the arithmetic between them. `attention_pattern` shows the same arithmetic written out, with the weights that the
fused kernels never form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import GPTConfig
from minigpt.model.blockwise import blockwise_attention
from minigpt.model.cache import KVCache
from minigpt.model.positions import Positions


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """Returns (queries, keys), true where a query may look: at itself and what stands before it.

    The queries are the last of the keys, as when new tokens follow cached ones.
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(diagonal=keys - queries)


def attention_pattern(q: Tensor, k: Tensor) -> Tensor:
    """Returns how much each query attends to each key: (batch, heads, queries, keys), rows sum to 1.

    Args:
        q: (batch, heads, queries, head_dim).
        k: (batch, heads, keys, head_dim), ending with the queries' own.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (batch, heads, queries, keys)
    hidden = ~causal_mask(q.size(-2), k.size(-2), q.device)
    return scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Returns softmax(q k^T / sqrt(head_dim)) v under the causal mask (Vaswani et al. 2017, section 3.2).

    Args:
        q: (batch, heads, queries, head_dim).
        k, v: (batch, heads, keys, head_dim), ending with the queries' own.
        dropout: share of the attention weights to drop.
    """
    queries, keys = q.size(-2), k.size(-2)
    if queries == keys and dropout and q.device.type == "cpu" and not torch.compiler.is_compiling():
        return blockwise_attention(q, k, v, dropout)  # torch's fused CPU kernel knows no dropout
    if queries == keys:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    mask = None if queries == 1 else causal_mask(queries, keys, q.device)  # a single new token may see everything
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def attend_cached(q: Tensor, k: Tensor, v: Tensor, positions: Tensor) -> Tensor:
    """Returns what `attend` returns, for rows that hold different numbers of keys.

    Args:
        q: (batch, heads, queries, head_dim).
        k, v: (batch, heads, keys, head_dim); the key at place p of a row is its token at position p.
        positions: (batch, queries), where the queries stand: each sees the keys up to its own position.
    """
    if len(q) == 1:
        return attend(q, k, v)
    if q.device.type != "cpu":
        return attend_masked(q, k, v, positions)
    # Row by row, the kernel gets the very shapes that it gets for a row alone, and queries that begin where memory is
    # aligned (hence the copy): so the same bits come out.
    ends = (positions[:, -1] + 1).tolist()
    rows = zip(q.split(1), k.split(1), v.split(1), ends, strict=True)
    return torch.cat([attend(one.clone(), keys[:, :, :end], values[:, :, :end]) for one, keys, values, end in rows])


def attend_masked(q: Tensor, k: Tensor, v: Tensor, positions: Tensor) -> Tensor:
    """Returns what `attend_cached` returns, all rows at once, the shorter ones padded, as a GPU likes it."""
    seen = torch.arange(k.size(2), device=k.device) <= positions[:, :, None]  # (batch, queries, keys)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])


class CausalSelfAttention(nn.Module):
    """Projects to queries, keys and values, attends in `n_head` heads side by side, and projects back."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self, x: Tensor, encoding: Positions, positions: Tensor, layer: int, cache: KVCache | None = None
    ) -> Tensor:
        """Returns the attention's contribution to the residual stream.

        Args:
            x: normalised residual stream, (batch, time, n_embd).
            encoding: the position variant, which may turn queries and keys.
            positions: (time), where each token of x stands in the text; (batch, time) with a cache.
            layer: this block's number, its place in the cache.
            cache: keys and values of earlier tokens, to be extended; None to attend within x alone.
        """
        batch, time, n_embd = x.shape
        qkv = self.c_attn(x).view(batch, time, 3, self.n_head, n_embd // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, time, head_dim)
        q, k = encoding.rotate(q, positions), encoding.rotate(k, positions)
        if cache is None:
            heads = attend(q, k, v, self.dropout if self.training else 0.0)  # (batch, heads, time, head_dim)
        else:
            heads = attend_cached(q, *cache.extend(layer, k, v, positions), positions)
        return self.c_proj(heads.transpose(1, 2).reshape(batch, time, n_embd))
