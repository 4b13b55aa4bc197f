"""Samplers: from the logits of the next token to the token, as pure functions.

Each function takes logits (batch, vocab_size) in float32 and returns new ones; what it drops is at minus infinity. They
stand here in the order in which `Sampling` combines them:

    logit bias, repetition, presence and frequency penalties, no repeated n-grams, banned tokens,
    temperature, top-k, top-p, min-p, typical, and then the draw

Those that look back take `history`: each row's tokens so far, the prompt's and the new ones. Each of the others draws a
line through the likelihoods, and a token as likely as the last one kept is kept too: what is left is a function of the
logits alone, whatever the machine, the batch or the way of sorting.

Random numbers come from outside, one for each row, and so do the logits: no model is run here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypedDict

import numpy as np
import torch
from torch import Tensor

from minigpt.errors import ConfigError
from minigpt.generation.logit_range import (
    Band,
    band_of_the_likely,
    kth_largest,
    on_cpu,
    order,
    rough_line,
    sums,
    weights,
    within,
    without_rest,
)

History: TypeAlias = Sequence[Sequence[int]]
"""Each row's tokens so far."""

NONE_LEFT = -1
"""What `Sampling.pick` returns for a row in which every token is banned."""

_MINUS_INFINITY = float("-inf")
_COLDEST = 1e-6
"""Below this temperature what is left of the others would not fit into a float: it is greedy."""


def logit_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Returns the logits with a number added to those of some tokens; minus infinity bans a token."""
    ids = torch.tensor(list(bias), device=logits.device)
    return logits.index_add(1, ids, logits.new_tensor(list(bias.values())).expand(len(logits), -1))


def repetition_penalty(logits: Tensor, history: History, penalty: float) -> Tensor:
    """Returns the logits with those of tokens in the history made less likely (Keskar et al. 2019, section 4.1).

    Positive ones are divided by the penalty, negative ones multiplied with it: above 1 it holds back, below it favours.
    """
    rows, ids, _ = _counts(history, logits.device)
    seen = logits[rows, ids]
    return logits.index_put((rows, ids), torch.where(seen < 0, seen * penalty, seen / penalty))


def presence_penalty(logits: Tensor, history: History, penalty: float) -> Tensor:
    """Returns the logits less `penalty` for each token that is in the history, however often (OpenAI's API)."""
    rows, ids, _ = _counts(history, logits.device)
    return logits.index_put((rows, ids), logits[rows, ids] - penalty)


def frequency_penalty(logits: Tensor, history: History, penalty: float) -> Tensor:
    """Returns the logits less `penalty` for each time that a token is in the history (OpenAI's API)."""
    rows, ids, counts = _counts(history, logits.device)
    return logits.index_put((rows, ids), logits[rows, ids] - counts * penalty)


def no_repeat_ngram(logits: Tensor, history: History, n: int) -> Tensor:
    """Returns the logits without the tokens that would end a row of n tokens which is in the history already."""
    rows, ids = [], []
    for row, tokens in enumerate(history):
        text = np.asarray(tokens, dtype=np.int64)
        if len(text) >= n:
            ngrams = np.lib.stride_tricks.sliding_window_view(text, n)  # (len - n + 1, n)
            last = text[len(text) - n + 1 :]  # the n - 1 tokens that the next one follows
            found = ngrams[(ngrams[:, :-1] == last).all(axis=1), -1]
            ids.append(found)
            rows.append(np.full_like(found, row))
    if not ids:
        return logits
    where = tuple(torch.from_numpy(np.concatenate(part)).to(logits.device) for part in (rows, ids))
    return logits.index_put(where, logits.new_tensor(_MINUS_INFINITY))


def ban(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Returns the logits without some tokens."""
    return logits.index_fill(1, torch.tensor(ids, device=logits.device), _MINUS_INFINITY)


def temperature(logits: Tensor, value: float) -> Tensor:
    """Returns the logits divided by `value`: below 1 sharpens the choice, above 1 flattens it."""
    return logits / value


def greedy(logits: Tensor) -> Tensor:
    """Returns the logits of the most likely token alone, the first of equals: the limit of temperature 0."""
    best = logits.argmax(dim=-1, keepdim=True)
    return torch.full_like(logits, _MINUS_INFINITY).scatter(1, best, logits.gather(1, best))


def top_k(logits: Tensor, k: int) -> Tensor:
    """Returns the logits of the k most likely tokens (Fan et al. 2018)."""
    return within(logits, top_k_band(logits, k))


def top_p(logits: Tensor, p: float) -> Tensor:
    """Returns the logits of the most likely tokens that together reach probability p (Holtzman et al. 2020)."""
    return within(logits, top_p_band(logits, p))


def min_p(logits: Tensor, share: float) -> Tensor:
    """Returns the logits of the tokens at least `share` times as likely as the most likely one (Nguyen et al. 2024)."""
    return within(logits, min_p_band(logits, share))


def typical(logits: Tensor, p: float) -> Tensor:
    """Returns the logits of the tokens nearest to the expected surprise that together reach probability p.

    A token's surprise is -log of its probability; its expectation is the entropy. So the most likely tokens may go too:
    they would say too little (locally typical sampling, Meister et al. 2023).
    """
    return within(logits, typical_band(logits, p))


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Returns one token for each row, (batch,), drawn with the probabilities that the logits give.

    The distribution is summed up in the order of the ids, token after token, and the token at which the sum reaches a
    random share is taken. Tokens at minus infinity add nothing, so the choice is the same when they are left out.

    Args:
        logits: (batch, vocab_size); in each row at least one must be finite.
        uniforms: (batch,) in float64, from 0 up to, not including, 1.
    """
    reached = weights(logits).cumsum(dim=-1)
    wanted = (1 - uniforms).to(reached)[:, None] * reached[:, -1:]  # above 0, so that only a kept token can reach it
    return torch.searchsorted(reached, wanted)[:, 0].clamp(max=logits.size(1) - 1)  # it is past the end for NaN alone


def top_k_band(logits: Tensor, k: int) -> Band:
    """Returns where `top_k` draws its line."""
    return kth_largest(logits, min(k, logits.size(1))), None


def top_p_band(logits: Tensor, p: float) -> Band:
    """Returns where `top_p` draws its line."""

    def lines(likely: Tensor, peak: Tensor, total: Tensor) -> tuple[Band, Tensor]:
        reached = (likely - peak).exp().cumsum(dim=-1)
        surplus = reached[:, -1:] - p * total  # what is to be dropped of these, when all others are dropped
        dropped = torch.searchsorted(reached, surplus, right=True).clamp(max=likely.size(1) - 1)
        return (likely.gather(1, dropped), None), surplus >= 0

    return band_of_the_likely(logits, logits.amax(dim=-1, keepdim=True), sums(weights(logits)), lines=lines)


def min_p_band(logits: Tensor, share: float) -> Band:
    """Returns where `min_p` draws its line."""
    return logits.amax(dim=-1, keepdim=True) + math.log(share), None


def typical_band(logits: Tensor, p: float) -> Band:
    """Returns where `typical` draws its two lines."""

    def lines(likely: Tensor, peak: Tensor, total: Tensor, expected: Tensor) -> tuple[Band, Tensor]:
        shifted = likely - peak  # the surprise, but for its sign and a number that it has in common with the entropy
        distance = (shifted - expected).abs()  # of surprise from entropy; it falls, then rises
        nearest = order(distance)
        reached = shifted.exp().gather(1, nearest).cumsum(dim=-1)
        last = torch.searchsorted(reached, p * total).clamp(max=likely.size(1) - 1)
        farthest = distance.gather(1, nearest.gather(1, last))
        dropped = distance > farthest
        least = likely.masked_fill(dropped, math.inf).amin(dim=-1, keepdim=True)
        most = likely.masked_fill(dropped, _MINUS_INFINITY).amax(dim=-1, keepdim=True)
        return (least, most), (reached[:, -1:] >= p * total) & (farthest <= expected - shifted[:, :1])

    peak, masses = logits.amax(dim=-1, keepdim=True), weights(logits)
    total = sums(masses)
    expected = sums((masses * (logits - peak)).nan_to_num()) / total  # 0 times minus infinity counts as 0
    return band_of_the_likely(logits, peak, total, expected, lines=lines)


class SamplerSettings(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments, none of them required."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float] | None
    banned: Sequence[int]
    no_repeat_ngram: int | None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: the samplers and their settings, combined in the order of this file.

    Attributes:
        temperature: 0 takes the most likely token; 1 draws from the model's own distribution.
        top_k: choose among the k most likely tokens only; None for all.
        top_p: choose among the most likely tokens that together have this probability; None for all.
        min_p: choose among tokens at least this many times as likely as the most likely one; None for all.
        typical_p: choose among the tokens of about the expected surprise that together have this probability.
        repetition_penalty: above 1 holds back tokens that are in the text already; 1 for none.
        presence_penalty: taken off the logits of tokens that are in the text already; 0 for none.
        frequency_penalty: taken off for each time that a token is in the text already; 0 for none.
        logit_bias: token ids to what is added to their logits.
        banned: token ids that are never chosen.
        no_repeat_ngram: never let so many tokens in a row come twice; None for no limit.
    """

    temperature: float = 0.8
    top_k: int | None = 50
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    banned: Sequence[int] = ()
    no_repeat_ngram: int | None = None

    def problems(self, vocab_size: int | None = None) -> Iterator[str]:
        """Yields each mistake as a sentence with its remedy; token ids are looked at if the vocabulary is known."""
        if not 0 <= self.temperature <= 1e6:
            yield f"temperature is {self.temperature}; give 0 (greedy) or a positive number such as 0.8"
        if self.top_k is not None and self.top_k < 1:
            yield f"top-k is {self.top_k}; give a positive number, or none for all tokens"
        for name, value in (("top-p", self.top_p), ("typical-p", self.typical_p)):
            if value is not None and not 0 < value <= 1:
                yield f"{name} is {value}; give a probability above 0, up to 1"
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            yield f"min-p is {self.min_p}; give a share from 0 to 1"
        if not 0.01 <= self.repetition_penalty <= 100:
            yield f"repetition-penalty is {self.repetition_penalty}; give a number such as 1.2, from 0.01 to 100"
        for name, value in (("presence", self.presence_penalty), ("frequency", self.frequency_penalty)):
            if not abs(value) <= 1000:
                yield f"{name}-penalty is {value}; give a number such as 0.5, from -1000 to 1000"
        if self.no_repeat_ngram is not None and self.no_repeat_ngram < 1:
            yield f"no-repeat-ngram is {self.no_repeat_ngram}; give a positive number such as 3, or none for no limit"
        bias = self.logit_bias or {}
        for token in (*bias, *self.banned):
            if not 0 <= token < (vocab_size or math.inf):
                yield f"there is no token {token}; ids go from 0 to {vocab_size - 1 if vocab_size else 'the last'}"
        for token, value in bias.items():
            if not abs(value) <= 1000 and value != _MINUS_INFINITY:
                yield f"the bias of token {token} is {value}; give a number from -1000 to 1000, or -inf to ban it"

    def check(self, vocab_size: int | None = None) -> None:
        """Raises ConfigError if a setting cannot work."""
        if mistakes := list(self.problems(vocab_size)):
            raise ConfigError("The sampling settings cannot work", remedy="; ".join(mistakes) + ".")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken each time, and nothing is drawn."""
        return self.temperature < _COLDEST

    def adjusted(self, logits: Tensor, history: History) -> Tensor:
        """Returns the logits after the samplers that look at single tokens and at the history."""
        if self.logit_bias:
            logits = logit_bias(logits, self.logit_bias)
        if self.repetition_penalty != 1:
            logits = repetition_penalty(logits, history, self.repetition_penalty)
        if self.presence_penalty:
            logits = presence_penalty(logits, history, self.presence_penalty)
        if self.frequency_penalty:
            logits = frequency_penalty(logits, history, self.frequency_penalty)
        if self.no_repeat_ngram is not None:
            logits = no_repeat_ngram(logits, history, self.no_repeat_ngram)
        return ban(logits, self.banned) if self.banned else logits

    def bands(self) -> Iterator[Callable[[Tensor], Band]]:
        """Yields the samplers that look at the whole distribution, in their order."""
        if self.top_k is not None:
            yield partial(top_k_band, k=self.top_k)
        if self.top_p is not None and self.top_p < 1:
            yield partial(top_p_band, p=self.top_p)
        if self.min_p:
            yield partial(min_p_band, share=self.min_p)
        if self.typical_p is not None and self.typical_p < 1:
            yield partial(typical_band, p=self.typical_p)

    def filtered(self, logits: Tensor, history: History) -> Tensor:
        """Returns what all samplers leave of logits (batch, vocab_size): minus infinity for what they drop."""
        logits = self.adjusted(logits.float(), history)
        if self.is_greedy:
            return greedy(logits)
        logits = temperature(logits, self.temperature)
        for band in self.bands():
            logits = within(logits, band(logits))
        return logits

    def pick(self, logits: Tensor, history: History, uniforms: Tensor) -> Tensor:
        """Returns the chosen token of each row, (batch,); `NONE_LEFT` where every token is banned.

        The same as `draw(self.filtered(logits, history), uniforms)`, quicker. A row's token depends on that row alone.

        Args:
            logits: (batch, vocab_size).
            history: each row's tokens so far.
            uniforms: (batch,) in float64, from 0 up to, not including, 1: a random number for each row.
        """
        logits = self.adjusted(logits.float(), history)
        if not (self.logit_bias or self.banned or self.no_repeat_ngram):
            return self._choose(logits, uniforms)
        none_left = logits.amax(dim=-1).isneginf()
        return self._choose(logits.masked_fill(none_left[:, None], 0.0), uniforms).masked_fill(none_left, NONE_LEFT)

    def _choose(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Chooses from adjusted logits. On a CPU what the first sampler drops is left out of all that follows."""
        numpy, ids = on_cpu(logits), None
        if self.is_greedy:  # numpy's argmax takes a twelfth of torch's time
            return torch.from_numpy(logits.detach().numpy().argmax(axis=-1)) if numpy else logits.argmax(dim=-1)
        if numpy and self.top_k is not None:
            ids, logits = without_rest(logits, (rough_line(logits, self.top_k), None))
        logits = temperature(logits, self.temperature)
        for band in self.bands():
            if numpy and ids is None:
                ids, logits = without_rest(logits, band(logits))
            else:
                logits = within(logits, band(logits))
        chosen = draw(logits, uniforms)
        return chosen if ids is None else ids.gather(1, chosen[:, None])[:, 0]


def _counts(history: History, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the row, the id and the number of times of each row's different tokens."""
    rows, ids, counts = [], [], []
    for row, tokens in enumerate(history):
        found, times = np.unique(np.asarray(tokens, dtype=np.int64), return_counts=True)
        rows.append(np.full_like(found, row))
        ids.append(found)
        counts.append(times)
    parts = (torch.from_numpy(np.concatenate(part)).to(device) for part in (rows, ids, counts))
    return next(parts), next(parts), next(parts)
