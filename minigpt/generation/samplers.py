"""Samplers: from the logits of the next token to the token, as pure functions.

Each takes logits (batch, vocab_size) in float32 and returns new ones, with minus infinity for the tokens it drops.
`filter_logits` combines them in the order of this file:

    logit bias; repetition, presence and frequency penalties; no repeated n-grams; banned tokens;
    temperature; top-k; top-p; min-p; typical

and `sample_tokens` draws from what is left. Those that look back take `history`: all tokens of each row so far, prompt
included. Each of the others keeps a range of logits, ties at its ends included, so the result depends on the logits
alone, not on the machine, the batch or the sort.

Random numbers come from outside, one for each row. No model runs here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from minigpt.generation.logit_range import (
    LogitRange,
    compact_range,
    exp_shifted,
    keep_range,
    kth_largest,
    on_cpu,
    range_from_largest,
    row_sums,
    stable_argsort,
    top_k_bound,
)
from minigpt.sampling_params import SamplingParams

History: TypeAlias = Sequence[Sequence[int]]
"""The tokens of each row so far."""

NO_TOKEN = -1
"""What `sample_tokens` returns for a row in which every token is banned."""

_MINUS_INFINITY = float("-inf")


def logit_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Adds a number to the logits of some tokens; minus infinity bans a token."""
    ids = torch.tensor(list(bias), device=logits.device)
    return logits.index_add(1, ids, logits.new_tensor(list(bias.values())).expand(len(logits), -1))


def repetition_penalty(logits: Tensor, history: History, penalty: float) -> Tensor:
    """Makes tokens in the history less likely (Keskar et al. 2019, section 4.1).

    Positive logits are divided by the penalty, negative ones multiplied by it; below 1 it favours repetition.
    """
    rows, ids, _ = _token_counts(history, logits.device)
    past = logits[rows, ids]
    return logits.index_put((rows, ids), torch.where(past < 0, past * penalty, past / penalty))


def presence_penalty(logits: Tensor, history: History, penalty: float) -> Tensor:
    """Subtracts `penalty` from the logit of each token that is in the history, however often (OpenAI's API)."""
    rows, ids, _ = _token_counts(history, logits.device)
    return logits.index_put((rows, ids), logits[rows, ids] - penalty)


def frequency_penalty(logits: Tensor, history: History, penalty: float) -> Tensor:
    """Subtracts `penalty` from a token's logit for each time that it is in the history (OpenAI's API)."""
    rows, ids, counts = _token_counts(history, logits.device)
    return logits.index_put((rows, ids), logits[rows, ids] - counts * penalty)


def no_repeat_ngram(logits: Tensor, history: History, n: int) -> Tensor:
    """Drops the tokens that would complete an n-gram which is in the history already."""
    rows, ids = [], []
    for row, tokens in enumerate(history):
        text = np.asarray(tokens, dtype=np.int64)
        if len(text) >= n:
            ngrams = np.lib.stride_tricks.sliding_window_view(text, n)  # (len - n + 1, n)
            last = text[len(text) - n + 1 :]  # the n - 1 tokens before the next one
            found = ngrams[(ngrams[:, :-1] == last).all(axis=1), -1]
            ids.append(found)
            rows.append(np.full_like(found, row))
    if not ids:
        return logits
    where = tuple(torch.from_numpy(np.concatenate(part)).to(logits.device) for part in (rows, ids))
    return logits.index_put(where, logits.new_tensor(_MINUS_INFINITY))


def ban_tokens(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Drops some tokens."""
    return logits.index_fill(1, torch.tensor(ids, device=logits.device), _MINUS_INFINITY)


def temperature(logits: Tensor, value: float) -> Tensor:
    """Divides the logits by `value`: below 1 sharpens the distribution, above 1 flattens it."""
    return logits / value


def greedy(logits: Tensor) -> Tensor:
    """Keeps only the most likely token, the first of equals: the limit of temperature 0."""
    best = logits.argmax(dim=-1, keepdim=True)
    return torch.full_like(logits, _MINUS_INFINITY).scatter(1, best, logits.gather(1, best))


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keeps the k most likely tokens (Fan et al. 2018)."""
    return keep_range(logits, top_k_range(logits, k))


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the most likely tokens that together reach probability p (Holtzman et al. 2020)."""
    return keep_range(logits, top_p_range(logits, p))


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the tokens at least `p` times as likely as the most likely one (Nguyen et al. 2024)."""
    return keep_range(logits, min_p_range(logits, p))


def typical(logits: Tensor, p: float) -> Tensor:
    """Keeps the tokens closest to the expected surprise that together reach probability p.

    A token's surprise is -log of its probability; its expectation is the entropy. So the most likely tokens may go
    too, as they would say too little (locally typical sampling, Meister et al. 2023).
    """
    return keep_range(logits, typical_range(logits, p))


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Returns one token for each row, (batch,), drawn with the probabilities that the logits give.

    The probabilities are summed in the order of the ids, and the token at which the sum reaches a random share is
    taken. Tokens at minus infinity add nothing, so leaving them out gives the same choice.

    Args:
        logits: (batch, vocab_size); in each row at least one must be finite.
        uniforms: (batch,) in float64, from 0 up to, not including, 1.
    """
    cumulative = exp_shifted(logits).cumsum(dim=-1)
    # above 0, so that only a token that was kept can reach it
    target = (1 - uniforms).to(cumulative)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target)[:, 0].clamp(max=logits.size(1) - 1)  # past the end for NaN only


def top_k_range(logits: Tensor, k: int) -> LogitRange:
    """Returns the range that `top_k` keeps."""
    return kth_largest(logits, min(k, logits.size(1))), None


def top_p_range(logits: Tensor, p: float) -> LogitRange:
    """Returns the range that `top_p` keeps."""

    def find(largest: Tensor, peak: Tensor, total: Tensor) -> tuple[LogitRange, Tensor]:
        cumulative = (largest - peak).exp().cumsum(dim=-1)
        surplus = cumulative[:, -1:] - p * total  # what to drop of these once all others are dropped
        dropped = torch.searchsorted(cumulative, surplus, right=True).clamp(max=largest.size(1) - 1)
        return (largest.gather(1, dropped), None), surplus >= 0

    return range_from_largest(logits, logits.amax(dim=-1, keepdim=True), row_sums(exp_shifted(logits)), find=find)


def min_p_range(logits: Tensor, p: float) -> LogitRange:
    """Returns the range that `min_p` keeps."""
    return logits.amax(dim=-1, keepdim=True) + math.log(p), None


def typical_range(logits: Tensor, p: float) -> LogitRange:
    """Returns the range that `typical` keeps."""

    def find(largest: Tensor, peak: Tensor, total: Tensor, expected: Tensor) -> tuple[LogitRange, Tensor]:
        shifted = largest - peak  # minus the surprise, but for a constant that the entropy has too
        distance = (shifted - expected).abs()  # of surprise from entropy; it falls, then rises
        nearest = stable_argsort(distance)
        cumulative = shifted.exp().gather(1, nearest).cumsum(dim=-1)
        last = torch.searchsorted(cumulative, p * total).clamp(max=largest.size(1) - 1)
        farthest = distance.gather(1, nearest.gather(1, last))
        dropped = distance > farthest
        low = largest.masked_fill(dropped, math.inf).amin(dim=-1, keepdim=True)
        high = largest.masked_fill(dropped, _MINUS_INFINITY).amax(dim=-1, keepdim=True)
        return (low, high), (cumulative[:, -1:] >= p * total) & (farthest <= expected - shifted[:, :1])

    peak, masses = logits.amax(dim=-1, keepdim=True), exp_shifted(logits)
    total = row_sums(masses)
    expected = row_sums((masses * (logits - peak)).nan_to_num()) / total  # 0 times minus infinity counts as 0
    return range_from_largest(logits, peak, total, expected, find=find)


def adjust_logits(logits: Tensor, history: History, params: SamplingParams) -> Tensor:
    """Applies the samplers that look at single tokens and at the history."""
    if params.logit_bias:
        logits = logit_bias(logits, params.logit_bias)
    if params.repetition_penalty != 1:
        logits = repetition_penalty(logits, history, params.repetition_penalty)
    if params.presence_penalty:
        logits = presence_penalty(logits, history, params.presence_penalty)
    if params.frequency_penalty:
        logits = frequency_penalty(logits, history, params.frequency_penalty)
    if params.no_repeat_ngram is not None:
        logits = no_repeat_ngram(logits, history, params.no_repeat_ngram)
    return ban_tokens(logits, params.banned_tokens) if params.banned_tokens else logits


def filter_logits(logits: Tensor, history: History, params: SamplingParams) -> Tensor:
    """Returns what all samplers leave of logits (batch, vocab_size): minus infinity for what they drop."""
    logits = adjust_logits(logits.float(), history, params)
    if params.is_greedy:
        return greedy(logits)
    logits = temperature(logits, params.temperature)
    for find in _ranges(params):
        logits = keep_range(logits, find(logits))
    return logits


def sample_tokens(logits: Tensor, history: History, params: SamplingParams, uniforms: Tensor) -> Tensor:
    """Returns the chosen token of each row, (batch,); `NO_TOKEN` where every token is banned.

    Equal to `draw(filter_logits(logits, history, params), uniforms)`, but faster. A row's token depends on that row
    alone.

    Args:
        logits: (batch, vocab_size).
        history: the tokens of each row so far.
        params: the samplers' settings.
        uniforms: (batch,) in float64, from 0 up to, not including, 1: a random number for each row.
    """
    logits = adjust_logits(logits.float(), history, params)
    if not (params.logit_bias or params.banned_tokens or params.no_repeat_ngram):
        return _choose(logits, params, uniforms)
    none_left = logits.amax(dim=-1).isneginf()
    chosen = _choose(logits.masked_fill(none_left[:, None], 0.0), params, uniforms)
    return chosen.masked_fill(none_left, NO_TOKEN)


def _choose(logits: Tensor, params: SamplingParams, uniforms: Tensor) -> Tensor:
    """Chooses from adjusted logits. On a CPU, later steps skip the tokens that the first sampler drops."""
    cpu, ids = on_cpu(logits), None
    if params.is_greedy:  # numpy's argmax takes a twelfth of torch's time
        return torch.from_numpy(logits.detach().numpy().argmax(axis=-1)) if cpu else logits.argmax(dim=-1)
    if cpu and params.top_k is not None:
        ids, logits = compact_range(logits, (top_k_bound(logits, params.top_k), None))
    logits = temperature(logits, params.temperature)
    for find in _ranges(params):
        if cpu and ids is None:
            ids, logits = compact_range(logits, find(logits))
        else:
            logits = keep_range(logits, find(logits))
    chosen = draw(logits, uniforms)
    return chosen if ids is None else ids.gather(1, chosen[:, None])[:, 0]


def _ranges(params: SamplingParams) -> Iterator[Callable[[Tensor], LogitRange]]:
    """Yields the samplers that look at the whole distribution, in their order."""
    if params.top_k is not None:
        yield partial(top_k_range, k=params.top_k)
    if params.top_p is not None and params.top_p < 1:
        yield partial(top_p_range, p=params.top_p)
    if params.min_p:
        yield partial(min_p_range, p=params.min_p)
    if params.typical_p is not None and params.typical_p < 1:
        yield partial(typical_range, p=params.typical_p)


def _token_counts(history: History, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the row, the id and the count of each distinct token of each row."""
    rows, ids, counts = [], [], []
    for row, tokens in enumerate(history):
        found, times = np.unique(np.asarray(tokens, dtype=np.int64), return_counts=True)
        rows.append(np.full_like(found, row))
        ids.append(found)
        counts.append(times)
    parts = (torch.from_numpy(np.concatenate(part)).to(device) for part in (rows, ids, counts))
    return next(parts), next(parts), next(parts)
