"""Causal attention with dropout on a CPU, in blocks, so that the masked half is never computed.

torch's fused CPU kernel does not support dropout and falls back to one that is five times slower (docs/log.md). This
one multiplies each block of queries with the keys up to the block's end. Attention weights are never negative, so their
sign bit is free to mark the dropped ones: no mask is stored or converted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minigpt.model.kernels.dropout import dropout_bits

BLOCK = 128


def blockwise_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Returns softmax(q k^T / sqrt(head_dim)) v under the causal mask, with dropout on the attention weights.

    Args:
        q, k, v: (batch, heads, time, head_dim).
        dropout: probability of dropping a weight.
    """
    out: Tensor = _BlockwiseAttention.apply(q, k, v, dropout)
    return out


class _BlockwiseAttention(torch.autograd.Function):
    """Heads are stacked as (batch * heads, time, head_dim); `upto` is the end of a block of queries.

    With w = softmax(scores), k = w where kept and 0 where dropped, and up = 1 / (1 - dropout):
    out = up k v    d scores = up k (d out v^T) - w rowsum(d out out)
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        shape = q.shape
        time, head_dim = shape[-2:]
        q, k, v = (x.reshape(-1, time, head_dim) for x in (q, k, v))
        q = q * head_dim**-0.5
        up = 1 / (1 - dropout)
        out, saved = torch.empty_like(q), []
        for start in range(0, time, BLOCK):
            upto = min(start + BLOCK, time)
            scores = q[:, start:upto] @ k[:, :upto].transpose(1, 2)  # (batch * heads, block, upto)
            later = torch.ones(upto - start, upto - start, dtype=torch.bool).triu_(1)
            scores[:, :, start:].masked_fill_(later, float("-inf"))
            weights = scores.softmax(dim=-1)
            signs = dropout_bits(tuple(weights.shape), weights.dtype, dropout)
            weights.view(signs.dtype).bitwise_or_(signs)  # negative: dropped
            out[:, start:upto] = weights.relu() @ v[:, :upto]
            saved.append(weights)
        out *= up
        ctx.save_for_backward(q, k, v, out, *saved)
        ctx.up, ctx.shape = up, shape
        return out.view(shape)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        q, k, v, out, *saved = ctx.saved_tensors
        time, head_dim = q.shape[1:]
        d_out = upstream[0].reshape(q.shape)
        inner = (d_out * out).sum(dim=-1, keepdim=True)
        d_out = d_out * ctx.up
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start, weights in zip(range(0, time, BLOCK), saved, strict=True):
            upto = min(start + BLOCK, time)
            kept, d_rows = weights.relu(), d_out[:, start:upto]
            d_scores = d_rows @ v[:, :upto].transpose(1, 2)  # (batch * heads, block, upto)
            d_scores.mul_(kept).addcmul_(weights.abs(), inner[:, start:upto], value=-1)
            d_v[:, :upto] += kept.transpose(1, 2) @ d_rows
            d_k[:, :upto] += d_scores.transpose(1, 2) @ q[:, start:upto]
            d_q[:, start:upto] = d_scores @ k[:, :upto]
        d_q *= head_dim**-0.5
        return (*(gradient.view(ctx.shape) for gradient in (d_q, d_k, d_v)), None)
