"""The vocabulary head: from hidden states to the cross-entropy, without ever holding all the logits.

With GPT-2's vocabulary the logits of 8 x 512 tokens are 823 MB in float32, and their gradient as much again, while
the model itself is 28 MB. The loss needs them a few rows at a time only: `cross_entropy_sum` takes a chunk of tokens,
forms its logits, adds its loss and its share of both gradients, and lets the logits go before the next chunk.
`plain_cross_entropy_sum` is the textbook form of the same thing, kept as its oracle.

What each trick of the fast form gains is in docs/log.md.
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
    """Returns the summed cross-entropy in nats, a float32 scalar, holding at most `chunk` rows of logits at once.

    Matrix products run in autocast's precision where it is on; sums and the loss are float32 all the same. The
    gradients are computed on the way, so that a backward pass only scales them.

    Args:
        hidden: the last hidden states, (tokens, n_embd).
        weight: the output projection, (vocab_size, n_embd).
        targets: the token that follows each, (tokens), or IGNORE.
        chunk: tokens whose logits are held at once.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, chunk, dtype, needs_gradient)
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The loop over chunks. For a token with logits z and target y, and p = softmax(z):

    loss = log(sum(exp(z))) - z[y]        d loss / d z = p - onehot(y)
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype, needs_gradient: bool
    ) -> Tensor:
        h, tokens = hidden.float(), hidden.size(0)
        # Taking the mean word off every word moves a token's logits all alike, which softmax does not see; but what
        # the words have in common no longer eats the few digits of bfloat16.
        mean = weight.mean(dim=0)
        words = (weight - mean).t().to(dtype)  # (n_embd, vocab_size)
        words = words.contiguous() if dtype != torch.float32 else words  # each dtype's fast layout on a CPU
        counts = (targets != IGNORE).float()
        targets = targets.clamp(min=0)
        target_words = weight[targets] - mean  # (tokens, n_embd)
        target_logits = (h * target_words).sum(dim=1)  # in float32: loss and gradient keep their digits

        loss = torch.zeros((), device=h.device)
        gradients = _Gradients(h, words) if needs_gradient else None
        softmax = _Softmax(words, min(chunk, tokens))
        for start in range(0, tokens, chunk):
            rows = slice(start, min(start + chunk, tokens))
            e, others, own = softmax.parts(h[rows].to(dtype), targets[rows], target_logits[rows])
            total = others + own.exp()
            loss += ((total.log() - own) * counts[rows]).sum()
            if gradients:
                gradients.add(rows, e, counts[rows] / total, others)
        if gradients:
            ctx.save_for_backward(*gradients.finish(targets, target_words))
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * upstream[0], weight_gradient * upstream[0], None, None, None, None


class _Softmax:
    """exp(logits) of a chunk and its sums, not yet divided: the division is left to the small factors beside it.

    The target stands apart from the other words. Its logit is computed in float32, since the loss and the gradient
    p - 1 are small differences that bfloat16's few digits would swamp once the model is sure of itself.

    Usually the exponentials need no maximum taken off. Only when a sum leaves the range in which float32 is exact, or
    where looking at it would make a GPU wait, is it taken off first.
    """

    def __init__(self, words: Tensor, rows: int) -> None:
        self.words = words
        self.on_cpu = words.device.type == "cpu"
        self.take_off_maximum = not self.on_cpu or words.dtype == torch.float16
        # Buffers are taken once: fresh memory of this size costs more in page faults than the exponential itself.
        self.buffer = torch.empty(rows, words.size(1), dtype=words.dtype, device=words.device)
        self.wide = torch.empty(32, words.size(1)) if self.on_cpu and words.dtype != torch.float32 else None

    def parts(self, h: Tensor, targets: Tensor, target_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns, for a chunk of hidden states (rows, n_embd):

        e: exp(logits), with 0 at each target: (rows, vocab_size).
        others: the sum of e, (rows) in float32.
        own: the target's logit, (rows) in float32, on the same scale as e.
        """
        e, own = torch.mm(h, self.words, out=self.buffer[: h.size(0)]), target_logits
        if self.take_off_maximum:
            maximum = torch.maximum(e.amax(dim=1), own.to(e.dtype))
            e -= maximum[:, None]
            own = own - maximum.float()
        e.exp_()
        e[torch.arange(h.size(0), device=e.device), targets] = 0  # (scatter_ would copy all of e)
        others = self._row_sums(e)
        total = others + own.exp()
        if not self.take_off_maximum and not bool(((total > 1e-15) & (total < 1e15)).all()):
            self.take_off_maximum = True
            return self.parts(h, targets, target_logits)
        return e, others, own

    def _row_sums(self, e: Tensor) -> Tensor:
        if self.wide is None:  # float32, or a GPU, which widens on the fly
            return e.sum(dim=1, dtype=torch.float32)
        # A CPU would sum bfloat16 in bfloat16; a small float32 copy that stays in the cache is exact, and quick.
        return torch.cat([self.wide[: len(part)].copy_(part).sum(dim=1) for part in e.split(len(self.wide))])


class _Gradients:
    """Adds up both gradients over the chunks, in float32."""

    def __init__(self, h: Tensor, words: Tensor) -> None:
        self.h, self.words = h, words
        self.of_hidden = torch.empty_like(h)
        self.misses = torch.empty(h.size(0), device=h.device)
        self.of_words = torch.zeros_like(words, dtype=torch.float32)  # (n_embd, vocab_size), strides as words
        narrow = words.dtype != torch.float32
        self.part = torch.empty_like(words) if narrow else None

    def add(self, rows: slice, e: Tensor, scale: Tensor, others: Tensor) -> None:
        """Adds a chunk: p = e * scale for all words but the target, whose p - 1 is -others * scale."""
        self.of_hidden[rows] = torch.mm(e, self.words.t()).float() * scale[:, None]
        self.misses[rows] = others * scale
        scaled = (self.h[rows] * scale[:, None]).to(e.dtype).t()  # (n_embd, rows)
        if self.part is None:
            self.of_words.addmm_(scaled, e)
        else:
            self.of_words += torch.mm(scaled.contiguous(), e, out=self.part)

    def finish(self, targets: Tensor, target_words: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gradients of hidden (tokens, n_embd) and weight (vocab_size, n_embd), with the targets' share."""
        self.of_hidden -= target_words * self.misses[:, None]
        of_weight = self.of_words.t().contiguous()
        of_weight.index_add_(0, targets, self.h * -self.misses[:, None])
        return self.of_hidden, of_weight
