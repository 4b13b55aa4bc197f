"""Fast forms of what gpt.py writes plainly. They are chosen here by device, dtype and shape, never by timing.

    causal_attention    torch's fused kernels; with dropout on a CPU, which they lack, attention.py
    cross_entropy_sum   cross_entropy.py: the loss, without holding all logits
    Dropout             dropout.py: several elements per random number on a CPU, torch's own elsewhere
    matmul              matmul.py: the fastest of torch's products of large matrices on a CPU

Each is tested against its plain form.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model.kernels.attention import blockwise_attention
from minigpt.model.kernels.cross_entropy import cross_entropy_sum
from minigpt.model.kernels.dropout import Dropout

__all__ = ["Dropout", "causal_attention", "cross_entropy_sum"]


def causal_attention(q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Returns what `CausalSelfAttention.attend` returns: softmax(q k^T / sqrt(head_dim)) v under the causal mask.

    Args:
        q: (batch, heads, queries, head_dim).
        k, v: (batch, kv heads, keys, head_dim); the queries belong to the last keys unless positions are given.
        positions: (batch, queries), the place of each query among the keys, if rows differ in their number of keys.
        dropout: probability of dropping an attention weight.
    """
    if k.size(1) < q.size(1):
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    if positions is None or len(q) == 1:
        return _attend(q, k, v, dropout)
    if q.device.type != "cpu":  # all rows at once, shorter ones padded: fast on a GPU
        visible = torch.arange(k.size(2), device=k.device) <= positions[:, :, None]  # (batch, queries, keys)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None], dropout_p=dropout)
    # Row by row, the kernel sees the same shapes as for a single row, and aligned queries (hence the copy), so that the
    # result is the same bit for bit.
    ends = (positions[:, -1] + 1).tolist()
    rows = zip(q.split(1), k.split(1), v.split(1), ends, strict=True)
    return torch.cat([_attend(one.clone(), keys[:, :, :end], values[:, :, :end]) for one, keys, values, end in rows])


def _attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Returns the attention of queries that belong to the last keys."""
    queries, keys = q.size(2), k.size(2)
    if queries == keys and dropout and q.device.type == "cpu" and not torch.compiler.is_compiling():
        return blockwise_attention(q, k, v, dropout)  # torch's fused CPU kernel does not support dropout
    if queries == keys:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    visible = None  # a single new token sees everything
    if queries > 1:
        visible = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(diagonal=keys - queries)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=dropout)
