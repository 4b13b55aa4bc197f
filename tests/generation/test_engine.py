"""The engine: against the model without a cache, and requests that must not affect each other."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from test_inference_weights import make

from minigpt.config import MLP, GPTConfig, Norm, Position
from minigpt.errors import ConfigError, TokenizerError
from minigpt.generation import Engine, SamplingParams, for_inference
from minigpt.generation.cached_batch import CachedBatch
from minigpt.generation.engine import uniform
from minigpt.generation.samplers import NO_TOKEN
from minigpt.generation.search import beam_search
from minigpt.model import GPT
from minigpt.tokenizers import make_tokenizer
from tests.model.test_against_transformers import as_gpt2

SMALL = {"vocab_size": 50, "block_size": 12, "n_layer": 2, "n_embd": 16, "n_head": 2, "n_inner": 24}
VARIANTS = [
    GPTConfig(position=position, norm=norm, mlp=mlp, tie_word_embeddings=tied, **SMALL)
    for position, norm, mlp, tied in itertools.product(*map(get_args, (Position, Norm, MLP)), (True, False))
] + [GPTConfig(position=position, n_kv_head=1, qk_norm=True, **SMALL) for position in get_args(Position)]
PROMPTS = [[7], [1, 2, 3], list(range(12)), list(range(25)), [4, 4, 4, 4, 4]]
GREEDY = SamplingParams(temperature=0, max_new_tokens=30)


@pytest.fixture(scope="module")
def model() -> GPT:
    return make(GPTConfig(**SMALL))


def outputs_of(engine: Engine) -> dict[int, list]:
    """What an engine returns until all its requests have ended, by request."""
    outputs = {}
    while engine.has_unfinished:
        step = engine.step()
        assert [output.request_id for output in step] == sorted({output.request_id for output in step})
        for output in step:
            outputs.setdefault(output.request_id, []).append(output)
    return dict(sorted(outputs.items()))


def tokens(model, prompts=PROMPTS, params=GREEDY, seeds=None, **settings) -> list[list[int]]:
    """The engine's tokens for each prompt, without the one that stopped it."""
    engine = Engine(model, **settings)
    for prompt, seed in zip(prompts, seeds or range(len(prompts)), strict=True):
        engine.add(prompt, replace(params, seed=seed))
    return [[output.token for output in row if output.finish_reason != "stop"] for row in outputs_of(engine).values()]


def window_of(text: list[int], prompt_length: int, context: int) -> list[int]:
    """What the model may see of a text, written out: once the context is full, its last half is a new beginning."""
    half, window = max(1, context // 2), text[:prompt_length][-context:]
    for token in text[prompt_length:]:
        if len(window) == context:
            window = window[len(window) - (half - 1) :]
        window = [*window, token]
    return window


@pytest.mark.parametrize(
    "config", VARIANTS, ids=lambda c: f"{c.position}-{c.norm}-{c.mlp}-{c.tie_word_embeddings}-{c.kv_heads}"
)
def test_cached_logits_equal_those_of_the_model_without_a_cache_also_past_the_context(config):
    model = make(config)
    batch, rng = CachedBatch(for_inference(model), len(PROMPTS)), torch.Generator().manual_seed(1)
    for prompt in PROMPTS:
        batch.add(prompt)
    with torch.inference_mode():
        for _ in range(20):
            windows = [window_of(text, len(prompt), 12) for text, prompt in zip(batch.texts, PROMPTS, strict=True)]
            expected = torch.stack([model(torch.tensor([window]))[0, -1] for window in windows])
            torch.testing.assert_close(batch.next_logits(), expected, rtol=1e-4, atol=1e-4)
            batch.append(torch.randint(50, (len(PROMPTS),), generator=rng).tolist())
    assert len({len(window) for window in windows}) > 2, "their windows begin anew at different times"


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_smallest_contexts(block_size):
    model = make(GPTConfig(**{**SMALL, "block_size": block_size}))
    for prompt, found in zip(PROMPTS, tokens(model, params=replace(GREEDY, max_new_tokens=9)), strict=True):
        text = list(prompt)
        for _ in range(9):
            window = torch.tensor([window_of(text, len(prompt), block_size)])
            text.append(int(model(window)[0, -1].argmax()))
        assert found == text[len(prompt) :]


def test_greedy_tokens_are_those_of_transformers():
    ours = make(GPTConfig(**{**SMALL, "block_size": 64}))
    theirs = as_gpt2(ours, eos_token_id=None)
    for prompt, found in zip(PROMPTS, tokens(ours), strict=True):
        ids = torch.tensor([prompt])
        answer = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30, pad_token_id=0
        )
        assert found == answer[0, len(prompt) :].tolist()


SAMPLERS = [
    SamplingParams(temperature=1.3, max_new_tokens=30),
    SamplingParams(top_k=None, max_new_tokens=30),
    SamplingParams(top_k=None, top_p=0.8, frequency_penalty=0.5, max_new_tokens=30),
    SamplingParams(temperature=0, no_repeat_ngram=2, max_new_tokens=30),
]


@pytest.mark.parametrize("params", SAMPLERS)
def test_a_text_is_the_same_alone_and_in_a_batch(model, params):
    prompts = [PROMPTS[i % 5] for i in range(16)]
    together = tokens(model, prompts, params)
    alone = [tokens(model, [prompt], params, seeds=[i])[0] for i, prompt in enumerate(prompts)]
    assert together == alone
    assert together[0] != together[5] or params.is_greedy, "another seed gives another text"


def test_requests_with_different_parameters_run_together(model):
    requests = [(PROMPTS[i % 5], replace(params, seed=i)) for i, params in enumerate(SAMPLERS * 2)]
    engine = Engine(model)
    assert [engine.add(prompt, params) for prompt, params in requests] == list(range(8))
    outputs = outputs_of(engine)
    for number, (prompt, params) in enumerate(requests):
        found = [output.token for output in outputs[number]]
        assert found == tokens(model, [prompt], params, seeds=[params.seed])[0]


def test_requests_join_and_leave_while_others_run(model):
    params = [SamplingParams(temperature=1.5, max_new_tokens=count, seed=count) for count in (20, 12, 9)]
    alone = [tokens(model, [PROMPTS[i]], each, seeds=[each.seed])[0] for i, each in enumerate(params)]
    engine, outputs = Engine(model, max_batch_size=3), {0: [], 1: [], 2: []}
    engine.add(PROMPTS[0], params[0])
    for step in range(25):
        if step in (4, 7):
            engine.add(PROMPTS[(4, 7).index(step) + 1], params[(4, 7).index(step) + 1])
        if step == 10:
            engine.cancel(1)
            engine.cancel(1)  # the second time nothing happens
        for output in engine.step():
            outputs[output.request_id].append(output.token)
    assert not engine.has_unfinished
    assert outputs == {0: alone[0], 1: alone[1][:6], 2: alone[2]}
    assert engine.step() == []


def test_a_waiting_request_can_be_cancelled(model):
    engine = Engine(model, max_batch_size=1)
    for prompt in PROMPTS[:3]:
        engine.add(prompt, GREEDY)
    engine.step()
    engine.cancel(1)
    assert set(outputs_of(engine)) == {0, 2}


@pytest.mark.parametrize("max_batch_size", [1, 2, 3, 5])
def test_requests_that_wait_for_their_turn_give_the_same_texts(model, max_batch_size):
    params = SamplingParams(temperature=1.5, max_new_tokens=30)
    free = tokens(model, params=params)
    params = replace(params, stop_tokens=[free[1][3], free[2][0], free[4][20]])  # so that rows end at different times
    expected = tokens(model, params=params)
    assert len({len(row) for row in expected}) > 2
    assert tokens(model, params=params, max_batch_size=max_batch_size) == expected


def test_each_text_ends_once_with_its_reason(model):
    params = SamplingParams(temperature=1.5, max_new_tokens=30)
    free = tokens(model, PROMPTS[:2], params)
    stop = next(token for token in free[0] if token not in free[1])
    engine = Engine(model)
    for seed, prompt in enumerate(PROMPTS[:2]):
        engine.add(prompt, replace(params, stop_tokens=[stop], seed=seed))
    first, second = outputs_of(engine).values()
    assert {output.finish_reason for output in first[:-1] + second[:-1]} == {None}
    assert (first[-1].token, first[-1].finish_reason, first[-1].stop_reason) == (stop, "stop", stop)
    assert (second[-1].token, second[-1].finish_reason, second[-1].stop_reason) == (free[1][-1], "length", None)
    assert [output.token for output in first[:-1]] == free[0][: free[0].index(stop)]


def test_a_text_stops_when_every_token_is_banned(model):
    params = SamplingParams(no_repeat_ngram=1, max_new_tokens=100, seed=0)  # every token once
    engine = Engine(model)
    engine.add([3], params, logprobs=True)
    *_, last = outputs_of(engine)[0]
    assert (last.finish_reason, last.stop_reason, last.token, last.logprob) == ("stop", None, NO_TOKEN, -math.inf)
    assert sorted(tokens(model, [[3]], params)[0]) == [token for token in range(50) if token != 3]


def test_invalid_requests_are_refused(model):
    engine = Engine(model)
    with pytest.raises(ConfigError, match="token 50 does not exist"):
        engine.add([1], SamplingParams(stop_tokens=[50]))
    with pytest.raises(ConfigError, match="every token is banned"):
        engine.add([1], SamplingParams(banned_tokens=range(49), logit_bias={49: -math.inf}))
    assert not engine.has_unfinished
    with pytest.raises(TokenizerError, match="does not belong to the model"):
        Engine(model, make_tokenizer("byte"))


def test_padding_of_the_vocabulary_is_never_generated():
    model, byte = make(GPTConfig(**{**SMALL, "vocab_size": 320})), make_tokenizer("byte")
    with torch.no_grad():
        model.wte.weight[257:] *= 100
    for params in (SamplingParams(temperature=2.0, top_k=None, stop_tokens=()), SamplingParams(temperature=0)):
        engine = Engine(model, byte)
        engine.add([1, 2], params)
        assert max(output.token for output in outputs_of(engine)[0]) < 257
    assert max(token for beam in beam_search(model, byte, "a") for token in beam.tokens) < 257


def test_logprobs_are_the_models_own_and_top_logprobs_show_what_the_samplers_left(model):
    params, text = SamplingParams(temperature=0.7, top_k=3, max_new_tokens=9, seed=5), [1, 2, 3]
    engine = Engine(model)
    engine.add(text, params, logprobs=True, top_logprobs=5)
    for output in outputs_of(engine)[0]:
        logits = model(torch.tensor([text]))[0, -1]
        assert output.logprob == pytest.approx(logits.log_softmax(-1)[output.token].item(), abs=1e-4)
        top = logits.log_softmax(-1).topk(5)
        assert [each.token for each in output.top_logprobs] == top.indices.tolist()
        assert [each.logprob for each in output.top_logprobs] == pytest.approx(top.values.tolist(), abs=1e-4)
        left = [*(logits.topk(3).values / 0.7).softmax(-1).tolist(), 0, 0]
        assert [each.sampling_probability for each in output.top_logprobs] == pytest.approx(left, abs=1e-5)
        assert output.token in [each.token for each in output.top_logprobs[:3]]
        text = [*text, output.token]


def test_random_numbers_are_spread_evenly_and_stay_below_one(monkeypatch):
    numbers = torch.tensor([[uniform(seed, step) for step in range(100)] for seed in range(100)], dtype=torch.float64)
    assert (numbers * 10).long().flatten().bincount(minlength=10).float().std() < 60  # expected: 30
    assert len(numbers.flatten().unique()) == 10_000
    assert (numbers.min(), numbers.max()) > (0, 0.99)
    monkeypatch.setattr("minigpt.generation.engine.hash_seed", lambda seed, step: 2**63 - 1)
    assert uniform(0, 0) < 1


def test_texts_can_be_copied_dropped_and_reordered_for_beam_search(model):
    batch = CachedBatch(for_inference(model), 4)
    with torch.inference_mode():
        for prompt in PROMPTS[:3]:
            batch.add(prompt)
        before = batch.next_logits()
        batch.select([2, 0, 0, 1])
        batch.append([5, 6, 7, 8])
        found, texts = batch.next_logits(), [list(text) for text in batch.texts]
        assert texts == [[*PROMPTS[2], 5], [7, 6], [7, 7], [1, 2, 3, 8]]
        assert not torch.equal(found[1], found[2])
        fresh = CachedBatch(batch.model, 3)
        for prompt in PROMPTS[:3]:
            fresh.add(prompt)
        assert torch.equal(fresh.next_logits(), before)
        for row, (source, token) in enumerate([(2, 5), (0, 6), (0, 7), (1, 8)]):
            alone = CachedBatch(batch.model, 1)
            alone.add(PROMPTS[source])
            alone.next_logits()
            alone.append([token])
            assert torch.equal(alone.next_logits()[0], found[row])
