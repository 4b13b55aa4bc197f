"""The closed forms of cost.py against torch's own counter and the model's own tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.model.accounting import flops_per_token, parameter_count, training_memory

SMALL = GPTConfig(vocab_size=300, block_size=64, n_layer=3, n_head=4, n_embd=48, n_inner=100, dropout=0.0)
GROUPED = replace(SMALL, n_kv_head=2, qk_norm=True, mlp="swiglu")


@pytest.mark.parametrize("mlp", ["gelu", "relu2", "swiglu"])
@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_flops_are_those_that_torch_counts(mlp, tie_word_embeddings):
    config = replace(SMALL, mlp=mlp, tie_word_embeddings=tie_word_embeddings)
    with torch.device("meta"):
        model = GPT(config)
        ids = torch.zeros(2, config.block_size, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids).sum().backward()
    parts = flops_per_token(config)
    scores = parts.pop("attention: scores and sums")
    counted = counter.get_total_flops() / ids.numel()
    # On the meta device torch counts all of the attention's square, and its fused kernel's second forward pass.
    in_matrices = sum(parts.values())
    assert in_matrices <= counted
    assert counted - in_matrices == pytest.approx(2 * scores, rel=0.3)


def test_the_reference_setting_takes_41_million_a_token():
    parts = flops_per_token(GPTConfig(vocab_size=50_257))
    assert sum(parts.values()) == pytest.approx(41e6, rel=0.02)
    assert parts["vocabulary head"] / sum(parts.values()) == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize("config", [SMALL, GROUPED], ids=["usual", "grouped"])
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weights_and_optimizer_are_counted_to_the_byte(optimizer, config):
    from minigpt.config import OptimizerConfig
    from minigpt.training.optimizers import make_optimizers

    model = GPT(config)
    memory = training_memory(config, rows=2, dtype=torch.float32, optimizer=optimizer)
    assert memory.weights == 4 * parameter_count(config)
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    optimizers = make_optimizers(model, 1e-3, OptimizerConfig(name=optimizer))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for each in optimizers:
        each.step()
    tensors = [t for each in optimizers for state in each.state.values() for t in state.values() if t.numel() > 1]
    assert memory.optimizer == sum(t.nbytes for t in tensors)


def test_activations_grow_with_what_is_held_at_once_and_logits_do_not():
    shape = GPTConfig(vocab_size=50_257)
    few, many = (training_memory(shape, rows=rows, dtype=torch.bfloat16, optimizer="adam") for rows in (2, 8))
    assert many.activations == 4 * few.activations
    assert many.logits == few.logits
    assert many.logits < 4096 * 50257  # bytes; all logits in float32 were four times as many
