"""The chunked loss against the textbook one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from minigpt.config import IGNORE_INDEX
from minigpt.model.kernels.cross_entropy import cross_entropy_sum


def plain_cross_entropy_sum(hidden, weight, targets):
    """The textbook form, by way of all logits at once."""
    return F.cross_entropy((hidden @ weight.T).float(), targets, ignore_index=IGNORE_INDEX, reduction="sum")


def example(tokens: int, vocab: int, scale: float = 1.0, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 16, generator=generator)
    weight = scale * torch.randn(vocab, 16, generator=generator)
    targets = torch.randint(-1, vocab, (tokens,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(2, 300), st.integers(1, 80), st.integers(0, 999))
def test_loss_and_gradients_equal_the_plain_ones(tokens, vocab, chunk, seed):
    hidden, weight, targets = example(tokens, vocab, seed=seed)
    plain = plain_cross_entropy_sum(hidden, weight, targets)
    chunked = cross_entropy_sum(hidden, weight, targets, chunk)
    torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-4)
    expected = torch.autograd.grad(3 * plain, (hidden, weight))
    found = torch.autograd.grad(3 * chunked, (hidden, weight))  # a factor, as accumulation and scalers apply
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_stays_exact_and_the_gradient_close(dtype):
    hidden, weight, targets = example(512, 1000, scale=0.1)
    plain = plain_cross_entropy_sum(hidden, weight, targets)
    with torch.autocast("cpu", dtype=dtype):
        low = cross_entropy_sum(hidden, weight, targets)
    assert low.dtype == torch.float32
    assert low.item() / 512 == pytest.approx(plain.item() / 512, abs=2e-4)
    for found, expected in zip(
        torch.autograd.grad(low, (hidden, weight)), torch.autograd.grad(plain, (hidden, weight)), strict=True
    ):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.01 * expected.norm()


def test_large_logits_overflow_nothing():
    hidden, weight, targets = example(20, 50, scale=100.0)
    loss = cross_entropy_sum(hidden, weight, targets)
    torch.testing.assert_close(loss, plain_cross_entropy_sum(hidden, weight, targets), rtol=1e-5, atol=1e-2)


def test_nothing_is_kept_for_a_backward_pass_that_will_not_come():
    hidden, weight, targets = example(20, 50)
    with torch.no_grad():
        assert not cross_entropy_sum(hidden, weight, targets).requires_grad


def test_ignored_targets_count_for_nothing():
    hidden, weight, targets = example(20, 50)
    loss = cross_entropy_sum(hidden, weight, torch.full_like(targets, IGNORE_INDEX))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, hidden)[0].any()
