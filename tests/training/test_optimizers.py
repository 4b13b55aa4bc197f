"""Optimizers against torch.optim, used the plain way on the same gradients."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch

from minigpt.config import GPTConfig, Optimizer, OptimizerConfig
from minigpt.errors import CheckpointError
from minigpt.model import GPT
from minigpt.training.optimizers import (
    OPTIMIZERS,
    load_optimizer_tensors,
    make_optimizers,
    optimizer_tensors,
    set_lr,
)

SHAPE = GPTConfig(vocab_size=20, block_size=8, n_layer=1, n_head=2, n_embd=8, n_inner=16, dropout=0.0)
EPS = 1e-6
"""The gradient of the keys' bias is 0 but for rounding; a smaller eps would blow that rounding up."""


def model() -> GPT:
    torch.manual_seed(0)
    return GPT(SHAPE)


def take_steps(model: GPT, optimizers: list[torch.optim.Optimizer], count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(20, (2, 9), generator=generator)
        model(ids[:, :-1], ids[:, 1:]).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def assert_same(one: GPT, other: GPT, tolerance: float = 1e-6) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=name)


def test_the_settings_name_every_optimizer():
    assert set(get_args(Optimizer)) == set(OPTIMIZERS)


def test_adam_is_torchs():
    ours, theirs = model(), model()
    take_steps(ours, make_optimizers(ours, 1e-3, OptimizerConfig(name="adam", beta2=0.99, eps=EPS)), 5)
    take_steps(theirs, [torch.optim.Adam(theirs.parameters(), lr=1e-3, betas=(0.9, 0.99), eps=EPS)], 5)
    assert_same(ours, theirs)


def test_adamw_decays_matrices_and_nothing_else():
    ours, theirs = model(), model()
    take_steps(ours, make_optimizers(ours, 1e-3, OptimizerConfig(name="adamw", weight_decay=0.5, eps=EPS)), 5)
    matrices = [p for p in theirs.parameters() if p.dim() == 2]
    rest = [p for p in theirs.parameters() if p.dim() != 2]
    take_steps(
        theirs,
        [
            torch.optim.AdamW(matrices, lr=1e-3, weight_decay=0.5, eps=EPS),
            torch.optim.AdamW(rest, lr=1e-3, weight_decay=0.0, eps=EPS),
        ],
        5,
    )
    assert_same(ours, theirs)


def test_muon_takes_the_matrices_inside_the_blocks_and_adamw_the_rest():
    ours, theirs = model(), model()
    take_steps(ours, make_optimizers(ours, 1e-3, OptimizerConfig(name="muon", weight_decay=0.1)), 3)
    inside = [p for n, p in theirs.named_parameters() if n.startswith("h.") and p.dim() == 2]
    outside = [p for n, p in theirs.named_parameters() if not n.startswith("h.") and p.dim() == 2]
    vectors = [p for p in theirs.parameters() if p.dim() == 1]
    assert len(inside) == 4
    muon = torch.optim.Muon(inside, lr=1e-3, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    take_steps(
        theirs,
        [
            muon,
            torch.optim.AdamW(outside, lr=1e-3, weight_decay=0.1),
            torch.optim.AdamW(vectors, lr=1e-3, weight_decay=0.0),
        ],
        3,
    )
    assert_same(ours, theirs, 1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_has_exactly_one_optimizer(name):
    m = model()
    trained = [
        p for o in make_optimizers(m, 1e-3, OptimizerConfig(name=name)) for g in o.param_groups for p in g["params"]
    ]
    assert len(trained) == len({id(p) for p in trained}) == len(list(m.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_can_be_restored(name):
    config = OptimizerConfig(name=name)
    whole = model()
    optimizers = make_optimizers(whole, 1e-3, config)
    take_steps(whole, optimizers, 3)
    second = copy.deepcopy(whole)
    fresh = make_optimizers(second, 1e-3, config)
    load_optimizer_tensors(second, fresh, {k: v.clone() for k, v in optimizer_tensors(whole, optimizers).items()})
    take_steps(whole, optimizers, 3, first=3)
    take_steps(second, fresh, 3, first=3)
    assert_same(whole, second, 0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_of_another_model_is_refused(name):
    config = OptimizerConfig(name=name)
    whole = model()
    optimizers = make_optimizers(whole, 1e-3, config)
    load_optimizer_tensors(whole, optimizers, {})  # before the first step
    take_steps(whole, optimizers, 1)
    memory = optimizer_tensors(whole, optimizers)
    label = sorted(memory)[0]
    without = {key: tensor for key, tensor in memory.items() if key != label}
    wrong = [without, {**without, "x": memory[label]}, {**memory, "a/b": memory[label]}]
    for damaged in [*wrong, {**memory, label: torch.zeros(3, 5)}, {key: torch.zeros(()) for key in memory}]:
        fresh = make_optimizers(whole, 1e-3, config)
        with pytest.raises(CheckpointError, match="does not match"):
            load_optimizer_tensors(whole, fresh, damaged)
        assert optimizer_tensors(whole, fresh) == {}


def test_the_learning_rate_is_set_in_every_group():
    optimizers = make_optimizers(model(), 1e-3, OptimizerConfig(name="muon"))
    set_lr(optimizers, 0.25)
    assert {group["lr"] for o in optimizers for group in o.param_groups} == {0.25}


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_parameters_that_need_no_gradient_are_left_alone(name):
    torch.manual_seed(0)
    model, config = GPT(SHAPE), OptimizerConfig(name=name, weight_decay=0.1)
    for parameter in (model.wte.weight, model.h[0].attn.c_attn.weight):
        parameter.requires_grad = False
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizers = make_optimizers(model, 0.1, config)
    model(torch.arange(8)[None], torch.arange(8)[None]).backward()
    for optimizer in optimizers:
        optimizer.step()
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert still == {"wte.weight", "h.0.attn.c_attn.weight"}
    memory = optimizer_tensors(model, optimizers)
    assert not any(label.endswith(tuple(still)) for label in memory)
    load_optimizer_tensors(model, make_optimizers(model, 0.1, config), memory)
