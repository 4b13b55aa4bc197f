"""Words out: the samplers alone, and the engine against the model run without a cache."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from minigpt import generate, load, stream
from minigpt.config import GPTConfig
from minigpt.errors import ConfigError
from minigpt.generation import Sampling, stream_ids
from minigpt.generation.samplers import temperature, top_k, top_p
from minigpt.model import GPT
from minigpt.tokenizers import make_tokenizer

CONFIG = GPTConfig(vocab_size=40, block_size=10, n_layer=2, n_head=2, n_embd=16, n_hidden=32)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


logits_strategy = st.integers(0, 10_000).map(lambda s: torch.randn(3, 30, generator=torch.Generator().manual_seed(s)))


@settings(max_examples=40, deadline=None)
@given(logits_strategy, st.floats(0.05, 5.0), st.integers(1, 40), st.floats(0.01, 0.999))
def test_samplers_equal_those_of_transformers(logits, heat, k, p):
    nothing = torch.zeros(3, 0, dtype=torch.long)
    torch.testing.assert_close(temperature(logits, heat), TemperatureLogitsWarper(heat)(nothing, logits))
    assert torch.equal(top_k(logits, k), TopKLogitsWarper(min(k, 30))(nothing, logits))
    assert torch.equal(top_p(logits, p).isinf(), TopPLogitsWarper(p)(nothing, logits).isinf())


def test_draws_have_the_models_probabilities():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(20_000, 1)
    picked = Sampling(temperature=2.0, top_k=3).pick(logits, torch.Generator().manual_seed(0))
    found = picked.bincount(minlength=4) / 20_000
    expected = torch.cat((torch.tensor([1.0, 0.5, 0.0]).softmax(0), torch.zeros(1)))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


def greedy_without_cache(model: GPT, prompt: list[int], count: int) -> list[int]:
    """Written out: when the context is full, the last half of it is a new beginning."""
    window, new = prompt[-10:], []
    for _ in range(count):
        if len(window) > 10:
            window = window[-5:]
        with torch.no_grad():
            new.append(int(model(torch.tensor([window]))[0, -1].argmax()))
        window.append(new[-1])
    return new


@pytest.mark.parametrize("prompt", [[7], [1, 2, 3], list(range(10)), list(range(25))])
def test_the_engine_equals_the_model_without_a_cache_also_past_the_context(model, prompt):
    found = list(stream_ids(model, prompt, 35, Sampling(temperature=0), seed=0))
    assert found == greedy_without_cache(model, prompt, 35)


def test_a_seed_decides_the_text(model):
    runs = [list(stream_ids(model, [1], 20, Sampling(temperature=1.5), seed=seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_it_ends_at_the_stop_token_and_does_not_yield_it(model):
    free = list(stream_ids(model, [1], 20, Sampling(temperature=0), seed=0))
    stopped = list(stream_ids(model, [1], 20, Sampling(temperature=0), seed=0, stop=free[4]))
    assert stopped == free[: free.index(free[4])]


def test_text_comes_in_whole_characters_and_adds_up(run_folder):
    model, tokenizer = load(run_folder)
    pieces = list(stream(model, tokenizer, "the cat ", max_new_tokens=60, seed=3))
    assert "".join(pieces) == generate(model, tokenizer, "the cat ", max_new_tokens=60, seed=3)
    assert "�" not in "".join(pieces)


def test_half_a_character_waits_for_its_other_half():
    class Parrot(GPT):
        """Says the bytes of a text, one a step, whatever it is told."""

        def __init__(self, text: bytes) -> None:
            super().__init__(GPTConfig(vocab_size=257, block_size=64, n_layer=1, n_head=1, n_embd=4, n_hidden=4))
            self.text = iter(text)

        def hidden(self, ids, cache=None):
            self.next = next(self.text)
            return torch.zeros(1, 1, 4)

    tokenizer = make_tokenizer("byte", [])
    parrot = Parrot("aé漢😀b".encode())
    parrot.lm_head.forward = lambda hidden: torch.eye(257)[[parrot.next]]
    assert list(stream(parrot, tokenizer, "x", max_new_tokens=11, temperature=0)) == ["a", "é", "漢", "😀", "b"]
    cut = Parrot("é".encode()[:1])
    cut.lm_head.forward = lambda hidden: torch.eye(257)[[cut.next]]
    assert list(stream(cut, tokenizer, "x", max_new_tokens=1, temperature=0)) == ["�"]


@pytest.mark.parametrize("prompt", ["", "the", "the dog likes " * 20, "ünïcode 漢字 😀"])
def test_any_prompt_will_do(run_folder, prompt):
    model, tokenizer = load(run_folder)
    assert isinstance(generate(model, tokenizer, prompt, max_new_tokens=5, seed=0), str)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}],
)
def test_settings_that_cannot_work_are_refused(model, settings):
    with pytest.raises(ConfigError, match=next(iter(settings)).replace("_", ".")):
        generate(model, make_tokenizer("byte", []), "x", **settings)


def test_the_smallest_temperatures_are_greedy(model):
    greedy = list(stream_ids(model, [1], 10, Sampling(temperature=0), seed=0))
    assert list(stream_ids(model, [1], 10, Sampling(temperature=1e-40), seed=0)) == greedy


def test_a_seed_out_of_range_is_refused(model):
    with pytest.raises(ConfigError, match="seed"):
        generate(model, make_tokenizer("byte", []), "x", seed=2**64)


def test_a_negative_length_is_refused(model):
    with pytest.raises(ConfigError, match="max-new-tokens"):
        generate(model, make_tokenizer("byte", []), "x", max_new_tokens=-1)
