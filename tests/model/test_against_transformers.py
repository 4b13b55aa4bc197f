"""Our model against GPT-2 as Hugging Face's transformers computes it, with the same random weights."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt.config import GPTConfig
from minigpt.model import GPT

CONFIG = GPTConfig(vocab_size=211, block_size=48, n_layer=3, n_head=4, n_embd=32, n_inner=96, dropout=0.0)


@pytest.fixture(scope="module")
def pair() -> tuple[GPT, GPT2LMHeadModel]:
    torch.manual_seed(0)
    ours = GPT(CONFIG)
    with torch.no_grad():  # larger weights than at the start, so that a mistake in any part shows
        for parameter in ours.parameters():
            parameter.normal_(std=0.2)
    return ours, as_gpt2(ours)


def as_gpt2(model: GPT, **settings: object) -> GPT2LMHeadModel:
    """transformers' GPT-2 with our weights and without dropout, in evaluation mode; `settings` are GPT2Config's."""
    own = model.config
    shape = {name: getattr(own, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd", "n_inner")}
    shape |= {"n_positions": own.block_size, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    theirs = GPT2LMHeadModel(GPT2Config(**{**shape, "bos_token_id": 0, "eos_token_id": 0, **settings}))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(named_as_theirs(model)[name])
    return theirs.eval()


def named_as_theirs(model: GPT, gradients: bool = False) -> dict[str, torch.Tensor]:
    """Our weights, or their gradients, under GPT-2's names; its projections are stored transposed."""
    tensors = {}
    for name, parameter in model.named_parameters():
        value = parameter.grad if gradients else parameter.data
        assert value is not None
        projection = ".c_" in name and name.endswith("weight")
        tensors[f"transformer.{name}"] = value.T if projection else value
    return tensors


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(CONFIG.vocab_size, (3, 41), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


def test_logits(pair, batch):
    ours, theirs = pair
    torch.testing.assert_close(ours(batch[0]), theirs(batch[0]).logits, rtol=1e-5, atol=1e-5)


def test_loss_and_gradients(pair, batch):
    ours, theirs = pair
    x, y = batch
    loss = ours(x, y) / y.numel()
    reference = torch.nn.functional.cross_entropy(theirs(x).logits.flatten(0, 1), y.flatten())
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-5)
    loss.backward()
    reference.backward()
    mine = named_as_theirs(ours, gradients=True)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(mine.pop(name), parameter.grad, rtol=1e-5, atol=1e-5, msg=name)
    assert not mine, "a gradient of ours that theirs has not"
    ours.zero_grad()


def test_initialisation_has_the_scales_of_gpt2():
    torch.manual_seed(0)
    ours = GPT(GPTConfig(vocab_size=1000, block_size=64, n_layer=8, n_head=4, n_embd=128, n_inner=512))
    for name, parameter in ours.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif ".ln_" in name or name.startswith("ln_"):
            assert (parameter == 1).all(), name
        else:
            expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # sqrt(2 * 8 layers) = 4
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(parameter.mean().item()) < 5 * expected / parameter.numel() ** 0.5, name
