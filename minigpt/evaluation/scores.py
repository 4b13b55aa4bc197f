"""One pass of a model over a text: for each token three numbers, from which every figure follows.

How surprised the model was (negative log-likelihood), how many tokens it held for at least as likely (rank), and how
sure it was of its first guess (confidence). The logits of a few hundred tokens at most are held at once.

Not here: what is made of the numbers (metrics.py).
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
from minigpt.model.hooks import hooked
from minigpt.model.kernels.matmul import matmul
from minigpt.runtime import Runtime

Floats = npt.NDArray[np.float32]

SAFE_LOG = 60.0
"""A sum of exponentials between exp(-60) and exp(60) is far from float32's ends."""


@dataclass(frozen=True)
class Scores:
    """What a model made of each token it had to predict, in the order of the text; arrays of shape (n_targets,).

    Attributes:
        places: where the token stands in the material.
        context: how many tokens the model saw before it.
        nll: negative log-likelihood, in nats.
        rank: how many other tokens were at least as likely; 0 means the first guess was right.
        confidence: probability of the first guess.
    """

    places: Ints
    context: npt.NDArray[np.int32]
    nll: Floats
    rank: npt.NDArray[np.int32]
    confidence: Floats


def score(
    model: GPT,
    material: EvalText,
    machine: Runtime,
    *,
    stride: int | None = None,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Returns what the model makes of every token of a material.

    Args:
        model: the model; left in the mode it was in.
        material: what to predict.
        machine: device and precision to compute with.
        stride: tokens from one window to the next; block_size when left out.
        batch_size: windows at once; the result depends on it by rounding only.
        on_progress: called with windows done and in all.

    Raises:
        ConfigError: if the stride or the batch size is out of range.
        DeviceError: if a result is not finite.
    """
    if batch_size < 1:
        raise ConfigError("batch-size must be positive", got=batch_size, remedy="Give 1 or more.")
    windows = Windows(material, model.config.block_size, model.config.block_size if stride is None else stride)
    was_training = model.training
    model.eval()
    parts = []
    try:
        with torch.inference_mode():
            scorer = TokenScorer(model.lm_head.weight, machine.dtype)
            for first in range(0, len(windows), batch_size):
                stop = min(first + batch_size, len(windows))
                parts.append(_score_rows(model, scorer, machine, *windows.rows(first, stop)))
                on_progress(stop, len(windows))
    finally:
        model.train(was_training)
    scores = Scores(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    if not np.isfinite(scores.nll).all():
        raise DeviceError(
            "The model's output is not finite",
            got=f"{machine.precision} on {machine.device}",
            remedy="Try --precision float32; if that is no better, the weights are damaged: try another --checkpoint.",
        )
    return scores


def _score_rows(
    model: GPT, scorer: TokenScorer, machine: Runtime, x: Ints, y: Ints, places: Ints
) -> tuple[npt.NDArray[np.generic], ...]:
    """Scores a batch: the arrays of `Scores`, for the targets among y."""
    wanted = y != IGNORE_INDEX  # (rows, time)
    ids, chosen, targets = (torch.from_numpy(part).to(machine.device) for part in (x, wanted, y[wanted]))
    final: list[Tensor] = []  # the hidden states, whose logits the scorer forms a few at a time
    with machine.autocast(), hooked(model, {"final": final.append}):
        model(ids, logits_to_keep=0)
    context = np.broadcast_to(np.arange(1, x.shape[1] + 1, dtype=np.int32), x.shape)
    nll, rank, confidence = (part.cpu().numpy() for part in scorer(final[0][chosen], targets))
    return places[wanted], context[wanted], nll, rank, confidence


class TokenScorer:
    """The vocabulary head as an examiner: hidden states and the tokens that came, to three numbers a token.

    For a token with logits z and target y, on a scale where the largest numbers fit into float32:

        nll = log(sum(exp(z))) - z[y]      rank = count(z >= z[y]) - 1      confidence = max(exp(z)) / sum(exp(z))

    Three passes over exp(z) beside the matrix product, in blocks that stay in a CPU's cache, so that they cost little.

    Args:
        weight: the output projection, (vocab_size, n_embd).
        dtype: number format of the matrix products; the target's logit and all sums are float32.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.weight, self.dtype = weight.float(), dtype
        # What the words have in common moves all logits of a token alike, which changes nothing here, but would eat
        # the few digits of bfloat16.
        self.mean = self.weight.mean(dim=0)
        words = (self.weight - self.mean).t().to(dtype)  # (n_embd, vocab_size)
        self.words = words if dtype == torch.float32 else words.contiguous()  # each dtype's fast layout on a CPU
        on_cpu = weight.device.type == "cpu"
        narrow = 64 if dtype == torch.float32 else 256  # rows in a product: what it writes should stay in the cache
        self.chunk, self.block = (narrow, 16) if on_cpu else (1024, 1024)  # and rows in a pass
        # Taking the maximum off first is needed where exp(z) leaves float32's range, which a CPU finds out at little
        # cost; a GPU would have to wait for the answer, and float16's range is small.
        self.take_off_maximum = not on_cpu or dtype == torch.float16
        shape = self.chunk, self.weight.size(0)
        # Buffers are taken once: fresh memory of this size costs as much as the passes.
        self.logits = torch.empty(shape, dtype=dtype, device=weight.device)
        self.wide = torch.empty(self.block, shape[1], device=weight.device)
        kind_of_flags = (
            torch.float32 if on_cpu else torch.bool
        )  # a CPU adds float32 ten times as fast as it counts True
        self.flags = torch.empty_like(self.wide, dtype=kind_of_flags)

    def __call__(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns nll (float32), rank (int32) and confidence (float32), each of shape (tokens).

        Args:
            hidden: the last hidden states, (tokens, n_embd).
            targets: the token that followed each, (tokens).
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
        logits = matmul(h, self.words, out=self.logits[: len(h)])  # (rows, vocab_size)
        blocks = zip(*(part.split(self.block) for part in (logits, targets, own)), strict=True)
        result = torch.cat([self._block(*block) for block in blocks], dim=1)
        log_total = result[0] + own
        if not self.take_off_maximum and not bool((log_total.abs() < SAFE_LOG).all()):
            self.take_off_maximum = True
            return self._chunk(h, targets, own)
        return result

    def _block(self, z: Tensor, targets: Tensor, own: Tensor) -> Tensor:
        """Returns the three numbers of up to `block` tokens, (3, rows), from their logits, which are overwritten."""
        if self.take_off_maximum:
            z = z.float()
            top = torch.maximum(z.amax(dim=1), own)
            z, own = z - top[:, None], own - top
        e, own_e = z.exp_(), own.exp()
        if e.dtype != torch.float32:
            e = self.wide[: len(e)].copy_(e)
        e[torch.arange(len(e), device=e.device), targets] = 0  # the target stands apart, with all its digits
        total = e.sum(dim=1) + own_e
        as_likely = torch.ge(e, own_e[:, None], out=self.flags[: len(e)])
        rank = as_likely.sum(dim=1, dtype=torch.float32)
        confidence = torch.maximum(e.amax(dim=1), own_e) / total
        return torch.stack([total.log() - own, rank, confidence])
