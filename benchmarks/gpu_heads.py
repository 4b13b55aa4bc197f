"""The vocabulary head alone, as gpu.py times it: ours, the plain one, and those that others offer.

Each takes hidden states (tokens, n_embd), words (vocab_size, n_embd), both float32, and targets, and returns the mean
cross-entropy. Its matrix products run in bfloat16.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from measuring import zipf_ids
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor, Tensor, Tensor], Tensor]

CHUNK = 1024
"""Tokens at once in the heads that leave the choice to us."""


def ours() -> Head:
    """minigpt/model/kernels/cross_entropy.py."""
    from minigpt.model.kernels.cross_entropy import cross_entropy_sum

    return lambda hidden, words, targets: cross_entropy_sum(hidden, words, targets) / len(targets)


def plain() -> Head:
    """All logits at once."""
    return lambda hidden, words, targets: F.cross_entropy(F.linear(hidden, words).float(), targets)


def compiled_plain() -> Head:
    """All logits at once, compiled."""
    return torch.compile(plain())


def compiled_chunks() -> Head:
    """A compiled chunk after another, its logits computed again when going backward."""

    @torch.compile
    def chunk(hidden: Tensor, words: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, words).float(), targets, reduction="sum")

    def head(hidden: Tensor, words: Tensor, targets: Tensor) -> Tensor:
        pairs = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
        losses = [checkpoint(chunk, part, words, goals, use_reentrant=False) for part, goals in pairs]
        return torch.stack(losses).sum() / len(targets)

    return head


def torchs_own() -> Head:
    """torch.nn.functional.linear_cross_entropy, which newer torch has."""
    linear_cross_entropy, options = F.linear_cross_entropy, torch.nn.LinearCrossEntropyOptions
    chosen = options(batch_chunk_size=CHUNK, acc_policy="balanced")
    return lambda hidden, words, targets: linear_cross_entropy(
        hidden.bfloat16(), words.bfloat16(), targets, options=chosen
    )


def cut() -> Head:
    """cut_cross_entropy, a package."""
    from cut_cross_entropy import linear_cross_entropy

    return lambda hidden, words, targets: linear_cross_entropy(hidden.bfloat16(), words.bfloat16(), targets)


def liger() -> Head:
    """liger_kernel, a package."""
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

    fused = LigerFusedLinearCrossEntropyLoss()
    return lambda hidden, words, targets: fused(words.bfloat16(), hidden.bfloat16(), targets)


HEADS: dict[str, Callable[[], Head]] = {
    "ours": ours,
    "plain, all logits": plain,
    "plain, compiled": compiled_plain,
    "compiled chunks": compiled_chunks,
    "torch linear_cross_entropy": torchs_own,
    "cut_cross_entropy": cut,
    "liger_kernel": liger,
}


def time_heads(device: torch.device, tiny: bool) -> list[dict[str, Any]]:
    """Times each head, forward and backward, and tells how far its words' gradient is from float32's."""
    tokens, width, words = (64, 16, 300) if tiny else (4096, 128, 50_257)
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, width, device=device), 0.1 * torch.randn(words, width, device=device)
    targets = torch.from_numpy(zipf_ids(words, tokens, seed=0)).to(device)
    _, exact = _once(plain(), hidden, weight, targets, lowered=False)
    rows = []
    for title, make in HEADS.items():
        try:
            rows.append({"title": title, **_time(make(), hidden, weight, targets, exact, steps=3 if tiny else 20)})
        except Exception as error:  # not installed, not on this device, or a compiler's trouble: say it and go on
            rows.append({"title": title, "failed": f"{type(error).__name__}: {error}".splitlines()[0][:160]})
    return rows


def _once(head: Head, hidden: Tensor, words: Tensor, targets: Tensor, lowered: bool = True) -> tuple[Tensor, Tensor]:
    """Returns loss and the words' gradient."""
    h, w = hidden.detach().requires_grad_(), words.detach().requires_grad_()
    with torch.autocast(hidden.device.type, dtype=torch.bfloat16, enabled=lowered):
        loss = head(h, w, targets)
    loss.backward()
    assert w.grad is not None
    return loss.detach(), w.grad


def _time(head: Head, hidden: Tensor, words: Tensor, targets: Tensor, exact: Tensor, steps: int) -> dict[str, Any]:
    from minigpt.runtime import synchronise

    device, seconds, peak = hidden.device, [], None
    loss, gradient = _once(head, hidden, words, targets)  # the first one compiles, and is looked at
    off = float((gradient - exact).norm() / exact.norm())
    del gradient
    _once(head, hidden, words, targets)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(steps):
        synchronise(device)
        began = time.perf_counter()
        _once(head, hidden, words, targets)
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) - before
    return {"milliseconds": 1000 * statistics.median(seconds), "peak_memory": peak, "loss": float(loss), "off": off}
