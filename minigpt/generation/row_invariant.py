"""Batch invariance on a CPU: a row gets the same bits from a layer whether it is alone or one of many.

Libraries choose a kernel, and how to split its sums between threads, by the number of rows, and differently for each
processor (docs/log.md). A sum in another order differs in the last bit, and that can change which token is chosen. So
products are called with a few batch sizes only, and `agreeing_rows` finds out by trying which of these give a row the
same bits on this machine. The products themselves are in quantized_linear.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Product: TypeAlias = Callable[[Tensor], Tensor]
"""x (rows, time, n_in) to W x + b (rows, time, n_out), both in the residual stream's type."""

MakeProduct: TypeAlias = Callable[[Tensor, Tensor | None], Product]
"""Weights (n_out, n_in) and a bias (n_out) to their product."""

ROWS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32)
"""The batch sizes with which products are called. Other batches are padded or split."""


def row_invariant_product(make: MakeProduct, weight: Tensor, bias: Tensor | None) -> Product:
    """Returns the product; on a CPU, one that gives each row (1, n_in) the same bits in any batch."""
    multiply = make(weight, bias)
    if weight.device.type != "cpu":
        return multiply
    counts = agreeing_rows(make, *weight.shape, weight.dtype, bias is not None, torch.get_num_threads())

    def product(x: Tensor) -> Tensor:
        rows, time, _ = x.shape
        if not time:
            return x.new_empty(rows, 0, len(weight))
        if rows in counts or time > 1:  # several tokens of one text are always read alone
            return multiply(x)
        if rows > counts[-1]:  # in parts, each copied, so that its memory is aligned like that of a single row
            return torch.cat([product(part.clone()) for part in x.split(counts[-1])])
        missing = next(count for count in counts if count > rows) - rows
        return multiply(F.pad(x, (0, 0, 0, 0, 0, missing)))[:rows]

    return product


@cache
def agreeing_rows(
    make: MakeProduct, n_out: int, n_in: int, dtype: torch.dtype, biased: bool, threads: int
) -> tuple[int, ...]:
    """Returns the largest group of `ROWS` that give a row the same bits, at any place in the batch.

    Libraries choose kernels by shape, so it is enough to try one set of numbers.

    Args:
        make: makes the product.
        n_out, n_in, dtype: of its weights.
        biased: whether it has a bias.
        threads: torch's number of threads; the result depends on it.
    """
    x, weight, bias = (numbers.to(dtype) for numbers in _order_sensitive_numbers(n_out, n_in))
    multiply = make(weight, bias if biased else None)
    same = x[:, None, None].expand(-1, ROWS[-1], 1, -1).contiguous()  # batches of the same row, for each try
    groups: list[tuple[Tensor, list[int]]] = []
    for rows in ROWS:
        y = torch.cat([multiply(each[:rows]) for each in same], dim=-1)  # (rows, 1, tries * n_out)
        if not torch.equal(y, y[:1].expand_as(y)):
            continue
        for first, counts in groups:
            if torch.equal(first, y[0]):
                counts.append(rows)
                break
        else:
            groups.append((y[0].clone(), [rows]))
    most: list[int] = max((counts for _, counts in groups), key=len)
    return tuple(most)


def _order_sensitive_numbers(n_out: int, n_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rows (tries, n_in), weights (n_out, n_in) and a bias (n_out) whose products show the order of summing.

    For half of the outputs, terms of very different sizes come in pairs that cancel, at random places. Such a sum
    consists of rounding errors, and another order gives another number. With ordinary numbers, as in the other half, a
    result in bfloat16 would hide a change of order all but once in 10,000 times.
    """
    rng, half, tries = torch.Generator().manual_seed(0), n_in // 2, -(-256 // n_out)
    sizes = 2.0 ** torch.randint(-8, 9, (n_in,), generator=rng)
    x = torch.randn(tries, n_in, generator=rng) * sizes
    weight, bias = torch.randn(64, n_in, generator=rng), torch.randn(64, generator=rng)
    ones, others, left = torch.randperm(n_in, generator=rng).split((half, half, n_in % 2))
    x[:, others] = x[:, ones]
    weight[:32, others] = -weight[:32, ones]
    weight[:32, left] = 0
    bias[:32] = 0
    times = -(-n_out // 64)
    return x, weight.repeat(times, 1)[:n_out], bias.repeat(times)[:n_out]


def row_invariant_activation(act: Product) -> Product:
    """Returns an activation that gives each row (1, time, n_inner) the same bits in any batch.

    A CPU takes 32 numbers at once; the rest at the end of a thread's share goes through other code, with other last
    bits. In a batch, that end may fall in another place than for a single row.
    """

    def activation(x: Tensor) -> Tensor:
        if len(x) == 1 or (x.size(2) % 32 == 0 and x.numel() <= 2**14):  # no rest; beyond, threads share the work
            return act(x)
        return torch.cat([act(row) for row in x.split(1)])

    return activation
