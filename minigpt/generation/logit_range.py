"""Finding and keeping the largest of many logits, exactly and quickly.

On a CPU numpy compares, sorts and selects several times faster than torch, and shares its memory; elsewhere torch is
used. Which range to keep, and why, is up to the samplers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LogitRange: TypeAlias = tuple[Tensor, Tensor | None]
"""The lowest and the highest logit to keep in each row, both (batch, 1); None for no upper limit."""

_MINUS_INFINITY = float("-inf")
_BLOCK = 32
"""How many logits `top_k_bound` reduces to one maximum."""
_QUARTER, _FEW = 4, 512
"""`range_from_largest` tries the largest quarter of the logits first, unless that is fewer than 512."""


def on_cpu(values: Tensor) -> bool:
    """Whether numpy can reach the values."""
    return values.device.type == "cpu"


def keep_range(logits: Tensor, kept: LogitRange) -> Tensor:
    """Returns the logits with those outside the range at minus infinity."""
    low, high = kept
    outside = logits < low if high is None else (logits < low) | (logits > high)
    return logits.masked_fill(outside, _MINUS_INFINITY)


def compact_range(logits: Tensor, kept: LogitRange) -> tuple[Tensor | None, Tensor]:
    """Returns the ids, ascending, and the logits of the tokens within the range, on a CPU.

    Both are (batch, the most that a row keeps), filled up with minus infinity. If more than a quarter of all tokens
    stays, nothing would be gained: then there are no ids, and the logits are those of `keep_range`.
    """
    values, (low, high) = _array(logits), kept
    inside = values >= _array(low)
    if high is not None:
        inside &= values <= _array(high)
    if 4 * np.count_nonzero(inside) > inside.size:
        return None, keep_range(logits, kept)
    found = [np.flatnonzero(row) for row in inside]
    ids = np.zeros((len(found), max(1, *map(len, found))), dtype=np.int64)  # NaN is in no range
    few = np.full(ids.shape, _MINUS_INFINITY, dtype=values.dtype)
    for row, each in enumerate(found):
        ids[row, : len(each)], few[row, : len(each)] = each, values[row, each]
    return torch.from_numpy(ids), torch.from_numpy(few)


def top_k_bound(logits: Tensor, k: int) -> Tensor:
    """Returns a bound for each row, (batch, 1), that its k largest logits reach, and few others.

    It is the k-th largest of the maxima of blocks of logits: a tenth of the time of a full top-k.
    """
    blocks = logits.size(1) // _BLOCK
    if blocks < k:
        return kth_largest(logits, min(k, logits.size(1)))
    maxima = _array(logits)[:, : blocks * _BLOCK].reshape(-1, _BLOCK, blocks).max(axis=1)  # (batch, blocks)
    return kth_largest(torch.from_numpy(maxima), k)


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Returns the k-th largest value of each row, (batch, 1)."""
    if on_cpu(values):
        place = values.size(1) - k
        return torch.from_numpy(np.partition(_array(values), place, axis=-1)[:, place : place + 1])
    return values.topk(k).values[:, -1:]


def exp_shifted(logits: Tensor) -> Tensor:
    """Returns each row's probabilities as multiples of the largest. On a CPU numpy takes half of torch's time."""
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    return torch.from_numpy(np.exp(_array(shifted))) if on_cpu(logits) else shifted.exp()


def row_sums(values: Tensor) -> Tensor:
    """Returns the sum of each row, (batch, 1), computed in float64, so that the order of summing does not matter."""
    return values.sum(dim=-1, keepdim=True, dtype=torch.float64).to(values.dtype)


def range_from_largest(logits: Tensor, *stats: Tensor, find: Callable[..., tuple[LogitRange, Tensor]]) -> LogitRange:
    """Returns a range that usually depends on the most likely tokens only: tries these first, then all.

    Args:
        logits: (batch, vocab_size).
        stats: what is known of each row, (batch, 1) each.
        find: takes some of the largest logits of each row, ascending, and the rows' stats. Returns the range as far as
            these show it, and whether it is certain, (batch, 1). With all logits it always is.
    """
    count = logits.size(1) // _QUARTER
    if count < _FEW or not on_cpu(logits):
        return find(_sorted(logits), *stats)[0]
    largest = np.partition(_array(logits), -count, axis=-1)[:, -count:]
    (low, high), certain = find(_sorted(torch.from_numpy(largest)), *stats)
    rest = (~certain[:, 0]).nonzero()[:, 0]
    if len(rest):
        (rest_low, rest_high), _ = find(_sorted(logits[rest]), *(each[rest] for each in stats))
        low = low.index_copy(0, rest, rest_low)
        high = high if high is None or rest_high is None else high.index_copy(0, rest, rest_high)
    return low, high


def _sorted(values: Tensor) -> Tensor:
    """Returns each row in ascending order. On a CPU numpy takes a thirtieth of torch's time."""
    if on_cpu(values):
        return torch.from_numpy(np.sort(_array(values), axis=-1))
    return values.sort(dim=-1).values


def stable_argsort(values: Tensor) -> Tensor:
    """Returns the places of each row's values in ascending order. A stable sort is quick on what falls, then rises."""
    if on_cpu(values):
        return torch.from_numpy(np.argsort(_array(values), axis=-1, kind="stable"))
    return values.argsort(dim=-1, stable=True)


def _array(values: Tensor) -> npt.NDArray[Any]:
    """Returns a view of the same memory."""
    return values.detach().numpy()
