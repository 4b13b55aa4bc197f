"""What a head does, as numbers from its attention pattern.

    previous token   mean attention to the token before
    same token       mean attention to earlier occurrences of the token, where there are any
    first token      mean attention to the first token, where many heads rest
    induction        on random tokens that are repeated: mean attention to the token after the earlier occurrence
                     (Olsson et al. 2022)

The first positions are left out, where a pattern has little choice. A uniform pattern scores about 1 / position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.explain.trace import Trace, record_trace
from minigpt.model import GPT


def head_scores(model: GPT, trace: Trace) -> dict[str, Tensor]:
    """Returns previous token, same token and first token scores of all heads for a text, each (n_layer, heads)."""
    patterns = attention_patterns(model, trace)  # (n_layer, heads, time, time)
    earlier_same = (trace.ids[:, None] == trace.ids).tril(-1)  # (queries, keys)
    repeats = earlier_same.any(1)
    same = (patterns * earlier_same).sum(-1)[..., repeats]
    return {
        "previous token": patterns.diagonal(-1, -2, -1)[..., 1:].mean(-1),
        "same token": same.mean(-1) if repeats.any() else torch.zeros(patterns.shape[:2]),
        "first token": patterns[..., 2:, 0].mean(-1),
    }


def attention_patterns(model: GPT, trace: Trace) -> Tensor:
    """Returns the attention patterns of all heads, (n_layer, heads, queries, keys); each row sums to 1."""
    return torch.stack([trace[f"h.{layer}.attn.pattern"] for layer in range(model.config.n_layer)])


def repeated_tokens(vocab_size: int, length: int, seed: int = 0) -> Tensor:
    """Returns `length` random token ids, twice in a row: (2 * length)."""
    once = torch.randint(vocab_size, (length,), generator=torch.Generator().manual_seed(seed))
    return torch.cat((once, once))


def induction_scores(model: GPT, length: int | None = None, seed: int = 0) -> Tensor:
    """Returns the induction score of each head, (n_layer, heads).

    Args:
        model: the model.
        length: number of random tokens before they repeat; None for half the context, at most 64.
        seed: of the random tokens.
    """
    length = length or induction_length(model.config)
    ids = repeated_tokens(model.config.vocab_size, length, seed).to(model.wte.weight.device)
    return induction_of(attention_patterns(model, record_trace(model, ids)), length)


def induction_length(config: GPTConfig) -> int:
    """Returns the number of random tokens that `induction_scores` repeats: half the context, at most 64."""
    return min(config.block_size // 2, 64)


def induction_chance(length: int) -> float:
    """Returns the induction score of a head that attends to all tokens alike."""
    return sum(1 / (position + 1) for position in range(length, 2 * length)) / length


def induction_of(patterns: Tensor, length: int) -> Tensor:
    """Returns the mean attention from i to i - (length - 1) over the second half of patterns (..., 2n, 2n)."""
    return patterns.diagonal(-(length - 1), -2, -1)[..., 1:].mean(-1)
