"""Samplers: from the logits of the next token to the token, as pure functions.

`Sampling.pick` combines them in this order: temperature, then top-k, then top-p, then the draw. At temperature 0 the
most likely token is taken and nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.errors import ConfigError


def temperature(logits: Tensor, value: float) -> Tensor:
    """Returns logits (..., vocab_size) divided by `value`: below 1 sharpens the choice, above 1 flattens it."""
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Returns logits (..., vocab_size) with all but the k largest at minus infinity (Fan et al. 2018)."""
    k = min(k, logits.size(-1))
    kept = logits.topk(k, dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, kept.indices, kept.values)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Returns logits with all but the most likely tokens that together reach probability p at minus infinity.

    The most likely token always stays (nucleus sampling, Holtzman et al. 2020).
    """
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)  # probability of the more likely ones
    return torch.full_like(logits, float("-inf")).scatter(-1, order, ordered.masked_fill(before >= p, float("-inf")))


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely token; 1 draws from the model's own distribution.
        top_k: choose among the k most likely tokens only; None for all.
        top_p: choose among the most likely tokens that together have this probability; None for all.
    """

    temperature: float = 0.8
    top_k: int | None = 50
    top_p: float | None = None

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence with its remedy."""
        if not 0 <= self.temperature < float("inf"):
            yield f"temperature is {self.temperature}; give 0 (greedy) or a positive number such as 0.8"
        if self.top_k is not None and self.top_k < 1:
            yield f"top-k is {self.top_k}; give a positive number, or none for all tokens"
        if self.top_p is not None and not 0 < self.top_p <= 1:
            yield f"top-p is {self.top_p}; give a probability above 0, up to 1"

    def check(self) -> None:
        """Raises ConfigError if a setting cannot work."""
        if mistakes := list(self.problems()):
            raise ConfigError("The sampling settings cannot work", remedy="; ".join(mistakes) + ".")

    def pick(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the chosen token of each row: (batch) from logits (batch, vocab_size) in float32 on the CPU."""
        if self.temperature < 1e-6:  # what is left of the others would not fit into a float
            return logits.argmax(dim=-1)
        logits = temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = top_p(logits, self.top_p)
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]
