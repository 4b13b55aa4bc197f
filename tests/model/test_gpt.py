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
from minigpt.model.attention import attend, attend_cached, attend_masked, attention_pattern
from minigpt.model.cost import parameter_count, parameter_table
from minigpt.model.mlps import MLPS
from minigpt.model.norms import NORMS
from minigpt.model.positions import POSITIONS

SMALL = {"vocab_size": 50, "block_size": 12, "n_embd": 16, "n_head": 2, "n_hidden": 24, "dropout": 0.0}
VARIANTS = [
    GPTConfig(position=position, norm=norm, mlp=mlp, bias=bias, tied=tied, **SMALL)
    for position, norm, mlp, bias, tied in itertools.product(POSITIONS, NORMS, MLPS, (True, False), (True, False))
]


def name(config: GPTConfig) -> str:
    return f"{config.position}-{config.norm}-{config.mlp}-{'bias' if config.bias else 'plain'}-{config.tied}"


def make(config: GPTConfig) -> GPT:
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def test_the_settings_name_every_variant():
    assert set(get_args(Position)) == set(POSITIONS)
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
    pieces = [model(ids[:, a:b], cache) for a, b in ((0, 4), (4, 5), (5, 9), (9, 10), (10, 12))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", VARIANTS, ids=name)
def test_rows_of_different_lengths_share_a_cache(config):
    model, lengths = make(config), (1, 7, 4)
    ids = torch.randint(config.vocab_size, (3, 12), generator=torch.Generator().manual_seed(1))
    cache = KVCache(config, 3, device=torch.device("cpu"), dtype=torch.float32)
    for row, length in enumerate(lengths):
        model(ids[row : row + 1, :length], cache.empty_row(row))
    cache.lengths = list(lengths)
    for time in (1, 3, 1):
        new = torch.stack([ids[row, at : at + time] for row, at in enumerate(cache.lengths)])
        found = model(new, cache)
        for row, end in enumerate(cache.lengths):
            expected = model(ids[row : row + 1, :end])[0, -time:]
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


def test_all_rows_at_once_attend_as_row_by_row():
    q, k, v = torch.randn(3, 2, 2, 8), torch.randn(3, 2, 9, 8), torch.randn(3, 2, 9, 8)
    positions = torch.tensor([[7, 8], [1, 2], [4, 5]])
    torch.testing.assert_close(attend_masked(q, k, v, positions), attend_cached(q, k, v, positions))


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
    rope = POSITIONS["rope"](GPTConfig(**{**SMALL, "block_size": 128}))
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(at: int, before: int) -> torch.Tensor:
        return (rope.rotate(q, torch.tensor([at])) * rope.rotate(k, torch.tensor([before]))).sum()

    torch.testing.assert_close(score(5, 2), score(105, 102), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(score(5, 2), score(5, 4))


def test_the_pattern_is_what_the_kernel_computes():
    q, k, v = (torch.randn(2, 3, 7, 5) for _ in range(3))
    pattern = attention_pattern(q, k)
    assert (pattern.triu(1) == 0).all()
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 3, 7))
    torch.testing.assert_close(attend(q, k, v), pattern @ v, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(attend(q[:, :, 4:], k, v), attention_pattern(q[:, :, 4:], k) @ v, rtol=1e-5, atol=1e-5)


def test_the_seed_model_has_the_parameters_that_the_documents_state():
    table = parameter_table(GPTConfig())
    assert table["token embedding"] == 50_257 * 128 == 6_432_896
    assert parameter_count(GPTConfig()) == 6_895_232


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"n_head": 3}, "divisible"), ({"dropout": 1.0}, "dropout"), ({"n_layer": 0}, "n_layer")],
)
def test_a_shape_that_cannot_work_is_refused(changes, word):
    with pytest.raises(ConfigError, match=word):
        GPT(GPTConfig(**{**SMALL, **changes}))


def test_more_tokens_than_the_context_are_refused():
    with pytest.raises(ConfigError, match="at most 12"):
        GPT(GPTConfig(**SMALL))(torch.zeros(1, 13, dtype=torch.long))
