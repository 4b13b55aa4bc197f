"""Causal attention with dropout on a CPU: block by block, so that the half behind the mask is never computed.

torch's fused CPU kernel refuses dropout and falls back to one that is five times slower (docs/log.md). This one takes
the queries in blocks, each against the keys up to the block's end, and draws its masks eight at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 128


def blockwise_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Returns softmax(q k^T / sqrt(head_dim)) v under the causal mask, with dropout of the weights.

    Args:
        q, k, v: (batch, heads, time, head_dim).
        dropout: share of the weights to drop, rounded to a 256th.
    """
    out: Tensor = _BlockwiseAttention.apply(q, k, v, dropout)
    return out


def draw_kept(shape: tuple[int, ...], dropout: float) -> Tensor:
    """Returns a mask of that shape, true with probability 1 - round(256 x dropout) / 256.

    Each 64-bit random number decides eight places: ten times as fast as drawing them one by one.
    """
    count = torch.Size(shape).numel()
    draws = torch.empty((count + 7) // 8, dtype=torch.int64)
    draws.random_(-(2**63), None)  # the whole range: by default the top bit would always be 0
    return (draws.view(torch.uint8)[:count] >= round(256 * dropout)).view(shape)


class _BlockwiseAttention(torch.autograd.Function):
    """Heads side by side as (batch * heads, time, head_dim); `upto` is the end of a block of queries.

    With weights w = softmax(scores), what is kept of them m, and 1 / (share kept) as `up`:
    out = up (m w) v    d scores = w (up m (d out v^T) - rowsum(d out out))
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        shape = q.shape
        time, head_dim = shape[-2:]
        q, k, v = (x.reshape(-1, time, head_dim) for x in (q, k, v))
        q = q * head_dim**-0.5
        up = 256 / (256 - round(256 * dropout))
        out, saved = torch.empty_like(q), []
        for start in range(0, time, BLOCK):
            upto = min(start + BLOCK, time)
            scores = q[:, start:upto] @ k[:, :upto].transpose(1, 2)  # (batch * heads, block, upto)
            later = torch.ones(upto - start, upto - start, dtype=torch.bool).triu_(1)
            scores[:, :, start:].masked_fill_(later, float("-inf"))
            weights = scores.softmax(dim=-1)
            kept = draw_kept(tuple(weights.shape), dropout)
            out[:, start:upto] = (weights * kept) @ v[:, :upto]
            saved += [weights, kept]
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
        for number, start in enumerate(range(0, time, BLOCK)):
            upto = min(start + BLOCK, time)
            weights, kept, d_rows = saved[2 * number], saved[2 * number + 1], d_out[:, start:upto]
            d_scores = d_rows @ v[:, :upto].transpose(1, 2)  # (batch * heads, block, upto)
            d_scores.mul_(kept).sub_(inner[:, start:upto]).mul_(weights)
            d_v[:, :upto] += (weights * kept).transpose(1, 2) @ d_rows
            d_k[:, :upto] += d_scores.transpose(1, 2) @ q[:, start:upto]
            d_q[:, start:upto] = d_scores @ k[:, :upto]
        d_q *= head_dim**-0.5
        return (*(gradient.view(ctx.shape) for gradient in (d_q, d_k, d_v)), None)
