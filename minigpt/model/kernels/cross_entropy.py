"""The vocabulary head: from hidden states to the cross-entropy, without ever holding all the logits.

With GPT-2's vocabulary the logits of 8 x 512 tokens are 823 MB in float32, and their gradient as much again, while
the model itself is 28 MB. The loss needs them a few rows at a time only: `cross_entropy_sum` takes a chunk of tokens,
forms its logits, adds its loss and its share of both gradients, and lets the logits go before the next chunk.
The textbook form of the same thing is `GPT.loss` in gpt.py.

What each trick of the fast form gains is in docs/log.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minigpt.config import IGNORE_INDEX
from minigpt.model.kernels.matmul import matmul


@torch.compiler.disable  # type: ignore[untyped-decorator]  # in compiled code too it runs as it is
def cross_entropy_sum(hidden: Tensor, weight: Tensor, targets: Tensor, rows: int | None = None) -> Tensor:
    """Returns the summed cross-entropy in nats, a float32 scalar, holding the logits of at most `rows` tokens at once.

    Matrix products run in autocast's precision where it is on; sums and the loss are float32 all the same. The
    gradients are computed on the way, so that a backward pass only scales them.

    Args:
        hidden: the last hidden states, (tokens, n_embd).
        weight: the output projection, (vocab_size, n_embd).
        targets: the token that follows each, (tokens), or IGNORE_INDEX.
        rows: tokens whose logits are held at once; None for what is quick on this device.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    rows = rows or chunk_size(kind, dtype)
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, rows, dtype, needs_gradient)
    return loss


def chunk_size(kind: str, dtype: torch.dtype) -> int:
    """Returns how many tokens' logits are held at once: 1 kB of them for each word on a CPU, 4 kB elsewhere."""
    return (1024 if kind == "cpu" else 4096) // dtype.itemsize


def tile_size(kind: str, vocab_size: int) -> int:
    """Returns the size of a block of words: what a CPU's cache holds; a GPU takes the vocabulary whole."""
    return min(2560, vocab_size) if kind == "cpu" else vocab_size


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The loop over chunks of tokens. For a token with logits z and target y, and p = softmax(z):

    loss = log(sum(exp(z))) - z[y]        d loss / d z = p - onehot(y)

    The target stands apart from the other words. Its logit is computed in float32, since the loss and the gradient
    p - 1 are small differences that bfloat16's few digits would swamp once the model is sure of itself.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int, dtype: torch.dtype, needs_gradient: bool
    ) -> Tensor:
        h, tokens = hidden.float(), hidden.size(0)
        counts = (targets != IGNORE_INDEX).float()
        targets = targets.clamp(min=0)
        # Taking one vector off every word moves a token's logits all alike, which softmax does not see. With the mean
        # of the targets the likely words' logits are small, and bfloat16's few digits go to what tells them apart.
        target_words = weight[targets]  # (tokens, n_embd)
        mean = target_words.mean(dim=0)
        target_words -= mean
        target_logits = (h * target_words).sum(dim=1)  # in float32: loss and gradient keep their digits

        head = _Blocks(weight, mean, dtype, min(rows, tokens), needs_gradient)
        loss = torch.zeros((), device=h.device)
        of_hidden, misses = torch.empty_like(h), torch.empty_like(target_logits)
        for start in range(0, tokens, rows):
            chunk = slice(start, min(start + rows, tokens))
            others, own, pull = head.exponentials(h[chunk].to(dtype), targets[chunk], target_logits[chunk])
            total = others + own.exp()
            loss += ((total.log() - own) * counts[chunk]).sum()
            if needs_gradient:  # p is exp(logits) * scale for all words but the target, whose p - 1 is -others * scale
                scale = counts[chunk] / total
                of_hidden[chunk] = pull * scale[:, None]
                misses[chunk] = others * scale
                head.add_gradient(h[chunk] * scale[:, None])
        if needs_gradient:
            of_hidden -= target_words * misses[:, None]
            of_weight = head.take_gradient(weight)
            of_weight.index_add_(0, targets, h * -misses[:, None])
            ctx.gradients = of_hidden, of_weight
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        of_hidden, of_weight = ctx.gradients
        del ctx.gradients  # they are scaled in place: a second copy would be as large as the weights
        return of_hidden.mul_(upstream[0]), of_weight.mul_(upstream[0]), None, None, None, None


class _Block:
    """A block of words, with room for a chunk's logits and for the words' gradient.

    Attributes:
        start: number of its first word.
        words: (n_embd, words).
        e: exp(logits) of the chunk at hand, not divided by their sum: (tokens, words).
        gradient: (n_embd, words), float32; None before the first chunk.
    """

    def __init__(self, start: int, words: Tensor, e: Tensor) -> None:
        self.start, self.words, self.e = start, words, e
        self.gradient: Tensor | None = None

    def logits(self, h: Tensor) -> Tensor:
        """Returns the logits of hidden states (tokens, n_embd), and keeps them as `e`."""
        e = matmul(h, self.words, out=self.e[: h.size(0)])
        if e.data_ptr() != self.e.data_ptr():
            self.e = e
        return e


class _Blocks:
    """The vocabulary in blocks, so that on a CPU what is done with a block's logits finds them in the cache.

    Usually the exponentials need no maximum taken off. Only when a sum leaves the range in which float32 is exact, or
    where looking at it would make a GPU wait, is it taken off first. Buffers are taken once for all chunks: fresh
    memory of this size costs more in page faults than the exponential itself.
    """

    def __init__(self, weight: Tensor, mean: Tensor, dtype: torch.dtype, rows: int, needs_gradient: bool) -> None:
        kind = weight.device.type
        self.needs_gradient = needs_gradient
        self.take_off_maximum = kind != "cpu" or dtype == torch.float16
        self.blocks = []
        # In one piece, which leaves room for the gradient in one piece when it is let go.
        room, start = torch.empty(rows * weight.size(0), dtype=dtype, device=weight.device), 0
        for part in weight.split(tile_size(kind, weight.size(0))):
            words = (part - mean).t().to(dtype)
            words = words.contiguous() if dtype != torch.float32 else words  # each dtype's fast layout on a CPU
            count = part.size(0)
            self.blocks.append(_Block(start, words, room[rows * start : rows * (start + count)].view(rows, count)))
            start += count

    def exponentials(self, h: Tensor, targets: Tensor, target_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Leaves exp(logits) of a chunk in the blocks, with 0 at each target.

        Args:
            h: hidden states in the blocks' precision, (tokens, n_embd).
            targets, target_logits: (tokens).

        Returns:
            others: the sum of all exponentials but the target's, (tokens) in float32.
            own: the target's logit, (tokens) in float32, on the same scale.
            pull: the words, weighted by their exponentials: (tokens, n_embd) in float32.
        """
        tokens, maximum = h.size(0), None
        if self.take_off_maximum:
            tops = [block.logits(h).amax(dim=1) for block in self.blocks]
            maximum = torch.stack([*tops, target_logits.to(h.dtype)]).amax(dim=0)
            target_logits = target_logits - maximum.float()
        others = torch.zeros(tokens, device=h.device)
        pull = torch.zeros(h.shape, device=h.device)
        for block, (at, word) in zip(self.blocks, self._places(targets), strict=True):
            e = block.logits(h) if maximum is None else block.e[:tokens].sub_(maximum[:, None])
            e.exp_()
            e[at, word] = 0  # (scatter_ would copy all of e)
            others += e.sum(dim=1, dtype=torch.float32)
            if self.needs_gradient:
                pull += matmul(e, block.words.t())
        total = others + target_logits.exp()
        if maximum is None and not bool(((total > 1e-15) & (total < 1e15)).all()):
            self.take_off_maximum = True
            return self.exponentials(h, targets, target_logits)
        return others, target_logits, pull

    def _places(self, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns, for each block, the rows whose target is one of its words, and which of them."""
        if len(self.blocks) == 1:
            return [(torch.arange(targets.size(0), device=targets.device), targets)]
        ordered, order = targets.sort()
        starts = torch.tensor([block.start for block in self.blocks[1:]])
        bounds = torch.searchsorted(ordered, starts).tolist()
        spans = zip(self.blocks, [0, *bounds], [*bounds, targets.size(0)], strict=True)
        return [(order[first:end], ordered[first:end] - block.start) for block, first, end in spans]

    def add_gradient(self, scaled: Tensor) -> None:
        """Adds the chunk's share of the words' gradient, from its hidden states divided by their sums."""
        tokens, factor = scaled.size(0), scaled.t().to(self.blocks[0].e.dtype)  # (n_embd, tokens)
        factor = factor.contiguous() if factor.dtype != torch.float32 else factor
        for block in reversed(self.blocks):  # the last ones are still in the cache
            part = matmul(factor, block.e[:tokens])
            block.gradient = part.float() if block.gradient is None else block.gradient.add_(part)

    def take_gradient(self, weight: Tensor) -> Tensor:
        """Returns the gradient of the words as (vocab_size, n_embd), and lets the blocks go."""
        for block in self.blocks:
            del block.e
        whole = torch.empty_like(weight, dtype=torch.float32)
        while self.blocks:
            block = self.blocks.pop()
            assert block.gradient is not None
            whole[block.start : block.start + block.words.size(1)] = block.gradient.t()
        return whole
