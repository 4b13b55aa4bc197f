"""The vocabulary head: from hidden states to logits, and to the cross-entropy without holding all the logits.

With GPT-2's vocabulary the logits of 8 x 512 tokens are 823 MB in float32, and their gradient as much again, while
the model itself is 28 MB. The loss needs them a few rows at a time only: `cross_entropy_sum` takes a chunk of tokens,
forms its logits, adds its loss and its share of both gradients, and lets the logits go before the next chunk.
`plain_cross_entropy_sum` is the textbook form of the same thing, kept as its oracle.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -1
"""A target that counts for nothing: padding at the end of a split."""


def plain_cross_entropy_sum(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Returns what `cross_entropy_sum` returns, by way of all logits at once."""
    return F.cross_entropy((hidden @ weight.T).float(), targets, ignore_index=IGNORE, reduction="sum")


def cross_entropy_sum(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int = 256) -> Tensor:
    """Returns the summed cross-entropy in nats, a float32 scalar, never holding more than `chunk` rows of logits.

    The gradients are computed on the way, so that a backward pass only scales them.

    Args:
        hidden: the last hidden states, (tokens, n_embd).
        weight: the output projection, (vocab_size, n_embd).
        targets: the token that follows each, (tokens), or IGNORE.
        chunk: tokens whose logits are held at once.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, chunk, dtype, needs_gradient)
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The loop over chunks; its gradient is softmax(logits) minus the one-hot target, for each token."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        chunk: int,
        dtype: torch.dtype,
        needs_gradient: bool,
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = hidden.to(dtype), weight.to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=h.device)
            h_grad = torch.empty_like(hidden) if needs_gradient else None
            w_grad = torch.zeros_like(weight, dtype=torch.float32) if needs_gradient else None
            for start in range(0, h.size(0), chunk):
                rows = slice(start, start + chunk)
                log_p = F.log_softmax((h[rows] @ w.T).float(), dim=-1)  # (chunk, vocab_size)
                counts = targets[rows] != IGNORE
                picked = targets[rows].clamp(min=0)[:, None]
                total -= (log_p.gather(1, picked)[:, 0] * counts).sum()
                if h_grad is not None and w_grad is not None:
                    grad = log_p.exp_()
                    grad.scatter_add_(1, picked, torch.full_like(picked, -1, dtype=grad.dtype))
                    grad = grad.mul_(counts[:, None]).to(dtype)  # d loss / d logits
                    h_grad[rows] = grad @ w
                    w_grad += grad.T @ h[rows]
        ctx.save_for_backward(h_grad, w_grad)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        h_grad, w_grad = ctx.saved_tensors
        return h_grad * upstream[0], w_grad * upstream[0], None, None, None, None
