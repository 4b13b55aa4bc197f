"""One pass of a model over a text: three numbers for each token, from which every metric is computed (metrics.py).

They are the token's negative log-likelihood, the number of tokens that were at least as likely (rank), and the
probability of the most likely token (confidence). The logits of at most a few hundred tokens are held at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minigpt.config import IGNORE_INDEX
from minigpt.errors import ConfigError, DeviceError
from minigpt.evaluation.eval_text import EvalText, Ints
from minigpt.evaluation.windows import Windows
from minigpt.model import GPT
from minigpt.model.eval_mode import eval_mode
from minigpt.model.hooks import hooked
from minigpt.model.kernels.matmul import matmul
from minigpt.runtime import Runtime

Floats = npt.NDArray[np.float32]

SAFE_LOG = 60.0
"""Sums of exponentials between exp(-60) and exp(60) are well within float32's range."""


@dataclass(frozen=True)
class Scores:
    """The results for each predicted token, in the order of the text; arrays of shape (n_targets,).

    Attributes:
        positions: the token's position in the text.
        context: the number of tokens the model saw before it.
        nll: negative log-likelihood, in nats.
        rank: how many other tokens were at least as likely; 0 means that the most likely token was right.
        confidence: probability of the most likely token.
    """

    positions: Ints
    context: npt.NDArray[np.int32]
    nll: Floats
    rank: npt.NDArray[np.int32]
    confidence: Floats


def score(
    model: GPT,
    text: EvalText,
    runtime: Runtime,
    *,
    stride: int | None = None,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Returns the scores of every token of a text.

    Args:
        model: the model; left in the mode it was in.
        text: what to predict.
        runtime: device and precision.
        stride: tokens from one window to the next; block_size by default.
        batch_size: windows per forward pass; affects only rounding.
        on_progress: called with windows done and in all.

    Raises:
        ConfigError: if the stride or the batch size is out of range.
        DeviceError: if a result is not finite.
    """
    if batch_size < 1:
        raise ConfigError("The batch size must be positive", got=batch_size, remedy="Give 1 or more.")
    windows = Windows(text, model.config.block_size, model.config.block_size if stride is None else stride)
    parts = []
    with eval_mode(model), torch.inference_mode():
        scorer = TokenScorer(model.lm_head.weight, runtime.dtype)
        for first in range(0, len(windows), batch_size):
            stop = min(first + batch_size, len(windows))
            parts.append(_score_rows(model, scorer, runtime, *windows.rows(first, stop)))
            on_progress(stop, len(windows))
    scores = Scores(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    if not np.isfinite(scores.nll).all():
        raise DeviceError(
            "The model's logits are not finite",
            got=f"{runtime.precision} on {runtime.device}",
            remedy="Try --precision float32; if that does not help, the weights are damaged: try another --checkpoint.",
        )
    return scores


def _score_rows(
    model: GPT, scorer: TokenScorer, runtime: Runtime, x: Ints, y: Ints, positions: Ints
) -> tuple[npt.NDArray[np.generic], ...]:
    """Scores a batch: the arrays of `Scores`, for the targets among y."""
    wanted = y != IGNORE_INDEX  # (rows, time)
    ids, chosen, targets = (torch.from_numpy(part).to(runtime.device) for part in (x, wanted, y[wanted]))
    final: list[Tensor] = []  # the hidden states, whose logits the scorer forms a few at a time
    with runtime.autocast(), hooked(model, {"final": final.append}):
        model(ids, logits_to_keep=0)
    context = np.broadcast_to(np.arange(1, x.shape[1] + 1, dtype=np.int32), x.shape)
    nll, rank, confidence = (part.cpu().numpy() for part in scorer(final[0][chosen], targets))
    return positions[wanted], context[wanted], nll, rank, confidence


class TokenScorer:
    """Computes the three numbers of each token from the final hidden states and the targets.

    For logits z and target y:

        nll = log(sum(exp(z))) - z[y]      rank = count(z >= z[y]) - 1      confidence = max(exp(z)) / sum(exp(z))

    These are three passes over exp(z) after the matrix product, in blocks that fit into a CPU's cache.

    Args:
        weight: the output projection, (vocab_size, n_embd).
        dtype: number format of the matrix products; the target's logit and all sums are float32.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.weight, self.dtype = weight.float(), dtype
        # The mean embedding shifts all logits of a token equally, which changes no result but costs precision in
        # bfloat16.
        self.mean = self.weight.mean(dim=0)
        centred = (self.weight - self.mean).t().to(dtype)  # (n_embd, vocab_size)
        self.projection = (
            centred if dtype == torch.float32 else centred.contiguous()
        )  # each dtype's fast layout on a CPU
        on_cpu = weight.device.type == "cpu"
        narrow = 64 if dtype == torch.float32 else 256  # rows of a product, whose output should stay in the cache
        self.chunk, self.block = (narrow, 16) if on_cpu else (1024, 1024)  # and of a pass
        # Subtracting the maximum is needed only if exp(z) leaves float32's range. A CPU checks that at little cost; a
        # GPU would have to synchronise, and float16's range is small.
        self.subtract_maximum = not on_cpu or dtype == torch.float16
        shape = self.chunk, self.weight.size(0)
        # Buffers are reused: allocating memory of this size costs as much as the passes.
        self.logits = torch.empty(shape, dtype=dtype, device=weight.device)
        self.wide = torch.empty(self.block, shape[1], device=weight.device)
        # A CPU adds float32 ten times as fast as it counts booleans.
        self.flags = torch.empty_like(self.wide, dtype=torch.float32 if on_cpu else torch.bool)

    def __call__(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns nll (float32), rank (int32) and confidence (float32), each of shape (tokens).

        Args:
            hidden: the last hidden states, (tokens, n_embd).
            targets: the token that follows each, (tokens).
        """
        h = hidden.float()
        own = (h * (self.weight[targets] - self.mean)).sum(dim=1)  # (tokens): the target's logit
        parts = [torch.empty(3, 0, device=h.device)]
        for start in range(0, len(h), self.chunk):
            rows = slice(start, start + self.chunk)
            parts.append(self._chunk(h[rows].to(self.dtype), targets[rows], own[rows]))
        nll, rank, confidence = torch.cat(parts, dim=1)
        return nll, rank.int(), confidence

    def _chunk(self, h: Tensor, targets: Tensor, own: Tensor) -> Tensor:
        """Returns the three numbers of up to `chunk` tokens, (3, rows)."""
        logits = matmul(h, self.projection, out=self.logits[: len(h)])  # (rows, vocab_size)
        blocks = zip(*(part.split(self.block) for part in (logits, targets, own)), strict=True)
        result = torch.cat([self._block(*block) for block in blocks], dim=1)
        log_total = result[0] + own
        if not self.subtract_maximum and not bool((log_total.abs() < SAFE_LOG).all()):
            self.subtract_maximum = True
            return self._chunk(h, targets, own)
        return result

    def _block(self, z: Tensor, targets: Tensor, own: Tensor) -> Tensor:
        """Returns the three numbers of up to `block` tokens, (3, rows), from their logits, which it overwrites."""
        if self.subtract_maximum:
            z = z.float()
            top = torch.maximum(z.amax(dim=1), own)
            z, own = z - top[:, None], own - top
        e, own_e = z.exp_(), own.exp()
        if e.dtype != torch.float32:
            e = self.wide[: len(e)].copy_(e)
        e[torch.arange(len(e), device=e.device), targets] = 0  # the target's own logit is exact, in float32
        total = e.sum(dim=1) + own_e
        as_likely = torch.ge(e, own_e[:, None], out=self.flags[: len(e)])
        rank = as_likely.sum(dim=1, dtype=torch.float32)
        confidence = torch.maximum(e.amax(dim=1), own_e) / total
        return torch.stack([total.log() - own, rank, confidence])
