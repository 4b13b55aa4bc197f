"""What must hold for every variant of the model."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.config import MLP, GPTConfig, Norm, Position
from minigpt.errors import ConfigError
from minigpt.model import GPT, KVCache
from minigpt.model.accounting import parameter_count, parameter_table
from minigpt.model.gpt import MLPS
from minigpt.model.hooks import hooked
from minigpt.model.layers import NORMS, POSITION_EMBEDDINGS, ROTARY, RotaryPositions, parameter_kinds

POSITIONS = get_args(Position)
SMALL = {"vocab_size": 50, "block_size": 12, "n_embd": 16, "n_head": 2, "n_inner": 24, "dropout": 0.0}
VARIANTS = [
    GPTConfig(position=position, norm=norm, mlp=mlp, bias=bias, tie_word_embeddings=tied, **SMALL)
    for position, norm, mlp, bias, tied in itertools.product(POSITIONS, NORMS, MLPS, (True, False), (True, False))
] + [
    GPTConfig(position=position, n_kv_head=n_kv_head, qk_norm=qk_norm, **SMALL)
    for position, (n_kv_head, qk_norm) in itertools.product(POSITIONS, ((1, False), (2, True), (1, True)))
]


def name(config: GPTConfig) -> str:
    heads = f"{config.kv_heads}-{config.qk_norm}"
    return f"{config.position}-{config.norm}-{config.mlp}-{'bias' if config.bias else 'plain'}-{heads}"


def make(config: GPTConfig) -> GPT:
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def test_the_settings_name_every_variant():
    assert set(POSITIONS) == {*POSITION_EMBEDDINGS, *ROTARY, "none"}
    assert set(get_args(Norm)) == set(NORMS)
    assert set(get_args(MLP)) == set(MLPS)


@pytest.mark.parametrize("config", VARIANTS, ids=name)
def test_parameters_are_counted_from_the_configuration_alone(config):
    assert parameter_count(config) == sum(p.numel() for p in GPT(config).parameters())


@pytest.mark.parametrize("config", VARIANTS, ids=name)
def test_cached_logits_equal_uncached_ones(config):
    model = make(config)
    ids = torch.randint(config.vocab_size, (2, 12), generator=torch.Generator().manual_seed(1))
    cache = KVCache(config, 2, device=torch.device("cpu"), dtype=torch.float32)
    pieces = [model(ids[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, 9), (9, 10), (10, 12))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", VARIANTS, ids=name)
def test_rows_of_different_lengths_share_a_cache(config):
    model, lengths = make(config), (1, 7, 4)
    ids = torch.randint(config.vocab_size, (3, 12), generator=torch.Generator().manual_seed(1))
    cache = KVCache(config, 3, device=torch.device("cpu"), dtype=torch.float32)
    for row, length in enumerate(lengths):
        model(ids[row : row + 1, :length], cache=cache.empty_row(row))
    cache.lengths = list(lengths)
    for time in (1, 3, 1):
        new = torch.stack([ids[row, at : at + time] for row, at in enumerate(cache.lengths)])
        found = model(new, cache=cache)
        for row, end in enumerate(cache.lengths):
            expected = model(ids[row : row + 1, :end])[0, -time:]
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(config=st.sampled_from(VARIANTS), place=st.integers(0, 11), token=st.integers(0, 49), seed=st.integers(0, 99))
def test_a_changed_token_changes_no_earlier_logit(config, place, token, seed):
    model = make(config)
    ids = torch.randint(config.vocab_size, (1, 12), generator=torch.Generator().manual_seed(seed))
    changed = ids.clone()
    changed[0, place] = (ids[0, place] + 1 + token % 48) % 50
    before, after = model(ids), model(changed)
    torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=0)
    assert not torch.equal(after[:, place:], before[:, place:])


@pytest.mark.parametrize("position", [p for p in POSITIONS if p != "none"])
def test_every_position_variant_tells_orders_apart(position):
    model = make(GPTConfig(position=position, n_layer=1, **SMALL))
    one, other = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 3]])
    assert not torch.allclose(model(one)[:, -1], model(other)[:, -1], atol=1e-3)


def test_without_positions_one_layer_sees_a_set():
    model = make(GPTConfig(position="none", n_layer=1, **SMALL))
    one, other = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 3]])
    torch.testing.assert_close(model(one)[:, -1], model(other)[:, -1], rtol=1e-4, atol=1e-4)


def test_rotary_scores_depend_on_the_distance_alone():
    rope = RotaryPositions(GPTConfig(**{**SMALL, "block_size": 128}))
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(at: int, before: int) -> torch.Tensor:
        return (rope(q, torch.tensor([at])) * rope(k, torch.tensor([before]))).sum()

    torch.testing.assert_close(score(5, 2), score(105, 102), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(score(5, 2), score(5, 4))


def test_the_seed_model_has_the_parameters_that_the_documents_state():
    table = parameter_table(GPTConfig(vocab_size=50_257))
    assert table["token embedding"] == 50_257 * 128 == 6_432_896
    assert parameter_count(GPTConfig(vocab_size=50_257)) == 6_895_232


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"n_head": 3}, "divisible"),
        ({"n_kv_head": 3}, "n_kv_head 3 does not divide"),
        ({"n_kv_head": 0}, "n_kv_head 0"),
        ({"dropout": 1.0}, "dropout"),
        ({"n_layer": 0}, "n_layer"),
        ({"vocab_size": 0}, "vocab_size"),
    ],
)
def test_a_shape_that_cannot_work_is_refused(changes, word):
    with pytest.raises(ConfigError, match=word):
        GPT(GPTConfig(**{**SMALL, **changes}))


def test_more_tokens_than_the_context_are_refused():
    with pytest.raises(ConfigError, match="context is 12"):
        GPT(GPTConfig(**SMALL))(torch.zeros(1, 13, dtype=torch.long))


def test_every_parameter_says_what_it_is():
    for config in VARIANTS:
        model = GPT(config)
        for parameter, kind in zip(model.parameters(), parameter_kinds(model).values(), strict=True):
            assert (kind in ("matrix", "embedding")) == (parameter.dim() == 2)
    kinds = parameter_kinds(GPT(GPTConfig(qk_norm=True, tie_word_embeddings=False, **SMALL)))
    assert kinds["lm_head.weight"] == kinds["wpe.weight"] == "embedding"
    assert kinds["h.0.attn.q_norm.weight"] == "gain"
    assert kinds["h.0.attn.c_attn.bias"] == "bias"


def test_grouped_queries_are_heads_whose_keys_and_values_are_equal():
    grouped = make(GPTConfig(n_kv_head=1, **SMALL))
    full = make(GPTConfig(**SMALL))
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            given = grouped.get_parameter(name)
            if ".c_attn." in name:
                q, k, v = given.split((16, 8, 8))
                given = torch.cat((q, k, k, v, v))
            parameter.copy_(given)
    ids = torch.randint(50, (2, 12))
    torch.testing.assert_close(grouped(ids), full(ids), rtol=1e-5, atol=1e-5)


def test_queries_and_keys_that_are_normalised_bound_the_scores():
    model, seen = make(GPTConfig(qk_norm=True, **SMALL)), []
    with torch.no_grad():
        for block in model.h:
            block.attn.q_norm.weight.fill_(1)
            block.attn.k_norm.weight.fill_(1)
    with hooked(model, {"h.0.attn.scores": seen.append}):
        model(torch.randint(50, (2, 12)))
    assert seen[0][seen[0].isfinite()].abs().max() <= 8**0.5 + 1e-4  # by Cauchy and Schwarz: sqrt(head_dim)
