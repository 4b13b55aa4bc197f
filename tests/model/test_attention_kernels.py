"""The attention kernels against the plain form in gpt.py, with the same dropout masks."""

from __future__ import annotations

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.model import CausalSelfAttention
from minigpt.model.hooks import hooked
from minigpt.model.kernels import causal_attention
from minigpt.model.kernels.attention import BLOCK, blockwise_attention
from minigpt.model.kernels.dropout import dropout_bits


def plain(q, k, v, positions=None):
    """`CausalSelfAttention.attend` of these queries, the last of the keys unless positions are given."""
    n_head, head_dim = q.size(1), q.size(3)
    attention = CausalSelfAttention(GPTConfig(n_head=n_head, n_embd=n_head * head_dim, n_kv_head=k.size(1)), layer=0)
    return attention.attend(q, k, v, torch.arange(k.size(2))[-q.size(2) :] if positions is None else positions)


def plain_with_dropout(q, k, v, dropout):
    """The same, with the pattern multiplied by masks drawn in the order in which the blocks draw them."""
    batch, heads, time, head_dim = q.shape
    kept = torch.zeros(batch, heads, time, time)
    for start in range(0, time, BLOCK):
        upto = min(start + BLOCK, time)
        signs = dropout_bits((batch * heads, upto - start, upto), torch.float32, dropout)
        kept[:, :, start:upto, :upto] = (signs == 0).view(batch, heads, upto - start, upto).float()
    attention = CausalSelfAttention(GPTConfig(n_head=heads, n_embd=heads * head_dim), layer=0)
    with hooked(attention, {"pattern": lambda pattern: pattern * kept / (1 - dropout)}):
        return attention.attend(q, k, v, torch.arange(time))


@pytest.mark.parametrize("time", [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_output_and_gradients(time):
    generator = torch.Generator().manual_seed(time)
    q, k, v = (torch.randn(2, 3, time, 8, generator=generator, requires_grad=True) for _ in range(3))
    toward = torch.randn(2, 3, time, 8, generator=generator)
    results = []
    for function in (blockwise_attention, plain_with_dropout):
        torch.manual_seed(5)
        out = function(q, k, v, 0.3)
        results.append((out, *torch.autograd.grad((out * toward).sum(), (q, k, v))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_without_dropout_it_is_the_plain_form():
    q, k, v = (torch.randn(1, 2, 300, 8) for _ in range(3))
    torch.testing.assert_close(blockwise_attention(q, k, v, 0.0), plain(q, k, v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("queries", [7, 3, 1])
def test_fused_kernels_give_the_plain_form(kv_heads, queries):
    q, k, v = torch.randn(2, 4, queries, 8), torch.randn(2, kv_heads, 7, 8), torch.randn(2, kv_heads, 7, 8)
    torch.testing.assert_close(causal_attention(q, k, v), plain(q, k, v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_rows_with_different_numbers_of_keys(kv_heads):
    q, k, v = torch.randn(3, 2, 2, 8), torch.randn(3, kv_heads, 9, 8), torch.randn(3, kv_heads, 9, 8)
    positions = torch.tensor([[7, 8], [1, 2], [4, 5]])
    torch.testing.assert_close(causal_attention(q, k, v, positions), plain(q, k, v, positions))


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
