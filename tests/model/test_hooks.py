"""Named points: exact when somebody looks, and what is put in their place is what the model goes on with."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from minigpt.config import IGNORE_INDEX
from minigpt.model import GPT, KVCache
from minigpt.model.hooks import hooked, points
from tests.model.test_gpt import VARIANTS, make, name

IDS = torch.randint(50, (2, 12), generator=torch.Generator().manual_seed(3))


def record(model: GPT, *names: str, ids: torch.Tensor = IDS) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}

    def into(place: str):
        return lambda tensor: seen.update({place: tensor})

    with hooked(model, {place: into(place) for place in names or points(model)}):
        model(ids)
    return seen


@pytest.mark.parametrize("config", VARIANTS[::3], ids=name)
def test_watching_every_point_changes_no_logit(config):
    model = make(config)
    seen = record(model)
    assert set(seen) == set(points(model))
    torch.testing.assert_close(seen["logits"], model(IDS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", VARIANTS[::3], ids=name)
def test_the_points_add_up(config):
    model, width = make(config), config.n_embd
    seen = record(model)
    torch.testing.assert_close(seen["h.0.resid_pre"], seen["embed"])
    for layer in range(config.n_layer):
        at = {key.removeprefix(f"h.{layer}."): value for key, value in seen.items() if key.startswith(f"h.{layer}.")}
        torch.testing.assert_close(at["resid_mid"], at["resid_pre"] + at["attn_out"])
        torch.testing.assert_close(at["resid_post"], at["resid_mid"] + at["mlp_out"])
        assert at["attn.k"].shape == at["attn.v"].shape == (2, config.kv_heads, 12, config.head_dim)
        pattern = at["attn.pattern"]
        assert (pattern.triu(1) == 0).all()
        torch.testing.assert_close(pattern.sum(-1), torch.ones(2, config.n_head, 12))
        torch.testing.assert_close(pattern, at["attn.scores"].softmax(-1))
        values = at["attn.v"].repeat_interleave(config.n_head // config.kv_heads, dim=1)
        torch.testing.assert_close(at["attn.z"], pattern @ values)
        heads = at["attn.z"].transpose(1, 2).reshape(2, 12, width)
        torch.testing.assert_close(model.h[layer].attn.c_proj(heads), at["attn_out"])
        torch.testing.assert_close(model.h[layer].mlp.c_proj(at["mlp.hidden"]), at["mlp_out"])
    torch.testing.assert_close(model.ln_f(seen[f"h.{config.n_layer - 1}.resid_post"]), seen["final"])
    torch.testing.assert_close(model.lm_head(seen["final"]), seen["logits"])


def test_what_a_watcher_returns_takes_the_tensors_place():
    model = make(VARIANTS[0])
    with torch.no_grad(), hooked(model, {"h.0.attn_out": torch.zeros_like, "h.0.mlp_out": torch.zeros_like}):
        found = model(IDS)
    with torch.no_grad():
        x = model.wte(IDS) + model.wpe(torch.arange(12))
        expected = model.lm_head(model.ln_f(model.h[1](x, torch.arange(12))))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(model(IDS), expected), "the watchers are gone"


def test_a_heads_output_can_be_switched_off():
    model = make(VARIANTS[0])
    with torch.no_grad():
        with hooked(model, {"h.1.attn.z": lambda z: z * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)}):
            found = model(IDS)
        model.h[1].attn.c_proj.weight[:, 8:] = 0  # the second head's columns
        torch.testing.assert_close(found, model(IDS))


def test_the_loss_of_watched_logits_is_the_same():
    model, targets = make(VARIANTS[0]), IDS.roll(-1, dims=1)
    targets[:, -1] = IGNORE_INDEX
    seen: list[torch.Tensor] = []
    with hooked(model, {"logits": seen.append}):
        plain = model(IDS, targets)
    torch.testing.assert_close(model(IDS, targets), plain, rtol=1e-5, atol=1e-4)
    expected = F.cross_entropy(seen[0].flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    torch.testing.assert_close(plain, expected)


def test_patterns_are_seen_with_a_cache_too():
    config = VARIANTS[0]
    model, cache = make(config), KVCache(config, 2, device=torch.device("cpu"), dtype=torch.float32)
    whole, seen = record(model, "h.1.attn.pattern")["h.1.attn.pattern"], []
    model(IDS[:, :9], cache=cache)
    with hooked(model, {"h.1.attn.pattern": seen.append}):
        model(IDS[:, 9:], cache=cache)
    torch.testing.assert_close(seen[0], whole[:, :, 9:])


def test_the_logits_that_are_kept_are_those_of_all():
    model = make(VARIANTS[0])
    mask = torch.rand(2, 12, generator=torch.Generator().manual_seed(0)) < 0.4
    every = model(IDS)
    torch.testing.assert_close(model(IDS, logits_to_keep=3), every[:, -3:])
    assert model(IDS, logits_to_keep=0).shape == (2, 0, 50)
    torch.testing.assert_close(model(IDS, logits_to_keep=mask), every[mask])


def test_a_point_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"h\.9"), hooked(make(VARIANTS[0]), {"h.9.attn.q": print}):
        pass
