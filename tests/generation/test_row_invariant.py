"""Rows that do not notice each other: with the kernels of this machine, and with some that are only pretended."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_inference_weights import CONFIGS, check_that_company_changes_no_bit
from torch import Tensor

from minigpt.generation import inference_weights
from minigpt.generation.quantized_linear import DTYPES, HEAD_DTYPES, int8_head
from minigpt.generation.row_invariant import ROWS, MakeProduct, agreeing_rows, row_invariant_product

PRODUCTS = {**DTYPES, "int8_head": int8_head}
SHAPES = [(2100, 66), (66, 2080), (80, 2100), (300, 64), (50, 18), (7, 1), (3, 9)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}-{0[1]}".format)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_what_a_row_gets_is_the_same_bits_for_any_number_of_rows(kind, shape):
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(shape, generator=rng), torch.randn(shape[0], generator=rng)
    for offset in (None, bias):
        product = row_invariant_product(PRODUCTS[kind], weight, offset)
        x = torch.randn(70, 1, shape[1], generator=rng)
        alone = torch.cat([product(row.clone()) for row in x.split(1)])
        for rows in (2, 3, 5, 8, 11, 17, 31, 32, 33, 70):
            assert torch.equal(product(x[:rows]), alone[:rows])


def capricious(turned: Callable[[int, int], bool], dtype: torch.dtype) -> MakeProduct:
    """A form of product that adds up in the other direction where `turned(place, rows)` says so, as some kernels do."""

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
def test_kernels_that_differ_by_the_number_of_rows_are_found_out(turned, expected, dtype):
    form = capricious(turned, dtype)
    assert agreeing_rows(form, 100, 66, torch.float32, True, 1) == expected
    weight, bias = torch.randn(100, 66), torch.randn(100)
    product, x = row_invariant_product(form, weight, bias), torch.randn(40, 1, 66)
    alone = torch.cat([product(row) for row in x.split(1)])
    for rows in (2, 3, 7, 13, 33, 40):
        assert torch.equal(product(x[:rows]), alone[:rows])


@pytest.mark.parametrize("turned", [lambda place, rows: rows < 5, lambda place, rows: place % 2 == 1])
def test_a_model_with_such_kernels_still_gives_each_text_the_same_logits(monkeypatch, turned):
    form = capricious(turned, torch.bfloat16)
    monkeypatch.setattr(inference_weights, "DTYPES", {**DTYPES, "bfloat16": form})
    monkeypatch.setattr(inference_weights, "HEAD_DTYPES", {**HEAD_DTYPES, "bfloat16": form})
    check_that_company_changes_no_bit(CONFIGS[2], "bfloat16")


def test_finding_out_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    agreeing_rows.cache_clear()
    agreeing_rows(DTYPES["float32"], 50, 20, torch.float32, True, 1)
    assert torch.equal(torch.rand(4), expected)
