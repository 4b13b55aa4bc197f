"""Blockwise attention with dropout, against the same arithmetic written out with the same masks."""

from __future__ import annotations

import pytest
import torch

from minigpt.model.attention import attend, attention_pattern
from minigpt.model.blockwise import BLOCK, blockwise_attention
from minigpt.model.dropout import draw_signs


def written_out(q, k, v, dropout):
    """All weights at once, multiplied by masks drawn in the order in which the blocks draw them."""
    batch, heads, time, _ = q.shape
    weights = attention_pattern(q, k)
    kept = torch.zeros(batch, heads, time, time)
    for start in range(0, time, BLOCK):
        upto = min(start + BLOCK, time)
        signs = draw_signs((batch * heads, upto - start, upto), torch.float32, dropout)
        kept[:, :, start:upto, :upto] = (signs == 0).view(batch, heads, upto - start, upto).float()
    return (weights * kept / (1 - dropout)) @ v


@pytest.mark.parametrize("time", [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_output_and_gradients(time):
    generator = torch.Generator().manual_seed(time)
    q, k, v = (torch.randn(2, 3, time, 8, generator=generator, requires_grad=True) for _ in range(3))
    toward = torch.randn(2, 3, time, 8, generator=generator)
    results = []
    for function in (blockwise_attention, written_out):
        torch.manual_seed(5)
        out = function(q, k, v, 0.3)
        results.append((out, *torch.autograd.grad((out * toward).sum(), (q, k, v))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_without_dropout_it_is_the_plain_kernel():
    q, k, v = (torch.randn(1, 2, 300, 8) for _ in range(3))
    torch.testing.assert_close(blockwise_attention(q, k, v, 0.0), attend(q, k, v), rtol=1e-5, atol=1e-5)


def test_a_later_token_changes_nothing_before_it():
    q, k, v = (torch.randn(1, 2, 200, 8) for _ in range(3))
    outs = []
    for change in (0.0, 1.0):
        torch.manual_seed(1)
        k[:, :, 150] += change
        v[:, :, 150] += change
        outs.append(blockwise_attention(q, k, v, 0.2))
    assert torch.equal(outs[0][:, :, :150], outs[1][:, :, :150])
    assert not torch.equal(outs[0][:, :, 150:], outs[1][:, :, 150:])
