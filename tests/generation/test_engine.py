"""Tokens out: the decoder against the model run without a cache, and rows that must not notice each other."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from test_inference_weights import make
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt.config import MLP, GPTConfig, Norm, Position
from minigpt.generation import Sampling, for_inference, stream_steps
from minigpt.generation.decoder import Decoder
from minigpt.generation.engine import CANDIDATES, uniform
from minigpt.generation.samplers import NONE_LEFT
from minigpt.model import GPT

SMALL = {"vocab_size": 50, "block_size": 12, "n_layer": 2, "n_embd": 16, "n_head": 2, "n_inner": 24}
VARIANTS = [
    GPTConfig(position=position, norm=norm, mlp=mlp, tie_word_embeddings=tied, **SMALL)
    for position, norm, mlp, tied in itertools.product(*map(get_args, (Position, Norm, MLP)), (True, False))
] + [GPTConfig(position=position, n_kv_head=1, qk_norm=True, **SMALL) for position in get_args(Position)]
PROMPTS = [[7], [1, 2, 3], list(range(12)), list(range(25)), [4, 4, 4, 4, 4]]
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def model() -> GPT:
    return make(GPTConfig(**SMALL))


def tokens(model, prompts=PROMPTS, count=30, sampling=GREEDY, seeds=None, **settings) -> list[list[int]]:
    """The engine's tokens of each row, without the one that stopped it."""
    rows = [[] for _ in prompts]
    for steps in stream_steps(model, prompts, count, sampling, seeds or range(len(prompts)), **settings):
        for step in steps:
            if step.end in (None, "length"):
                rows[step.row].append(step.token)
    return rows


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
def test_rows_of_any_length_equal_the_model_without_a_cache_also_past_the_context(config):
    model = make(config)
    decoder, chance = Decoder(for_inference(model, "float32"), len(PROMPTS)), torch.Generator().manual_seed(1)
    for prompt in PROMPTS:
        decoder.add(prompt)
    with torch.inference_mode():
        for _ in range(20):
            windows = [window_of(text, len(prompt), 12) for text, prompt in zip(decoder.texts, PROMPTS, strict=True)]
            expected = torch.stack([model(torch.tensor([window]))[0, -1] for window in windows])
            torch.testing.assert_close(decoder.next_logits(), expected, rtol=1e-4, atol=1e-4)
            decoder.append(torch.randint(50, (len(PROMPTS),), generator=chance).tolist())
    assert len({len(window) for window in windows}) > 2, "their windows begin anew at different times"


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_smallest_contexts(block_size):
    model = make(GPTConfig(**{**SMALL, "block_size": block_size}))
    for prompt, found in zip(PROMPTS, tokens(model, count=9), strict=True):
        text = list(prompt)
        for _ in range(9):
            window = torch.tensor([window_of(text, len(prompt), block_size)])
            text.append(int(model(window)[0, -1].argmax()))
        assert found == text[len(prompt) :]


def test_greedy_tokens_are_those_of_transformers():
    ours = make(GPTConfig(**{**SMALL, "block_size": 64}))
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_inner": 24, "n_positions": 64, "vocab_size": 50}
    theirs = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=None)).eval()
    with torch.no_grad():
        named = dict(ours.named_parameters())
        for name, parameter in theirs.named_parameters():
            value = named[name.removeprefix("transformer.")]
            parameter.copy_(value.T if ".c_" in name and name.endswith("weight") else value)
    for prompt, found in zip(PROMPTS, tokens(ours, count=30), strict=True):
        ids = torch.tensor([prompt])
        answer = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30, pad_token_id=0
        )
        assert found == answer[0, len(prompt) :].tolist()


SAMPLERS = [
    Sampling(temperature=1.3),
    Sampling(top_k=None),
    Sampling(top_k=None, top_p=0.8, frequency_penalty=0.5),
    Sampling(temperature=0, no_repeat_ngram=2),
]


@pytest.mark.parametrize("sampling", SAMPLERS)
def test_a_row_says_in_company_what_it_says_alone(model, sampling):
    prompts = [PROMPTS[i % 5] for i in range(16)]
    together = tokens(model, prompts, sampling=sampling)
    alone = [tokens(model, [prompt], sampling=sampling, seeds=[i])[0] for i, prompt in enumerate(prompts)]
    assert together == alone
    assert together[0] != together[5] or sampling.is_greedy, "another seed says something else"


@pytest.mark.parametrize("rows_at_once", [1, 2, 3, 5])
def test_rows_that_wait_for_their_turn_say_the_same(model, rows_at_once):
    sampling = Sampling(temperature=1.5)
    free = tokens(model, sampling=sampling)
    stop = {free[1][3], free[2][0], free[4][20]}  # so that rows end at different times
    expected = tokens(model, sampling=sampling, stop_tokens=stop)
    assert len({len(row) for row in expected}) > 2
    assert tokens(model, sampling=sampling, stop_tokens=stop, rows_at_once=rows_at_once) == expected


def test_each_row_ends_once_and_says_why(model):
    sampling = Sampling(temperature=1.5)
    free = tokens(model, PROMPTS[:2], sampling=sampling)
    stop = next(token for token in free[0] if token not in free[1])
    ends = {}
    for steps in stream_steps(model, PROMPTS[:2], 30, sampling, [0, 1], [stop]):
        assert [step.row for step in steps] == sorted({step.row for step in steps})
        for step in steps:
            assert step.row not in ends, "it had ended"
            if step.end:
                ends[step.row] = (step.end, step.token)
    assert ends == {0: ("stop token", stop), 1: ("length", free[1][-1])}
    assert tokens(model, PROMPTS[:2], sampling=sampling, stop_tokens=[stop])[0] == free[0][: free[0].index(stop)]


def test_a_row_ends_when_nothing_is_left_to_say(model):
    sampling = Sampling(no_repeat_ngram=1)  # every token once
    *_, last = itertools.chain(*stream_steps(model, [[3]], 100, sampling, [0]))
    assert (last.end, last.token, last.logprob) == ("none left", NONE_LEFT, -math.inf)
    assert sorted(tokens(model, [[3]], 100, sampling)[0]) == [token for token in range(50) if token != 3]


def test_the_caller_closes_rows_at_any_time(model):
    free, closed, rows = tokens(model), {3}, [[] for _ in PROMPTS]
    for count, steps in enumerate(stream_steps(model, PROMPTS, 30, GREEDY, [0] * 5, closed=closed, rows_at_once=3)):
        for step in steps:
            rows[step.row].append(step.token)
        closed |= {0} if count == 6 else {4} if count == 8 else set()
    assert rows == [free[0][:7], free[1], free[2], [], free[4][:2]]  # row 4 began when row 0 had gone


@pytest.mark.parametrize(("prompts", "count"), [([], 5), ([[1], [2]], 0)])
def test_nothing_to_do(model, prompts, count):
    assert list(stream_steps(model, prompts, count, GREEDY, [0] * len(prompts))) == []


def test_likelihoods_are_the_models_own_and_candidates_show_what_the_samplers_left(model):
    sampling, text = Sampling(temperature=0.7, top_k=3), [1, 2, 3]
    for (step,) in stream_steps(model, [text], 9, sampling, [5], explain=True):
        logits = model(torch.tensor([text]))[0, -1]
        assert step.logprob == pytest.approx(logits.log_softmax(-1)[step.token].item(), abs=1e-4)
        likely = logits.softmax(-1).topk(CANDIDATES)
        assert [each.token for each in step.candidates] == likely.indices.tolist()
        assert [each.probability for each in step.candidates] == pytest.approx(likely.values.tolist(), abs=1e-5)
        left = [*(logits.topk(3).values / 0.7).softmax(-1).tolist(), 0, 0]
        assert [each.left for each in step.candidates] == pytest.approx(left, abs=1e-5)
        assert step.token in [each.token for each in step.candidates[:3]]
        text = [*text, step.token]


def test_random_numbers_are_spread_evenly_and_stay_below_one(monkeypatch):
    numbers = torch.tensor([[uniform(seed, step) for step in range(100)] for seed in range(100)], dtype=torch.float64)
    assert (numbers * 10).long().flatten().bincount(minlength=10).float().std() < 60  # expected: 30
    assert len(numbers.flatten().unique()) == 10_000
    assert (numbers.min(), numbers.max()) > (0, 0.99)
    monkeypatch.setattr("minigpt.generation.engine.hash_seed", lambda seed, step: 2**63 - 1)
    assert uniform(0, 0) < 1


def test_texts_can_be_copied_dropped_and_reordered_as_beams_need_it(model):
    decoder = Decoder(for_inference(model, "float32"), 4)
    with torch.inference_mode():
        for prompt in PROMPTS[:3]:
            decoder.add(prompt)
        before = decoder.next_logits()
        decoder.select([2, 0, 0, 1])
        decoder.append([5, 6, 7, 8])
        found, texts = decoder.next_logits(), [list(text) for text in decoder.texts]
        assert texts == [[*PROMPTS[2], 5], [7, 6], [7, 7], [1, 2, 3, 8]]
        assert not torch.equal(found[1], found[2])
        fresh = Decoder(decoder.model, 3)
        for prompt in PROMPTS[:3]:
            fresh.add(prompt)
        assert torch.equal(fresh.next_logits(), before)
        for row, (source, token) in enumerate([(2, 5), (0, 6), (0, 7), (1, 8)]):
            alone = Decoder(decoder.model, 1)
            alone.add(PROMPTS[source])
            alone.next_logits()
            alone.append([token])
            assert torch.equal(alone.next_logits()[0], found[row])
