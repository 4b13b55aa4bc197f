"""The samplers alone: against those of transformers, a draw written out, and batches against single rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from minigpt.errors import ConfigError
from minigpt.generation import logit_range, samplers
from minigpt.generation.logit_range import compact_range, keep_range, kth_largest, top_k_bound
from minigpt.generation.samplers import NO_TOKEN, draw, filter_logits, sample_tokens
from minigpt.sampling_params import SamplingParams

INFINITY = float("inf")
NOTHING = torch.zeros(3, 0, dtype=torch.long)


def random_logits(seed: int, batch: int = 3, vocab_size: int = 97) -> torch.Tensor:
    return torch.randn(batch, vocab_size, generator=torch.Generator().manual_seed(seed)) * 3


def fine_logits(seed: int) -> torch.Tensor:
    """In float64: two ways of summing must not disagree on a token that lies on the line but for rounding."""
    return torch.randn(3, 97, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def uniforms(seed: int, batch: int) -> torch.Tensor:
    return torch.rand(batch, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


seeds = st.integers(0, 100_000)
histories = st.lists(st.integers(0, 96), min_size=3, max_size=40).map(lambda ids: [ids, ids[::-1], [ids[0]] * len(ids)])
examples = settings(max_examples=40, deadline=None, derandomize=True)


@examples
@given(seeds, st.floats(0.05, 5.0), st.integers(1, 120), st.floats(0.01, 0.999))
def test_samplers_of_the_distribution_equal_transformers(seed, heat, k, p):
    logits = fine_logits(seed)
    torch.testing.assert_close(samplers.temperature(logits, heat), TemperatureLogitsWarper(heat)(NOTHING, logits))
    assert torch.equal(samplers.top_k(logits, k), TopKLogitsWarper(k)(NOTHING, logits))
    assert torch.equal(samplers.top_p(logits, p), TopPLogitsWarper(p)(NOTHING, logits))
    assert torch.equal(samplers.min_p(logits, p), MinPLogitsWarper(p)(NOTHING, logits))
    assert torch.equal(samplers.typical(logits, p), TypicalLogitsWarper(p)(NOTHING, logits))


@examples
@given(seeds, histories, st.floats(0.1, 5.0), st.integers(1, 5))
def test_samplers_of_the_history_equal_transformers(seed, history, penalty, n):
    logits, ids = random_logits(seed), torch.tensor(history)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    torch.testing.assert_close(samplers.repetition_penalty(logits, history, penalty), expected)
    assert torch.equal(samplers.no_repeat_ngram(logits, history, n), NoRepeatNGramLogitsProcessor(n)(ids, logits))


@examples
@given(seeds, st.dictionaries(st.integers(0, 96), st.floats(-100, 100), min_size=1, max_size=9))
def test_bias_and_bans_equal_transformers(seed, bias):
    logits = random_logits(seed)
    expected = SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})(NOTHING, logits)
    torch.testing.assert_close(samplers.logit_bias(logits, bias), expected)
    banned = list(bias)
    expected = NoBadWordsLogitsProcessor([[token] for token in banned], eos_token_id=None)(NOTHING, logits)
    assert torch.equal(samplers.ban_tokens(logits, banned), expected)


@examples
@given(seeds, histories, st.floats(-2, 2), st.floats(-2, 2))
def test_penalties_are_those_of_openais_documentation(seed, history, presence, frequency):
    """Written out: logit - count * frequency - (count > 0) * presence."""
    logits = random_logits(seed)
    counts = torch.stack([torch.tensor(row).bincount(minlength=97) for row in history])
    expected = logits - counts * frequency - (counts > 0) * presence
    found = samplers.frequency_penalty(samplers.presence_penalty(logits, history, presence), history, frequency)
    torch.testing.assert_close(found, expected)


EVERYTHING = {
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.02,
    "typical_p": 0.8,
    "repetition_penalty": 1.3,
    "logit_bias": {3: 2.5, 5: -1.0},
    "banned_tokens": (7, 8),
    "no_repeat_ngram": 2,
}


@examples
@given(seeds, histories, st.sets(st.sampled_from(sorted(EVERYTHING))))
def test_any_combination_equals_transformers_in_its_order(seed, history, names):
    chosen = {name: EVERYTHING[name] for name in names}
    params = SamplingParams(**{"temperature": 1.0, "top_k": None, **chosen})
    theirs = {
        "logit_bias": SequenceBiasLogitsProcessor({(3,): 2.5, (5,): -1.0}),
        "repetition_penalty": RepetitionPenaltyLogitsProcessor(1.3),
        "no_repeat_ngram": NoRepeatNGramLogitsProcessor(2),
        "banned_tokens": NoBadWordsLogitsProcessor([[7], [8]], eos_token_id=None),
        "temperature": TemperatureLogitsWarper(0.7),
        "top_k": TopKLogitsWarper(40),
        "top_p": TopPLogitsWarper(0.9),
        "min_p": MinPLogitsWarper(0.02),
        "typical_p": TypicalLogitsWarper(0.8),
    }
    logits = random_logits(seed)
    processors = LogitsProcessorList(processor for name, processor in theirs.items() if name in names)
    expected = processors(torch.tensor(history), logits)
    torch.testing.assert_close(filter_logits(logits, history, params), expected)


@examples
@given(seeds, st.sampled_from([1, 2, 31, 32, 33, 257, 5003]), st.sets(st.sampled_from(sorted(EVERYTHING))))
def test_sampling_is_a_draw_from_the_filtered_logits_of_its_row_alone(seed, vocab_size, names):
    chosen = {name: EVERYTHING[name] for name in names - {"logit_bias", "banned_tokens"}}
    params = SamplingParams(**{"temperature": 1.0, "top_k": None, **chosen})
    logits, random = random_logits(seed, 5, vocab_size), uniforms(seed, 5)
    logits[3:] = logits[3:].bfloat16().float()  # with many equals
    history = [[seed % vocab_size, row % vocab_size] for row in range(5)]
    picked = sample_tokens(logits, history, params, random)
    left = filter_logits(logits, history, params)
    assert torch.equal(picked, torch.where(left.amax(dim=-1).isinf(), NO_TOKEN, draw(left.nan_to_num(), random)))
    alone = [
        sample_tokens(logits[row : row + 1], history[row : row + 1], params, random[row : row + 1]) for row in range(5)
    ]
    assert torch.equal(picked, torch.cat(alone))


@pytest.mark.parametrize("names", [["top_k"], ["top_p"], ["min_p"], ["typical_p"], [], sorted(EVERYTHING)])
@pytest.mark.parametrize("scale", [0.02, 1.0, 4.0])
def test_the_torch_path_of_other_devices_chooses_the_same(names, scale, monkeypatch):
    """They look at all logits where a CPU looks at the likely ones first, and must find the same."""
    params = SamplingParams(**{"temperature": 1.0, "top_k": None, **{name: EVERYTHING[name] for name in names}})
    logits, random, history = scale * random_logits(1, 16, 5003), uniforms(1, 16), [[1, 2, 1]] * 16
    expected = sample_tokens(logits, history, params, random), filter_logits(logits, history, params)
    greedy = sample_tokens(logits, history, SamplingParams(temperature=0), random)
    for module in (samplers, logit_range):
        monkeypatch.setattr(module, "on_cpu", lambda values: False)
    assert torch.equal(sample_tokens(logits, history, params, random), expected[0])
    assert torch.equal(filter_logits(logits, history, params), expected[1])
    assert torch.equal(sample_tokens(logits, history, SamplingParams(temperature=0), random), greedy)


@examples
@given(seeds, st.floats(0, 1, exclude_max=True))
def test_the_draw_is_the_inverse_of_the_cumulative_distribution(seed, uniform):
    logits = samplers.top_k(random_logits(seed, batch=1), 20)
    shares = logits.double().softmax(dim=-1)[0].numpy().cumsum()
    token = int(draw(logits, torch.tensor([uniform], dtype=torch.float64)))
    before = shares[token - 1] if token else 0.0
    assert before - 1e-6 <= 1 - uniform <= shares[token] + 1e-6
    assert logits[0, token] > -INFINITY


def test_draws_have_the_models_probabilities():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(20_000, 1)
    picked = sample_tokens(logits, [[]] * 20_000, SamplingParams(temperature=2.0, top_k=3), uniforms(0, 20_000))
    found = picked.bincount(minlength=4) / 20_000
    expected = torch.cat((torch.tensor([1.0, 0.5, 0.0]).softmax(0), torch.zeros(1)))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_no_random_number_reaches_a_dropped_token(uniform):
    logits = torch.full((1, 300), -INFINITY)
    logits[0, 100:102] = torch.tensor([1.0, 2.0])
    for params in (SamplingParams(top_k=None), SamplingParams(), SamplingParams(top_k=None, top_p=0.99)):
        assert int(sample_tokens(logits, [[]], params, torch.tensor([uniform], dtype=torch.float64))) in (100, 101)


def test_ties_with_the_last_token_kept_are_kept():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    kept = torch.tensor([[False, True, True, True, True, False]])
    assert torch.equal(samplers.top_k(logits, 2) > -INFINITY, kept)
    assert torch.equal(samplers.top_p(logits, 0.7) > -INFINITY, kept)


@pytest.mark.parametrize("change", [{"temperature": 1e-40}, {"top_k": 1}, {"top_p": 1e-12}, {"min_p": 1.0}])
def test_the_strictest_settings_are_greedy(change):
    logits = random_logits(1, 8, 1003)
    assert torch.equal(
        sample_tokens(logits, [[]] * 8, SamplingParams(temperature=0), uniforms(2, 8)), logits.argmax(dim=-1)
    )
    params = SamplingParams(**{"temperature": 0.9, **change})
    assert torch.equal(sample_tokens(logits, [[]] * 8, params, uniforms(2, 8)), logits.argmax(dim=-1))
    assert torch.equal((filter_logits(logits, [[]] * 8, params) > -INFINITY).sum(dim=-1), torch.ones(8))


def test_greedy_takes_the_first_of_equal_tokens():
    logits = torch.tensor([[0.0, 2.0, 2.0]])
    assert int(sample_tokens(logits, [[]], SamplingParams(temperature=0), uniforms(0, 1))) == 1
    assert filter_logits(logits, [[]], SamplingParams(temperature=0)).tolist() == [[-INFINITY, 2.0, -INFINITY]]


@pytest.mark.parametrize("base", [{}, {"temperature": 0.0}, {"top_k": None}, {"top_k": None, "top_p": 0.5}])
def test_a_row_with_every_token_banned_gets_no_token(base):
    logits = random_logits(0, 2, 4)
    params = SamplingParams(no_repeat_ngram=1, **base)
    picked = sample_tokens(logits, [[0, 1, 2, 3], [0, 2, 3]], params, uniforms(0, 2))
    assert picked.tolist() == [NO_TOKEN, 1]


def test_the_logits_are_not_modified():
    logits = random_logits(3)
    before, history = logits.clone(), [[1, 2, 3]] * 3
    params = SamplingParams(**EVERYTHING, presence_penalty=0.5, frequency_penalty=0.5)
    sample_tokens(logits, history, params, uniforms(0, 3))
    filter_logits(logits, history, params)
    assert torch.equal(logits, before)


def test_bfloat16_is_sampled_like_float32():
    logits = random_logits(4).bfloat16()
    for params in (
        SamplingParams(),
        SamplingParams(temperature=0),
        SamplingParams(top_k=None, top_p=0.9, repetition_penalty=1.2),
    ):
        picked = sample_tokens(logits, [[1, 2]] * 3, params, uniforms(0, 3))
        assert torch.equal(picked, sample_tokens(logits.float(), [[1, 2]] * 3, params, uniforms(0, 3)))


@examples
@given(seeds, st.integers(1, 700), st.integers(1, 700), st.booleans())
def test_the_top_k_bound_keeps_all_of_the_largest(seed, vocab_size, k, coarse):
    logits = random_logits(seed, 2, vocab_size)
    logits = logits.round() if coarse else logits
    line, exact = top_k_bound(logits, k), kth_largest(logits, min(k, vocab_size))
    assert (line <= exact).all()
    assert torch.equal(exact, logits.topk(min(k, vocab_size)).values[:, -1:])
    ids, few = compact_range(logits, (exact, None))
    if ids is None:  # too many stay for leaving out to pay
        assert 4 * int((logits >= exact).sum()) > logits.numel()
        assert torch.equal(few, keep_range(logits, (exact, None)))
        return
    for row in range(2):
        kept = np.flatnonzero(logits[row].numpy() >= exact[row].numpy())
        assert ids[row, : len(kept)].tolist() == kept.tolist()
        assert few[row].tolist() == logits[row, kept].tolist() + [-INFINITY] * (few.size(1) - len(kept))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": 0}, "top-k"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.5}, "top-p"),
        ({"min_p": -0.1}, "min-p"),
        ({"min_p": math.nan}, "min-p"),
        ({"typical_p": 2.0}, "typical-p"),
        ({"repetition_penalty": 0.0}, "repetition-penalty"),
        ({"presence_penalty": math.nan}, "presence-penalty"),
        ({"frequency_penalty": math.inf}, "frequency-penalty"),
        ({"no_repeat_ngram": 0}, "no-repeat-ngram"),
        ({"banned_tokens": (50,)}, "token 50 does not exist"),
        ({"banned_tokens": (-1,)}, "token -1 does not exist"),
        ({"logit_bias": {99: 1.0}}, "token 99 does not exist"),
        ({"logit_bias": {9: math.nan}}, "bias of token 9"),
        ({"logit_bias": {9: 1e39}}, "bias of token 9"),
    ],
)
def test_invalid_settings_are_named(wrong, word):
    with pytest.raises(ConfigError, match=word):
        SamplingParams(**wrong).check(vocab_size=50)


def test_all_mistakes_are_named_at_once():
    assert len(list(SamplingParams(temperature=-1, top_k=0, top_p=2, min_p=2, typical_p=0).problems())) == 5
    SamplingParams(logit_bias={9: -math.inf}, min_p=0.0, top_p=1.0, typical_p=1.0).check(vocab_size=50)
