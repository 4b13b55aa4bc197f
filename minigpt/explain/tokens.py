"""Single tokens: which embeddings are alike, and how hard each token of a text was to predict."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.explain.trace import Trace
from minigpt.model import GPT


def nearest_tokens(model: GPT, token: int, count: int = 10) -> list[tuple[int, float]]:
    """Returns the tokens whose embeddings are most similar to a token's, with their cosine similarity, best first."""
    rows = F.normalize(model.wte.weight.detach().float(), dim=1)  # (vocab_size, n_embd)
    similarity = rows @ rows[token]
    similarity[token] = -torch.inf
    best = similarity.topk(min(count, len(rows) - 1))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def token_losses(trace: Trace) -> Tensor:
    """Returns the loss of each token of a text but the first, in nats: (time - 1)."""
    return F.cross_entropy(trace.logits[:-1], trace.ids[1:], reduction="none")


def in_context_score(losses: Tensor, early: int = 50, late: int = 500) -> float:
    """Returns mean loss late in the context minus mean loss early in it, in nats (Olsson et al. 2022).

    Negative numbers mean that the model makes use of a long context.

    Args:
        losses: of the tokens of texts, (texts, time).
        early, late: positions, for a context of 512 tokens; scaled to that of `losses`.
    """
    time = losses.size(-1)
    places = [min(time - 1, round(place * time / 512)) for place in (early, late)]
    return float(losses[..., places[1]].mean() - losses[..., places[0]].mean())
