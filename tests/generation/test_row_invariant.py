"""Batch invariance: with the kernels of this machine, and with made-up ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_inference_weights import CONFIGS, check_batch_invariance
from torch import Tensor

from minigpt.generation import inference_weights
from minigpt.generation.quantized_linear import DTYPES, HEAD_DTYPES, int8_head
from minigpt.generation.row_invariant import ROWS, MakeProduct, agreeing_rows, row_invariant_product

PRODUCTS = {**DTYPES, "int8_head": int8_head}
SHAPES = [(2100, 66), (66, 2080), (80, 2100), (300, 64), (50, 18), (7, 1), (3, 9)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}-{0[1]}".format)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_products_are_batch_invariant(kind, shape):
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(shape, generator=rng), torch.randn(shape[0], generator=rng)
    for offset in (None, bias):
        product = row_invariant_product(PRODUCTS[kind], weight, offset)
        x = torch.randn(70, 1, shape[1], generator=rng)
        alone = torch.cat([product(row.clone()) for row in x.split(1)])
        for rows in (2, 3, 5, 8, 11, 17, 31, 32, 33, 70):
            assert torch.equal(product(x[:rows]), alone[:rows])


def order_dependent(turned: Callable[[int, int], bool], dtype: torch.dtype) -> MakeProduct:
    """A product that sums in the opposite order where `turned(place, rows)` is true, as some kernels do."""

    def form(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        def one(row: Tensor, turn: bool) -> Tensor:
            terms = weight * row
            return (terms.flip(-1) if turn else terms).sum(-1)

        def product(x: Tensor) -> Tensor:
            rows = x.flatten(0, 1)  # (rows * time, n_in)
            y = torch.stack([one(row, turned(place, len(rows))) for place, row in enumerate(rows)])
            return (y if bias is None else y + bias).to(dtype).float().view(*x.shape[:2], -1)

        return product

    return form


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("turned", "expected"),
    [
        (lambda place, rows: False, ROWS),
        (lambda place, rows: rows == 1, ROWS[1:]),  # a kernel for one row
        (lambda place, rows: rows < 5, tuple(rows for rows in ROWS if rows >= 5)),  # few go elsewhere
        (lambda place, rows: rows > 16, tuple(rows for rows in ROWS if rows <= 16)),  # many do
        (lambda place, rows: rows in (4, 12), tuple(rows for rows in ROWS if rows not in (4, 12))),
        (lambda place, rows: place >= 8, tuple(rows for rows in ROWS if rows <= 8)),  # the rest of a block
        (lambda place, rows: place % 2 == 1, (1,)),
    ],
)
def test_kernels_that_depend_on_the_batch_size_are_detected(turned, expected, dtype):
    form = order_dependent(turned, dtype)
    assert agreeing_rows(form, 100, 66, torch.float32, True, 1) == expected
    weight, bias = torch.randn(100, 66), torch.randn(100)
    product, x = row_invariant_product(form, weight, bias), torch.randn(40, 1, 66)
    alone = torch.cat([product(row) for row in x.split(1)])
    for rows in (2, 3, 7, 13, 33, 40):
        assert torch.equal(product(x[:rows]), alone[:rows])


@pytest.mark.parametrize("turned", [lambda place, rows: rows < 5, lambda place, rows: place % 2 == 1])
def test_a_model_is_batch_invariant_with_such_kernels(monkeypatch, turned):
    form = order_dependent(turned, torch.bfloat16)
    monkeypatch.setattr(inference_weights, "DTYPES", {**DTYPES, "bfloat16": form})
    monkeypatch.setattr(inference_weights, "HEAD_DTYPES", {**HEAD_DTYPES, "bfloat16": form})
    check_batch_invariance(CONFIGS[2], "bfloat16")


def test_detection_does_not_touch_the_global_random_state():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    agreeing_rows.cache_clear()
    agreeing_rows(DTYPES["float32"], 50, 20, torch.float32, True, 1)
    assert torch.equal(torch.rand(4), expected)
