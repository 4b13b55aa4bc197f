"""The same bits for a row of numbers, alone and among others, on a CPU.

By the number of rows a library chooses which of its kernels makes a product, how it cuts the sums, and how threads
share them; each processor has other kernels (docs/log.md). A sum in another order differs in the last bit, and that can
turn the choice of a token. So nothing is taken for granted here: products are called with a few numbers of rows only,
and `agreeing_rows` finds out which of those give a row the same bits on this machine. What a product is, is decided in
quantized_linear.py.
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

Form: TypeAlias = Callable[[Tensor, Tensor | None], Product]
"""Weights (n_out, n_in) and a bias (n_out) to their product."""

ROWS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32)
"""So many rows go through a product at once. Fewer are filled up, more go in parts."""


def is_row_invariant(form: Form, weight: Tensor, bias: Tensor | None) -> Product:
    """Returns the product in a form; on a CPU, one that gives each row (1, n_in) the bits which it gives it alone."""
    multiply = form(weight, bias)
    if weight.device.type != "cpu":
        return multiply
    counts = agreeing_rows(form, *weight.shape, weight.dtype, bias is not None, torch.get_num_threads())

    def product(x: Tensor) -> Tensor:
        rows, time, _ = x.shape
        if not time:
            return x.new_empty(rows, 0, len(weight))
        if rows in counts or time > 1:  # several tokens of one text are always read alone
            return multiply(x)
        if rows > counts[-1]:  # in parts, each of them where a lone row would begin
            return torch.cat([product(part.clone()) for part in x.split(counts[-1])])
        missing = next(count for count in counts if count > rows) - rows
        return multiply(F.pad(x, (0, 0, 0, 0, 0, missing)))[:rows]

    return product


@cache
def agreeing_rows(form: Form, n_out: int, n_in: int, dtype: torch.dtype, biased: bool, threads: int) -> tuple[int, ...]:
    """Returns with which of `ROWS` a row gets the same bits, wherever among the others it stands.

    If not all agree, then the most that do; one row at a time is always among what is possible. A library chooses by
    shapes, so it is enough to try numbers that show what it does.

    Args:
        form: the form of product.
        n_out, n_in, dtype: of its weights.
        biased: whether it has a bias.
        threads: how many share the work: what torch is set to.
    """
    x, weight, bias = (numbers.to(dtype) for numbers in _telling_numbers(n_out, n_in))
    multiply = form(weight, bias if biased else None)
    same = x[:, None, None].expand(-1, ROWS[-1], 1, -1).contiguous()  # one row again and again, for each try
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


def _telling_numbers(n_out: int, n_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rows (tries, n_in), weights (n_out, n_in), a bias (n_out) whose products tell how they were summed.

    For half of the outputs, terms of very different size come in pairs that cancel out, each at random places. What is
    left of such a sum is what was rounded off on the way: in another order it is another number. With usual numbers, as
    the other half has, a result in bfloat16 would hide a change of order all but once in 10,000 times.
    """
    chance, half, tries = torch.Generator().manual_seed(0), n_in // 2, -(-256 // n_out)
    sizes = 2.0 ** torch.randint(-8, 9, (n_in,), generator=chance)
    x = torch.randn(tries, n_in, generator=chance) * sizes
    weight, bias = torch.randn(64, n_in, generator=chance), torch.randn(64, generator=chance)
    ones, others, left = torch.randperm(n_in, generator=chance).split((half, half, n_in % 2))
    x[:, others] = x[:, ones]
    weight[:32, others] = -weight[:32, ones]
    weight[:32, left] = 0
    bias[:32] = 0
    times = -(-n_out // 64)
    return x, weight.repeat(times, 1)[:n_out], bias.repeat(times)[:n_out]


def row_invariant(act: Product) -> Product:
    """Returns an activation that gives each row (1, time, n_inner) the bits which it gives that row alone.

    A CPU takes 32 numbers at once, and what is left over at the end of a thread's share goes through other code, whose
    last bits differ. With several rows, that end may lie elsewhere than with one.
    """

    def each_alone(x: Tensor) -> Tensor:
        if len(x) == 1 or (x.size(2) % 32 == 0 and x.numel() <= 2**14):  # nothing left over; above, threads share it
            return act(x)
        return torch.cat([act(row) for row in x.split(1)])

    return each_alone
