"""Every definition of the explain package, for every variant of the model, in float32 and float64."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import ArceeConfig, ArceeForCausalLM

from minigpt import explain
from minigpt.config import GPTConfig
from minigpt.errors import ConfigError
from minigpt.explain.head_scores import induction_of
from minigpt.model import GPT
from tests.model.test_against_transformers import as_gpt2
from tests.model.test_gpt import VARIANTS, make, name

IDS = torch.randint(50, (12,), generator=torch.Generator().manual_seed(5))
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}
BOTH = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
EVERY = pytest.mark.parametrize("config", VARIANTS, ids=name)
SOME = pytest.mark.parametrize("config", [*VARIANTS[::7], VARIANTS[-1]], ids=name)


def made(config: GPTConfig, dtype: torch.dtype) -> GPT:
    return make(config).to(dtype)


@EVERY
@BOTH
def test_a_trace_is_the_forward_pass(config, dtype):
    model = made(config, dtype)
    trace = explain.record_trace(model, IDS)
    torch.testing.assert_close(trace.logits, model(IDS[None])[0], **TOLERANCE[dtype])
    assert len(trace.residual_stream) == 1 + 2 * config.n_layer
    assert not model.training
    model.train()
    explain.record_trace(model, IDS)
    assert model.training


@EVERY
@BOTH
def test_the_last_layers_lens_is_the_models_logits(config, dtype):
    model = made(config, dtype)
    trace = explain.record_trace(model, IDS)
    lens = explain.logit_lens(model, trace)
    assert next(iter(lens)) == "embed"
    torch.testing.assert_close(lens[f"h.{config.n_layer - 1}.resid_post"], trace.logits, **TOLERANCE[dtype])


@EVERY
@BOTH
def test_components_sum_to_the_stream_and_attributions_to_the_logit(config, dtype):
    model = made(config, dtype)
    trace = explain.record_trace(model, IDS)
    total = sum(explain.components(model, trace).values())
    torch.testing.assert_close(total, trace[f"h.{config.n_layer - 1}.resid_post"], **TOLERANCE[dtype])
    logits = trace.logits[7]
    of_one = explain.logit_attribution(model, trace, 7, 3)
    assert sum(of_one.values()) == pytest.approx(float(logits[3]), rel=1e-4, abs=1e-4)
    difference = explain.logit_attribution(model, trace, 7, 3, versus=9)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-10
    assert sum(difference.values()) == pytest.approx(float(logits[3] - logits[9]), rel=tolerance, abs=tolerance)
    assert ("final bias" in of_one) == (config.norm == "layernorm" and config.bias)


@EVERY
@BOTH
def test_a_heads_sources_sum_to_the_head_and_heads_to_the_attention(config, dtype):
    model = made(config, dtype)
    trace = explain.record_trace(model, IDS)
    parts = explain.components(model, trace)
    for layer in range(config.n_layer):
        by_source = explain.head_by_source(model, trace, layer, position=9)
        assert by_source.shape == (config.n_head, 10, config.n_embd)
        for head in range(config.n_head):
            torch.testing.assert_close(by_source[head].sum(0), parts[f"head {layer}.{head}"][9], **TOLERANCE[dtype])
        whole = sum(parts[f"head {layer}.{head}"] for head in range(config.n_head))
        whole = whole + parts.get(f"attention bias {layer}", 0)
        torch.testing.assert_close(whole, trace[f"h.{layer}.attn_out"], **TOLERANCE[dtype])


@SOME
@BOTH
def test_a_head_set_to_zero_is_one_whose_output_weights_are_zero(config, dtype):
    model, size = made(config, dtype), config.head_dim
    found = explain.ablate(model, IDS, [(1, 0)])
    every = explain.ablate_each_head(model, IDS)
    assert every.shape == (config.n_layer, config.n_head, len(IDS), config.vocab_size)
    with torch.no_grad():
        model.h[1].attn.c_proj.weight[:, :size] = 0
    expected = explain.record_trace(model, IDS).logits
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])
    torch.testing.assert_close(every[1, 0], expected, **TOLERANCE[dtype])
    torch.testing.assert_close(explain.ablate(model, IDS, []), expected, **TOLERANCE[dtype])


@EVERY
@BOTH
def test_a_layers_heads_switched_off_from_its_input_on(config, dtype):
    model = made(config, dtype)
    trace = explain.record_trace(model, IDS)
    for replacement in (None, explain.mean_outputs([trace])):
        every = explain.ablate_each_head(model, IDS, replacement)
        for layer in range(config.n_layer):
            found = explain.ablate_heads_of_layer(model, trace, layer, 6, replacement)
            torch.testing.assert_close(found, every[layer, :, 6], **TOLERANCE[dtype])


@SOME
def test_heads_stay_replaced_for_all_that_is_computed_in_between(config):
    model, last = make(config), config.n_layer - 1
    with explain.heads_replaced(model, [(0, 0)]):
        trace = explain.record_trace(model, IDS)
        both = explain.ablate_heads_of_layer(model, trace, last, position=7)
    torch.testing.assert_close(trace.logits, explain.ablate(model, IDS, [(0, 0)]), **TOLERANCE[torch.float32])
    assert not trace["h.0.attn.z"][0].any()
    assert both.shape == (config.n_head, config.vocab_size)
    expected = explain.ablate(model, IDS, [(0, 0), (last, 1)])
    torch.testing.assert_close(both[1], expected[7], **TOLERANCE[torch.float32])


@SOME
def test_a_head_replaced_by_its_own_output_changes_nothing_and_by_its_mean_something(config):
    model = make(config)
    trace = explain.record_trace(model, IDS)
    heads = [(layer, head) for layer in range(config.n_layer) for head in range(config.n_head)]
    same = explain.ablate(model, IDS, heads, explain.head_outputs(trace), keep=2)
    torch.testing.assert_close(same, trace.logits[-2:], **TOLERANCE[torch.float32])
    mean = explain.mean_outputs([trace, explain.record_trace(model, IDS.flip(0)[:5])])
    assert mean.shape == (config.n_layer, config.n_head, 1, config.head_dim)
    expected = (explain.head_outputs(trace).sum(2) + explain.head_outputs(explain.record_trace(model, IDS.flip(0)[:5])).sum(2)) / 17  # fmt: skip  # noqa: E501
    torch.testing.assert_close(mean[:, :, 0], expected, **TOLERANCE[torch.float32])
    one = explain.ablate(model, IDS, [(0, 0)], mean)
    assert not torch.allclose(one, trace.logits, atol=1e-3)
    torch.testing.assert_close(explain.ablate_each_head(model, IDS, mean)[0, 0], one, **TOLERANCE[torch.float32])


@SOME
@BOTH
def test_patching_the_whole_stream_brings_all_back_and_nothing_brings_nothing(config, dtype):
    model = made(config, dtype)
    clean, corrupt = IDS, IDS.roll(1)
    traces = [explain.record_trace(model, ids) for ids in (clean, corrupt)]
    stream = f"h.{config.n_layer - 1}.resid_post"
    whole = explain.patch(model, corrupt, {stream: traces[0][stream]})
    torch.testing.assert_close(whole, traces[0].logits, **TOLERANCE[dtype])
    nothing = explain.patch(model, corrupt, {stream: traces[0][stream]}, positions=[])
    torch.testing.assert_close(nothing, traces[1].logits, **TOLERANCE[dtype])
    late = explain.patch(model, corrupt, {"h.0.attn_out": traces[0]["h.0.attn_out"]}, positions=[6])
    torch.testing.assert_close(late[:6], traces[1].logits[:6], **TOLERANCE[dtype])
    assert not torch.allclose(late[6:], traces[1].logits[6:], atol=1e-3)
    values = [float(logits[-1, 3]) for logits in (whole, traces[1].logits, traces[0].logits)]
    assert explain.recovered(*values) == pytest.approx(1, abs=1e-3)


def test_scores_of_heads_that_are_known():
    n = 16
    perfect = torch.zeros(2 * n, 2 * n)
    perfect[:, 0] = 1
    for place in range(n, 2 * n):
        perfect[place] = 0
        perfect[place, place - (n - 1)] = 1
    uniform = torch.ones(2 * n, 2 * n).tril()
    uniform /= uniform.sum(1, keepdim=True)
    assert induction_of(perfect, n) == 1
    assert float(induction_of(uniform, n)) == pytest.approx(explain.induction_chance(n))


def test_head_scores_of_patterns_made_by_hand():
    config = GPTConfig(vocab_size=50, block_size=16, n_layer=1, n_head=3, n_embd=12, n_inner=8, dropout=0.0)
    ids = torch.tensor([4, 7, 4, 9, 7, 4])
    patterns = torch.zeros(3, 6, 6)
    patterns[:, 0, 0] = 1
    for place in range(1, 6):
        patterns[0, place, place - 1] = 1  # to the token before
        patterns[1, place, 0] = 1  # to the first
        earlier = [at for at in range(place) if ids[at] == ids[place]]
        patterns[2, place, earlier or [place]] = 1 / max(1, len(earlier))  # to the same token
    model = GPT(config)
    trace = explain.Trace(ids, {"h.0.attn.pattern": patterns})
    found = explain.head_scores(model, trace)
    assert found["previous token"].tolist() == [[1, 0, 0]]
    assert found["first token"][0, 1] == 1
    assert found["same token"][0, 2] == 1
    assert found["same token"][0, 1] == pytest.approx(2 / 3)  # two of the three repeats are of the first token


def test_induction_scores_of_a_model_are_those_of_its_patterns():
    model = make(VARIANTS[0])
    found = explain.induction_scores(model, length=6)
    ids = explain.repeated_tokens(50, 6)
    assert ids[:6].equal(ids[6:])
    pattern = explain.record_trace(model, ids)["h.1.attn.pattern"]
    expected = sum(float(pattern[0, i, i - 5]) for i in range(6, 12)) / 6
    assert float(found[1, 0]) == pytest.approx(expected)


def test_tokens():
    model = make(VARIANTS[0])
    with torch.no_grad():
        model.wte.weight[8] = 3 * model.wte.weight[5]
    (first, similarity), *rest = explain.nearest_tokens(model, 5, count=60)
    assert (first, len(rest)) == (8, 48)
    assert similarity == pytest.approx(1)
    assert [value for _, value in rest] == sorted((value for _, value in rest), reverse=True)
    trace = explain.record_trace(model, IDS)
    losses = explain.token_losses(trace)
    assert losses.shape == (11,)
    assert float(losses.sum()) == pytest.approx(model(IDS[None, :-1], IDS[None, 1:]).item(), rel=1e-4)
    rising = torch.arange(512.0).expand(3, -1)
    assert explain.in_context_score(rising) == 450
    assert explain.in_context_score(rising[:, :128]) == pytest.approx(113, abs=1)


def test_more_tokens_than_the_context_are_refused():
    with pytest.raises(ConfigError, match="context is 12"):
        explain.record_trace(make(VARIANTS[0]), torch.zeros(13, dtype=torch.long))


def test_preset_seed_is_gpt2_inside_too():
    """Hidden states and attention patterns, as transformers computes them without fused kernels."""
    config = GPTConfig(vocab_size=211, block_size=48, n_layer=2, n_head=4, n_embd=32, n_inner=96, dropout=0.0)
    model = make(config)
    theirs = as_gpt2(model, attn_implementation="eager")
    with torch.no_grad():
        found = theirs(IDS[None], output_attentions=True, output_hidden_states=True)
    compare(explain.record_trace(model, IDS), found, config)


def test_preset_laptop_is_arcee_inside_too():
    config = GPTConfig(
        vocab_size=211, block_size=48, n_layer=2, n_head=4, n_embd=32, n_inner=96, dropout=0.0, bias=False,
        position="rope", norm="rmsnorm", mlp="relu2", tie_word_embeddings=True,
    )  # fmt: skip
    model = make(config)
    theirs = ArceeForCausalLM(
        ArceeConfig(vocab_size=211, hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=4, max_position_embeddings=48, rms_norm_eps=1e-5, hidden_act="relu2",
                    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, tie_word_embeddings=True,
                    mlp_bias=False, attention_bias=False, bos_token_id=0, eos_token_id=0, attn_implementation="eager")
    )  # fmt: skip
    with torch.no_grad():
        theirs.model.embed_tokens.weight.copy_(model.wte.weight)
        theirs.model.norm.weight.copy_(model.ln_f.weight)
        for block, layer in zip(model.h, theirs.model.layers, strict=True):
            layer.input_layernorm.weight.copy_(block.ln_1.weight)
            layer.post_attention_layernorm.weight.copy_(block.ln_2.weight)
            attention = layer.self_attn
            for part, weight in zip((attention.q_proj, attention.k_proj, attention.v_proj),
                                    block.attn.c_attn.weight.split(32), strict=True):  # fmt: skip
                part.weight.copy_(weight)
            attention.o_proj.weight.copy_(block.attn.c_proj.weight)
            layer.mlp.up_proj.weight.copy_(block.mlp.c_fc.weight)
            layer.mlp.down_proj.weight.copy_(block.mlp.c_proj.weight)
        found = theirs.eval()(IDS[None], output_attentions=True, output_hidden_states=True)
    compare(explain.record_trace(model, IDS), found, config)


def compare(trace, found, config: GPTConfig) -> None:
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(trace.logits, found.logits[0], **close)
    for layer in range(config.n_layer):
        torch.testing.assert_close(trace[f"h.{layer}.attn.pattern"], found.attentions[layer][0], **close)
        torch.testing.assert_close(trace[f"h.{layer}.resid_pre"], found.hidden_states[layer][0], **close)
    torch.testing.assert_close(trace["final"], found.hidden_states[-1][0], **close)  # theirs is after the last norm


def test_ablation_equals_a_hook_on_transformers_projection():
    config = GPTConfig(vocab_size=211, block_size=48, n_layer=2, n_head=4, n_embd=32, n_inner=96, dropout=0.0)
    model = make(config)
    theirs = as_gpt2(model)
    with torch.no_grad():

        def without_head_2(module, inputs):
            (x,) = inputs
            x = x.clone()
            x[..., 16:24] = 0
            return (x,)

        theirs.transformer.h[1].attn.c_proj.register_forward_pre_hook(without_head_2)
        expected = theirs(IDS[None]).logits[0]
    torch.testing.assert_close(explain.ablate(model, IDS, [(1, 2)]), expected, rtol=1e-4, atol=1e-4)


def test_perplexity_of_a_trace_is_finite():
    assert math.isfinite(float(explain.token_losses(explain.record_trace(make(VARIANTS[3]), IDS)).mean()))
