"""Cross-entropy of the vocabulary head without ever holding all the logits.

With GPT-2's vocabulary the logits of 8 x 512 tokens take 823 MB in float32 and their gradient as much again, while the
model itself takes 28 MB. But the loss needs only a few rows at a time: `cross_entropy_sum` computes the logits of a
chunk of tokens, adds the chunk's loss and its share of both gradients, and reuses the memory for the next chunk.
`GPT.loss` in gpt.py is the textbook form.

docs/log.md has the measured gain of each step taken here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minigpt.config import IGNORE_INDEX
from minigpt.model.kernels.matmul import matmul


def cross_entropy_sum(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int | None = None) -> Tensor:
    """Returns the summed cross-entropy in nats, a float32 scalar, holding the logits of at most `chunk` tokens.

    Matrix products use autocast's number format if it is enabled; sums and the loss are float32 in any case. The
    forward pass computes the gradients too, so the backward pass only scales them.

    Args:
        hidden: the last hidden states, (tokens, n_embd).
        weight: the output projection, (vocab_size, n_embd).
        targets: the token that follows each, or IGNORE_INDEX, (tokens).
        chunk: number of tokens whose logits are held at once; None for what is fast on this device.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    chunk = chunk or chunk_size(kind, dtype)
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, chunk, dtype, needs_gradient)
    return loss


def chunk_size(kind: str, dtype: torch.dtype) -> int:
    """Returns how many tokens' logits are held at once: 1 kB per vocabulary entry on a CPU, 4 kB elsewhere."""
    return (1024 if kind == "cpu" else 4096) // dtype.itemsize


def tile_size(kind: str, vocab_size: int) -> int:
    """Returns the number of vocabulary entries per tile: what fits a CPU's cache; GPUs take the whole vocabulary."""
    return min(2560, vocab_size) if kind == "cpu" else vocab_size


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The loop over chunks of tokens. For a token with logits z and target y, and p = softmax(z):

    loss = log(sum(exp(z))) - z[y]        d loss / d z = p - onehot(y)

    The target is treated apart from all other tokens. Its logit is computed in float32, because the loss and the
    gradient p - 1 are small differences that bfloat16 would round away once the model is confident.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype, needs_gradient: bool
    ) -> Tensor:
        h, tokens = hidden.float(), hidden.size(0)
        counts = (targets != IGNORE_INDEX).float()
        targets = targets.clamp(min=0)
        # Subtracting one vector from every row of the weight shifts all logits of a token alike, which softmax ignores.
        # With the mean of the targets' rows, likely tokens get small logits, which bfloat16 resolves finely.
        target_rows = weight[targets]  # (tokens, n_embd)
        mean = target_rows.mean(dim=0)
        target_rows -= mean
        target_logits = (h * target_rows).sum(dim=1)  # float32

        head = _TiledHead(weight, mean, dtype, min(chunk, tokens), needs_gradient)
        loss = torch.zeros((), device=h.device)
        of_hidden, misses = torch.empty_like(h), torch.empty_like(target_logits)
        for start in range(0, tokens, chunk):
            now = slice(start, min(start + chunk, tokens))
            others, own, weighted = head.exponentials(h[now].to(dtype), targets[now], target_logits[now])
            total = others + own.exp()
            loss += ((total.log() - own) * counts[now]).sum()
            if needs_gradient:  # p is exp(logits) * scale, except for the target, whose p - 1 is -others * scale
                scale = counts[now] / total
                of_hidden[now] = weighted * scale[:, None]
                misses[now] = others * scale
                head.add_gradient(h[now] * scale[:, None])
        if needs_gradient:
            of_hidden -= target_rows * misses[:, None]
            of_weight = head.take_gradient(weight)
            of_weight.index_add_(0, targets, h * -misses[:, None])
            ctx.gradients = of_hidden, of_weight
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        of_hidden, of_weight = ctx.gradients
        del ctx.gradients  # scaled in place: a copy would be as large as the weights
        return of_hidden.mul_(upstream[0]), of_weight.mul_(upstream[0]), None, None, None, None


class _Tile:
    """A range of the vocabulary, with buffers for the logits of a chunk of tokens and for the gradient of its rows.

    Attributes:
        start: the first token id.
        rows: the range's rows of the output projection, transposed: (n_embd, size).
        e: exp(logits) of the current chunk, not divided by their sum: (tokens, size).
        gradient: (n_embd, size), float32; None before the first chunk.
    """

    def __init__(self, start: int, rows: Tensor, e: Tensor) -> None:
        self.start, self.rows, self.e = start, rows, e
        self.gradient: Tensor | None = None

    def logits(self, h: Tensor) -> Tensor:
        """Returns the logits of hidden states (tokens, n_embd), and stores them in `e`."""
        e = matmul(h, self.rows, out=self.e[: h.size(0)])
        if e.data_ptr() != self.e.data_ptr():
            self.e = e
        return e


class _TiledHead:
    """The output projection in tiles of the vocabulary, so that a CPU finds a tile's logits in its cache.

    The maximum logit is subtracted before the exponential only if a sum leaves the range in which float32 is accurate,
    or on devices where checking that would force a synchronisation. Buffers are allocated once for all chunks: page
    faults of fresh memory of this size cost more than the exponential itself.
    """

    def __init__(self, weight: Tensor, mean: Tensor, dtype: torch.dtype, chunk: int, needs_gradient: bool) -> None:
        kind = weight.device.type
        self.needs_gradient = needs_gradient
        self.subtract_maximum = kind != "cpu" or dtype == torch.float16
        self.tiles: list[_Tile] = []
        # One allocation, so that freeing it makes room for the gradient, which is one allocation too.
        room, start = torch.empty(chunk * weight.size(0), dtype=dtype, device=weight.device), 0
        for part in weight.split(tile_size(kind, weight.size(0))):
            rows = (part - mean).t().to(dtype)
            rows = rows.contiguous() if dtype != torch.float32 else rows  # each dtype's fast layout on a CPU
            size = part.size(0)
            self.tiles.append(_Tile(start, rows, room[chunk * start : chunk * (start + size)].view(chunk, size)))
            start += size

    def exponentials(self, h: Tensor, targets: Tensor, target_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes exp(logits) of a chunk into the tiles, with 0 at each target.

        Args:
            h: hidden states in the tiles' number format, (tokens, n_embd).
            targets, target_logits: (tokens).

        Returns:
            others: the sum of all exponentials except the target's, (tokens), float32.
            own: the target's logit on the same scale, (tokens), float32.
            weighted: the sum of all rows, weighted by their exponentials, (tokens, n_embd), float32.
        """
        tokens, maximum = h.size(0), None
        if self.subtract_maximum:
            tops = [tile.logits(h).amax(dim=1) for tile in self.tiles]
            maximum = torch.stack([*tops, target_logits.to(h.dtype)]).amax(dim=0)
            target_logits = target_logits - maximum.float()
        others = torch.zeros(tokens, device=h.device)
        weighted = torch.zeros(h.shape, device=h.device)
        for tile, (row, column) in zip(self.tiles, self._places(targets), strict=True):
            e = tile.logits(h) if maximum is None else tile.e[:tokens].sub_(maximum[:, None])
            e.exp_()
            e[row, column] = 0  # (scatter_ would copy all of e)
            others += e.sum(dim=1, dtype=torch.float32)
            if self.needs_gradient:
                weighted += matmul(e, tile.rows.t())
        total = others + target_logits.exp()
        if maximum is None and not bool(((total > 1e-15) & (total < 1e15)).all()):
            self.subtract_maximum = True
            return self.exponentials(h, targets, target_logits)
        return others, target_logits, weighted

    def _places(self, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns for each tile the tokens whose target is in it, and the target's place in the tile."""
        if len(self.tiles) == 1:
            return [(torch.arange(targets.size(0), device=targets.device), targets)]
        ordered, order = targets.sort()
        starts = torch.tensor([tile.start for tile in self.tiles[1:]])
        bounds = torch.searchsorted(ordered, starts).tolist()
        spans = zip(self.tiles, [0, *bounds], [*bounds, targets.size(0)], strict=True)
        return [(order[first:end], ordered[first:end] - tile.start) for tile, first, end in spans]

    def add_gradient(self, scaled: Tensor) -> None:
        """Adds the chunk's share of the weight's gradient, given its hidden states divided by their sums."""
        tokens, factor = scaled.size(0), scaled.t().to(self.tiles[0].e.dtype)  # (n_embd, tokens)
        factor = factor.contiguous() if factor.dtype != torch.float32 else factor
        for tile in reversed(self.tiles):  # the last ones are still in the cache
            part = matmul(factor, tile.e[:tokens])
            tile.gradient = part.float() if tile.gradient is None else tile.gradient.add_(part)

    def take_gradient(self, weight: Tensor) -> Tensor:
        """Returns the gradient of the weight, (vocab_size, n_embd), and frees the tiles."""
        for tile in self.tiles:
            del tile.e
        whole = torch.empty_like(weight, dtype=torch.float32)
        while self.tiles:
            tile = self.tiles.pop()
            assert tile.gradient is not None
            whole[tile.start : tile.start + tile.rows.size(1)] = tile.gradient.t()
        return whole
