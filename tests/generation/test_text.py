"""Text in, text out: characters, stop strings, several texts at once; where only text matters, tokens are scripted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import generate, load, stream
from minigpt.config import GPTConfig
from minigpt.errors import ConfigError, MiniGPTError, TokenizerError
from minigpt.generation import engine as engine_module
from minigpt.generation import sample, stream_samples
from minigpt.generation.detokenize import Detokenizer
from minigpt.generation.outputs import StepOutput
from minigpt.generation.samplers import NO_TOKEN
from minigpt.model import GPT
from minigpt.sampling_params import SamplingParams
from minigpt.tokenizers import Tokenizer, make_tokenizer

BYTES = make_tokenizer("byte", [])
END = BYTES.end_of_text


class Words(Tokenizer):
    """A tokenizer of any byte strings, for texts cut in any way."""

    spec, end_of_text = "words", 0

    def __init__(self, words: list[bytes]) -> None:
        self.vocabulary = [b"", *words]

    def encode(self, text):
        return BYTES.encode("")


@pytest.fixture
def scripted(monkeypatch):
    """Returns a function that makes the engine choose the given tokens for each request."""

    def prepare(*rows: list[int], ends: str = "length", tokenizer: Tokenizer = BYTES) -> GPT:
        def sample(self, logits):
            return torch.tensor([rows[request.id][request.n_tokens] for request in self._active])

        def ending(self, token):
            return (ends if self.n_tokens == len(rows[self.id]) else None), None

        monkeypatch.setattr(engine_module.Engine, "_sample", sample)
        monkeypatch.setattr(engine_module._Request, "ending", ending)
        shape = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=4, n_inner=4)
        return GPT(shape).eval()

    return prepare


def test_an_incomplete_character_waits_for_its_rest(scripted):
    model = scripted(list("aé漢😀b".encode()))
    assert list(stream(model, BYTES)) == ["a", "é", "漢", "😀", "b"]
    assert [output.text for output in stream_samples(model, BYTES, [""])[1]] == [
        *"a",
        "",
        "é",
        *["", "", "漢"],
        *["", "", "", "😀"],
        "b",
    ]


def test_an_incomplete_character_at_the_end_is_replaced(scripted):
    model = scripted(list("a漢".encode())[:3])
    assert list(stream(model, BYTES)) == ["a", "�"]
    assert generate(model, BYTES) == "a�"


def test_invalid_bytes_do_not_swallow_the_next_character(scripted):
    model = scripted([0xC3, ord("x"), 0xFF, ord("y")])
    assert generate(model, BYTES) == "�x�y"


def test_the_stop_token_is_not_part_of_the_text(scripted):
    model = scripted([*b"ab", 0xC3, ord("c")], ends="stop")
    (found,) = sample(model, BYTES, [""])
    assert (found.text, found.finish_reason, found.tokens) == ("ab�", "stop", [*b"ab", 0xC3, ord("c")])


def test_a_text_without_a_token_left_to_choose_stops(scripted):
    model = scripted([*b"ab", NO_TOKEN], ends="stop")
    (found,) = sample(model, BYTES, [""])
    assert (found.text, found.finish_reason, found.stop_reason) == ("ab", "stop", None)
    assert (found.tokens, len(found.logprobs)) == ([*b"ab"], 2)


def expected_until_stop(text: str, stop: list[str]) -> str:
    """Written out: character by character, until one of the strings has just been said."""
    for size in range(len(text) + 1):
        ended = [string for string in stop if text[:size].endswith(string)]
        if ended:
            return text[: size - len(max(ended, key=len))]
    return text


letters = st.text(alphabet="abé漢", max_size=14)
stop_strings = st.lists(st.text(alphabet="abé漢", min_size=1, max_size=4), max_size=3)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=letters, stop=stop_strings, cuts=st.lists(st.integers(0, 40), max_size=8))
def test_stop_strings_end_a_text_wherever_its_tokens_are_cut(text, stop, cuts):
    data = text.encode()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [data[start:end] for start, end in itertools.pairwise(places)] or [b""]
    tokenizer = Words(parts)
    row = Detokenizer(tokenizer, stop)
    expected, shown, ended = expected_until_stop(text, stop), "", None
    for number in range(len(parts)):
        finish_reason = "length" if number == len(parts) - 1 else None
        for output in row.add(StepOutput(0, number + 1, finish_reason=finish_reason)):
            shown += output.text
            assert expected.startswith(shown)
            ended, stop_reason = output.finish_reason, output.stop_reason
        if ended == "stop":
            assert stop_reason in stop
            break
    assert shown == expected
    assert (ended == "stop") == any(string in text for string in stop)
    assert not row.waiting


def test_only_possible_beginnings_of_a_stop_string_are_held_back(scripted):
    model = scripted(list(b"one. two.\n\n."))
    assert list(stream(model, BYTES, stop=["\n\n!", "."])) == list("one")
    assert list(stream(model, BYTES, stop="\n\n!")) == [*"one. two.", "\n", "\n", "."]
    assert "".join(stream(model, BYTES, stop="o. t!")) == "one. two.\n\n."


def test_a_stop_string_ends_inside_a_token_and_spans_several(scripted):
    words = Words([b"The cat", b" sat. Th", b"e dog", b" ran"])
    model = scripted([1, 2, 3, 4], tokenizer=words)
    assert generate(model, words, stop="t s") == "The ca"
    assert generate(model, words, stop=". The d") == "The cat sat"
    (found,) = sample(model, words, [""], SamplingParams(stop="dog"))
    assert (found.text, found.finish_reason, found.stop_reason) == ("The cat sat. The ", "stop", "dog")
    assert found.tokens == [1, 2, 3]


def test_a_stop_string_in_the_middle_of_characters(scripted):
    words = Words(["x漢".encode()[:2], "漢字".encode()[1:4], "字y".encode()[1:]])
    model = scripted([1, 2, 3], tokenizer=words)
    assert generate(model, words) == "x漢字y"
    assert generate(model, words, stop="漢") == "x"
    assert generate(model, words, stop="字") == "x漢"


def test_a_text_that_was_stopped_gets_no_more_tokens_and_the_others_go_on(scripted):
    model = scripted([*b"a.b"], [*b"xyz"], [*b"..."])
    samples = sample(model, BYTES, ["", "", ""], SamplingParams(stop="."))
    assert [(each.text, each.tokens) for each in samples] == [("a", [*b"a."]), ("xyz", [*b"xyz"]), ("", [*b"."])]
    assert generate(model, BYTES, ["", "", ""], stop=".") == ["a", "xyz", ""]


@pytest.fixture(scope="module")
def trained(run_folder):
    return load(run_folder)


PROMPTS = ["", "the", "the dog likes " * 20, "ünïcode 漢字 😀"]


def test_any_prompt_gives_the_same_text_alone_and_in_a_batch(trained):
    together = generate(*trained, PROMPTS, max_new_tokens=40, seed=5)
    assert together == [generate(*trained, prompt, max_new_tokens=40, seed=5) for prompt in PROMPTS]
    assert together == ["".join(stream(*trained, prompt, max_new_tokens=40, seed=5)) for prompt in PROMPTS]


def test_sixteen_samples_are_what_each_seed_gives_alone(trained):
    params = SamplingParams(max_new_tokens=12, seed=100, temperature=1.5)
    together = [each.text for each in sample(*trained, ["the "], params, n=16)]
    assert together == [generate(*trained, "the ", params, seed=100 + i) for i in range(16)]
    assert len(set(together)) > 8
    six = [each.text for each in sample(*trained, ["the ", "a "], params, n=3)]
    assert (six[0], six[3]) == (together[0], generate(*trained, "a ", params))


def test_a_samples_seed_gives_it_again(trained):
    for found in sample(*trained, ["the ", ""], SamplingParams(max_new_tokens=10, temperature=2.0), n=2):
        assert generate(*trained, found.prompt, seed=found.seed, max_new_tokens=10, temperature=2.0) == found.text


def test_seeds_wrap_around(trained):
    last, first = sample(*trained, [""], SamplingParams(max_new_tokens=2, seed=2**63 - 1), n=2)
    assert (last.seed, first.seed) == (2**63 - 1, 0)


def test_logprobs_are_the_models_own(trained):
    model, tokenizer = trained
    (found,) = sample(model, tokenizer, ["the "], SamplingParams(max_new_tokens=8, seed=1, temperature=0.3, top_k=2))
    ids = torch.tensor([[*tokenizer.encode("the ").tolist(), *found.tokens]])
    with torch.no_grad():
        logprobs = model(ids).log_softmax(dim=-1)[0, 3:-1].gather(1, ids[0, 4:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(found.logprobs), logprobs, rtol=1e-4, atol=1e-4)
    assert found.mean_logprob == pytest.approx(logprobs.mean().item(), abs=1e-4)


def test_no_new_tokens(trained):
    assert generate(*trained, "the", max_new_tokens=0) == ""
    (found,) = sample(*trained, ["the"], SamplingParams(max_new_tokens=0))
    assert (found.text, found.tokens, found.finish_reason) == ("", [], "length")
    assert found.mean_logprob == -float("inf")
    assert generate(*trained, [], max_new_tokens=5) == []


def test_stop_tokens_replace_the_end_of_text(trained):
    model, tokenizer = trained
    params = SamplingParams(max_new_tokens=30, temperature=0, stop_tokens=())
    (free,) = sample(model, tokenizer, ["the "], params)
    assert free.finish_reason == "length"
    (found,) = sample(model, tokenizer, ["the "], replace(params, stop_tokens=[free.tokens[3]]))
    assert (found.finish_reason, found.stop_reason) == ("stop", free.tokens[3])
    assert found.tokens == free.tokens[: free.tokens.index(free.tokens[3]) + 1]


def test_params_and_keyword_arguments_are_combined(trained):
    params = SamplingParams(max_new_tokens=10, seed=3, temperature=2.0)
    assert generate(*trained, "the ", params, temperature=0.5) == generate(
        *trained, "the ", max_new_tokens=10, seed=3, temperature=0.5
    )


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 1.5}, "top-p"),
        ({"banned_tokens": [257]}, "token 257 does not exist"),
        ({"seed": 2**64}, "seed"),
        ({"max_new_tokens": -1}, "max-new-tokens"),
        ({"stop": ["x", ""]}, "stop string is empty"),
        ({"stop_tokens": [257]}, "token 257 does not exist"),
        ({"max_new_tokens": 2.5}, "max-new-tokens is 2.5; give a whole number"),
        ({"top_k": "5"}, "top-k is '5'; give a whole number"),
        ({"seed": "x"}, "seed is 'x'; give a whole number"),
    ],
)
def test_invalid_settings_are_refused_at_once(trained, wrong, word):
    with pytest.raises(ConfigError, match=word):
        generate(*trained, "x", **wrong)
    with pytest.raises(ConfigError, match=word):
        stream(*trained, "x", **wrong)  # before the first piece is asked for


@pytest.mark.parametrize("n", [0, 10_001])
def test_an_impossible_number_of_samples_is_refused(trained, n):
    with pytest.raises(ConfigError, match="num-samples"):
        sample(*trained, ["x"], n=n)


def test_a_misspelt_setting_is_named(trained):
    with pytest.raises(TypeError, match="temprature"):
        generate(*trained, "x", temprature=1.0)


@pytest.mark.parametrize("change", [{}, {"temperature": 0}, {"top_k": None}, {"top_k": None, "top_p": 0.5}])
def test_a_model_with_nan_raises_an_error(run_folder, change):
    model, tokenizer = load(run_folder)
    with torch.no_grad():
        model.wte.weight[7] = float("nan")
    with pytest.raises(MiniGPTError, match="not finite numbers"):
        generate(model, tokenizer, ["the", "a"], max_new_tokens=5, **change)


def test_another_models_tokenizer_is_refused(trained):
    with pytest.raises(TokenizerError, match="does not belong to the model"):
        generate(trained[0], make_tokenizer("bpe:300", ["abc" * 100]), "x")
