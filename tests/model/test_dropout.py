"""Dropout by the bits of random words."""

from __future__ import annotations

import pytest
import torch

from minigpt.model.kernels.dropout import Dropout, dropout_bits

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_signs_are_zero_but_for_the_sign_bit_and_have_the_right_share_at_every_place_of_the_word(dtype):
    torch.manual_seed(0)
    signs = dropout_bits((20_000, 4), dtype, 0.1)
    assert signs.element_size() == dtype.itemsize
    assert set(signs.unique().tolist()) == {torch.iinfo(signs.dtype).min, 0}
    torch.testing.assert_close((signs < 0).float().mean(0), torch.full((4,), 0.1), rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 1001)])
def test_what_is_kept_is_scaled_up_and_the_rest_is_zero(dtype, shape):
    torch.manual_seed(1)
    x = torch.ones(shape, dtype=dtype)
    dropped = Dropout(0.25)(x)
    assert dropped.dtype == dtype
    assert dropped.shape == x.shape
    up = (x / 0.75).flatten()[0]
    assert ((dropped == 0) | (dropped == up)).all()


def test_the_mean_stays_and_so_does_each_seeds_choice():
    x = torch.ones(400, 500)
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(Dropout(0.1)(x))
    assert results[0].mean().item() == pytest.approx(1, abs=0.003)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_gradient_passes_where_the_number_passed():
    x = torch.randn(50, 40, requires_grad=True)
    y = Dropout(0.3)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.where(y == 0, 0.0, 1 / 0.7))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_nothing_is_dropped_when_it_should_not(dropout):
    x, module = torch.randn(10), Dropout(dropout)
    assert torch.equal(module.eval()(x), x)
    assert torch.equal(module.train()(x), x) == (dropout == 0)
