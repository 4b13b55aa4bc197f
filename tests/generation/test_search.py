"""Beam search, compared with transformers', and the best of several samples."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from transformers import GPT2LMHeadModel

from minigpt import load
from minigpt.config import GPTConfig
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.generation import sample
from minigpt.generation.search import beam_search, best_of
from minigpt.model import GPT
from minigpt.sampling_params import SamplingParams
from minigpt.tokenizers import make_tokenizer
from tests.model.test_against_transformers import CONFIG, pair  # noqa: F401 (a fixture)


class Numbers:
    """A tokenizer whose texts are token ids written out, for models without a text."""

    spec = "numbers"

    def __init__(self, vocab_size: int, end_of_text: int = 0) -> None:
        self.vocab_size, self.end_of_text = vocab_size, end_of_text

    def encode(self, text):
        return torch.tensor([int(word) for word in text.split()], dtype=torch.long).numpy()

    def decode(self, ids):
        return "".join(f" {token}" for token in ids)

    def token_bytes(self, token):
        return f" {token}".encode()


NUMBERS = Numbers(CONFIG.vocab_size)


def theirs_beams(model: GPT2LMHeadModel, prompt: str, beams: int, stop_tokens: list[int], **settings):
    """What transformers finds: the new tokens and the score of each text, the best first."""
    ids = torch.from_numpy(NUMBERS.encode(prompt))[None]
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        early_stopping="never",
        eos_token_id=stop_tokens,
        pad_token_id=CONFIG.vocab_size - 1,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    texts = []
    for row, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        new = row[ids.size(1) :]
        length = next((at + 1 for at, token in enumerate(new) if token in stop_tokens), len(new))
        texts.append((new[:length], score))
    return texts


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize(("beams", "stop_tokens"), [(2, [7]), (3, [7, 100]), (6, [0, 50, 120, 199])])
def test_beams_equal_those_of_transformers(pair, length_penalty, beams, stop_tokens):  # noqa: F811
    ours, theirs = pair
    for prompt in ("5", "17 3 99 4", " ".join(map(str, range(20)))):
        expected = theirs_beams(theirs, prompt, beams, stop_tokens, max_new_tokens=16, length_penalty=length_penalty)
        found = beam_search(
            ours.eval(),
            NUMBERS,
            prompt,
            SamplingParams(max_new_tokens=16, stop_tokens=stop_tokens),
            num_beams=beams,
            length_penalty=length_penalty,
        )
        assert [beam.tokens for beam in found] == [tokens for tokens, _ in expected]
        assert [beam.score for beam in found] == pytest.approx([score for _, score in expected], rel=1e-4)


def test_beams_with_samplers_equal_those_of_transformers(pair):  # noqa: F811
    ours, theirs = pair
    expected = theirs_beams(
        theirs,
        "5 6",
        4,
        [7],
        max_new_tokens=20,
        no_repeat_ngram_size=2,
        repetition_penalty=1.2,
        bad_words_ids=[[9], [3]],
    )
    found = beam_search(
        ours.eval(),
        NUMBERS,
        "5 6",
        SamplingParams(
            max_new_tokens=20, stop_tokens=[7], no_repeat_ngram=2, repetition_penalty=1.2, banned_tokens=[9, 3]
        ),
    )
    assert [beam.tokens for beam in found] == [tokens for tokens, _ in expected]
    assert [beam.score for beam in found] == pytest.approx([score for _, score in expected], rel=1e-4)


SMALL = Numbers(6)


@pytest.fixture(scope="module")
def small() -> GPT:
    torch.manual_seed(3)
    model = GPT(GPTConfig(vocab_size=6, block_size=4, n_layer=1, n_head=1, n_embd=8, n_inner=8, dropout=0.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def written_out(model: GPT, prompt: list[int], tokens: tuple[int, ...]) -> float:
    """The sum of the tokens' logprobs, without a cache: when the context of 4 is full, its last half begins anew."""
    window, total = list(prompt), 0.0
    for token in tokens:
        with torch.no_grad():
            total += model(torch.tensor([window]))[0, -1].log_softmax(-1)[token].item()
        window = [*window, token] if len(window) < 4 else [window[-1], token]
    return total


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_texts_also_past_the_context(small, length_penalty):
    possible = (tokens for size in (1, 2, 3, 4) for tokens in itertools.product(range(6), repeat=size))
    whole = [tokens for tokens in possible if 0 not in tokens[:-1] and (tokens[-1] == 0 or len(tokens) == 4)]
    texts = {tokens: written_out(small, [1, 2], tokens) / len(tokens) ** length_penalty for tokens in whole}
    found = beam_search(
        small, SMALL, "1 2", SamplingParams(max_new_tokens=4), num_beams=800, length_penalty=length_penalty
    )
    assert {tuple(beam.tokens): beam.score for beam in found} == pytest.approx(texts, rel=1e-4)
    assert found[0].tokens == list(max(texts, key=texts.__getitem__))
    assert all(beam.finish_reason == ("stop" if beam.tokens[-1] == 0 else "length") for beam in found)


def test_one_beam_is_greedy(small):
    params = SamplingParams(max_new_tokens=12, stop_tokens=())
    (greedy,) = sample(small, SMALL, ["3"], replace(params, temperature=0))
    (beam,) = beam_search(small, SMALL, "3", params, num_beams=1)
    assert (beam.text, beam.tokens, beam.finish_reason) == (greedy.text, greedy.tokens, "length")
    assert beam.logprobs == pytest.approx(greedy.logprobs, abs=1e-5)
    assert beam.score == pytest.approx(beam.mean_logprob)


def test_a_stop_string_ends_a_beam_and_is_not_shown(small):
    params = SamplingParams(max_new_tokens=6, stop_tokens=())
    free = beam_search(small, SMALL, "1", params, num_beams=3)
    for stop in (free[0].text[2:6], free[0].text[4:5], free[1].text[-1:]):
        beams = beam_search(small, SMALL, "1", replace(params, stop=stop), num_beams=3)
        assert stop in {beam.stop_reason for beam in beams}
        for beam in beams:
            assert beam.text == SMALL.decode(beam.tokens).split(stop)[0]
            assert (beam.stop_reason == stop) == (stop in SMALL.decode(beam.tokens))


def test_beams_without_a_token_left_to_choose_stop(small):
    params = SamplingParams(max_new_tokens=9, no_repeat_ngram=1, stop_tokens=())
    found = beam_search(small, SMALL, "1 2 3 4 5", params, num_beams=2)
    assert [(beam.tokens, beam.finish_reason, beam.stop_reason) for beam in found] == [([0], "stop", None)]
    (beam,) = beam_search(small, SMALL, "1", SamplingParams(max_new_tokens=0))
    assert (beam.text, beam.tokens, beam.score) == ("", [], 0.0)


def test_the_best_of_n_has_the_highest_mean_logprob(small):
    found = best_of(small, SMALL, "1", SamplingParams(seed=4, max_new_tokens=5), n=9)
    assert [each.mean_logprob for each in found] == sorted((each.mean_logprob for each in found), reverse=True)
    assert sorted(each.seed for each in found) == list(range(4, 13))
    for each in found:
        assert each.mean_logprob == pytest.approx(sum(each.logprobs) / len(each.tokens))
        assert sum(each.logprobs) == pytest.approx(written_out(small, [1], tuple(each.tokens)), abs=1e-4)


def test_searches_work_on_text(run_folder):
    model, tokenizer = load(run_folder)
    best, *_ = beam_search(model, tokenizer, "the ", SamplingParams(max_new_tokens=20))
    (greedy,) = sample(model, tokenizer, ["the "], SamplingParams(temperature=0, max_new_tokens=20))
    assert best.mean_logprob >= greedy.mean_logprob - 1e-6
    assert best.prompt == "the "
    assert best_of(model, tokenizer, "the ", SamplingParams(max_new_tokens=5, seed=1), n=2)[0].text


@pytest.mark.parametrize("lift", [{"logit_bias": {2: 6.0}}, {"presence_penalty": -3.0}, {"frequency_penalty": -3.0}])
def test_beams_find_the_best_where_sums_may_rise(small, lift):
    params = SamplingParams(max_new_tokens=4, **lift)
    best = beam_search(small, SMALL, "1 2", params, num_beams=800, length_penalty=0.0)
    assert best[0].score > 0
    (found, *_) = beam_search(small, SMALL, "1 2", params, num_beams=5, length_penalty=0.0)
    assert (found.tokens, found.score) == (best[0].tokens, pytest.approx(best[0].score, rel=1e-4))


def test_a_model_with_nan_raises_an_error(small):
    broken = copy.deepcopy(small)
    with torch.no_grad():
        broken.wte.weight[1] = math.nan
    with pytest.raises(MiniGPTError, match="not finite numbers"):
        beam_search(broken, SMALL, "1", SamplingParams(max_new_tokens=3))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"num_beams": 0}, "num-beams"),
        ({"num_beams": 100_000}, "num-beams"),
        ({"length_penalty": math.nan}, "length-penalty"),
        ({"length_penalty": 1000.0}, "length-penalty"),
        ({"length_penalty": -1000.0}, "length-penalty"),
        ({"params": SamplingParams(temperature=0.5)}, "temperature"),
        ({"params": SamplingParams(seed=1, top_k=3)}, "--top-k, --seed"),
        ({"params": SamplingParams(no_repeat_ngram=0)}, "no-repeat-ngram"),
    ],
)
def test_invalid_settings_are_refused(small, wrong, word):
    with pytest.raises(ConfigError, match=word):
        beam_search(small, SMALL, "1", **wrong)
    with pytest.raises(ConfigError, match="num-samples"):
        best_of(small, make_tokenizer("char", ["abcd"]), n=0)
