"""Finding and leaving out: the quick and exact ways to the largest of many logits.

On a CPU numpy compares, sorts and selects several times faster than torch, and shares its memory; elsewhere torch does
it. Which tokens are to be kept, and why, is the samplers' affair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Band: TypeAlias = tuple[Tensor, Tensor | None]
"""The least and the largest logit to keep in each row, both (batch, 1); None when no logit is too large."""

_MINUS_INFINITY = float("-inf")
_BLOCK = 32
"""Logits that `rough_line` looks at together."""
_LIKELY, _FEW = 4, 512
"""`band_of_the_likely` looks at the largest fourth first, unless that is fewer than so many."""


def on_cpu(values: Tensor) -> bool:
    """Whether numpy can reach the values."""
    return values.device.type == "cpu"


def within(logits: Tensor, band: Band) -> Tensor:
    """Returns the logits with those outside the band at minus infinity."""
    least, most = band
    outside = logits < least if most is None else (logits < least) | (logits > most)
    return logits.masked_fill(outside, _MINUS_INFINITY)


def without_rest(logits: Tensor, band: Band) -> tuple[Tensor | None, Tensor]:
    """Returns the ids, ascending, and the logits of the tokens within the band, on a CPU.

    Both are (batch, the most that a row keeps); minus infinity fills the rows that keep fewer. If more than a quarter
    of all tokens stays, nothing would be gained: then there are no ids, and the logits are those of `within`.
    """
    values, (least, most) = _array(logits), band
    kept = values >= _array(least)
    if most is not None:
        kept &= values <= _array(most)
    if 4 * np.count_nonzero(kept) > kept.size:
        return None, within(logits, band)
    found = [np.flatnonzero(row) for row in kept]
    ids = np.zeros((len(found), max(1, *map(len, found))), dtype=np.int64)  # NaN is in no band
    few = np.full(ids.shape, _MINUS_INFINITY, dtype=values.dtype)
    for row, each in enumerate(found):
        ids[row, : len(each)], few[row, : len(each)] = each, values[row, each]
    return torch.from_numpy(ids), torch.from_numpy(few)


def rough_line(logits: Tensor, k: int) -> Tensor:
    """Returns a number for each row, (batch, 1), that its k largest logits reach and few others.

    Each of k blocks has a maximum that reaches the k-th largest maximum. A tenth of the time of a top-k of all.
    """
    blocks = logits.size(1) // _BLOCK
    if blocks < k:
        return kth_largest(logits, min(k, logits.size(1)))
    maxima = _array(logits)[:, : blocks * _BLOCK].reshape(-1, _BLOCK, blocks).max(axis=1)  # (batch, blocks)
    return kth_largest(torch.from_numpy(maxima), k)


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Returns the k-th largest of each row, (batch, 1). On a CPU numpy is quicker, most of all where k is large."""
    if on_cpu(values):
        place = values.size(1) - k
        return torch.from_numpy(np.partition(_array(values), place, axis=-1)[:, place : place + 1])
    return values.topk(k).values[:, -1:]


def weights(logits: Tensor) -> Tensor:
    """Returns each row's probabilities as multiples of the largest. On a CPU numpy takes half of torch's time."""
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    return torch.from_numpy(np.exp(_array(shifted))) if on_cpu(logits) else shifted.exp()


def sums(values: Tensor) -> Tensor:
    """Returns the sum of each row, (batch, 1): taken in float64, so that the order of summing leaves no trace."""
    return values.sum(dim=-1, keepdim=True, dtype=torch.float64).to(values.dtype)


def band_of_the_likely(logits: Tensor, *known: Tensor, lines: Callable[..., tuple[Band, Tensor]]) -> Band:
    """Returns a band that the most likely tokens decide, as a rule: looks at a part of a row, and at all if it must.

    Args:
        logits: (batch, vocab_size).
        known: what is known of each row, (batch, 1) each.
        lines: takes some of each row's largest logits, ascending, and what is known of these rows. Returns the band, as
            far as they show, and in which rows it is certain, (batch, 1). With all logits it is.
    """
    count = logits.size(1) // _LIKELY
    if count < _FEW or not on_cpu(logits):
        return lines(_ascending(logits), *known)[0]
    largest = np.partition(_array(logits), -count, axis=-1)[:, -count:]
    (least, most), certain = lines(_ascending(torch.from_numpy(largest)), *known)
    rest = (~certain[:, 0]).nonzero()[:, 0]
    if len(rest):
        (rest_least, rest_most), _ = lines(_ascending(logits[rest]), *(each[rest] for each in known))
        least = least.index_copy(0, rest, rest_least)
        most = most if most is None or rest_most is None else most.index_copy(0, rest, rest_most)
    return least, most


def _ascending(values: Tensor) -> Tensor:
    """Returns each row sorted. On a CPU numpy takes a thirtieth of torch's time, which sorts the places too."""
    if on_cpu(values):
        return torch.from_numpy(np.sort(_array(values), axis=-1))
    return values.sort(dim=-1).values


def order(values: Tensor) -> Tensor:
    """Returns the places of each row's values, the smallest first. A stable sort is quick on what falls, then rises."""
    if on_cpu(values):
        return torch.from_numpy(np.argsort(_array(values), axis=-1, kind="stable"))
    return values.argsort(dim=-1, stable=True)


def _array(values: Tensor) -> npt.NDArray[Any]:
    """Returns a view of the same memory."""
    return values.detach().numpy()
