"""Text in, text out: characters, stop strings, several texts at once. Where only text matters, a fake engine talks."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import generate, load, stream
from minigpt.config import GPTConfig
from minigpt.errors import ConfigError, MiniGPTError, TokenizerError
from minigpt.generation import sample, stream_pieces
from minigpt.generation import text as text_module
from minigpt.generation.detokenize import Detokenizer
from minigpt.generation.engine import Step
from minigpt.generation.samplers import NONE_LEFT
from minigpt.model import GPT
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
def say(monkeypatch):
    """Returns a function that makes the engine say given tokens, and notes which rows were closed."""

    def prepare(*rows: list[int], ends: str = "length", tokenizer: Tokenizer = BYTES) -> tuple[GPT, list[set[int]]]:
        closings: list[set[int]] = []

        def steps(model, prompts, max_new_tokens, sampling, seeds, stop_tokens, *, closed, **shown):
            for number in range(max(map(len, rows))):
                yield [
                    Step(row, tokens[number], -1.0, ends if number == len(tokens) - 1 else None)
                    for row, tokens in enumerate(rows)
                    if number < len(tokens) and row not in closed
                ]
            closings.append(set(closed))

        monkeypatch.setattr(text_module, "stream_steps", steps)
        shape = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=4, n_inner=4)
        return GPT(shape).eval(), closings

    return prepare


def test_half_a_character_waits_for_its_other_half(say):
    model, _ = say(list("aé漢😀b".encode()))
    assert list(stream(model, BYTES)) == ["a", "é", "漢", "😀", "b"]
    assert [piece.text for piece in stream_pieces(model, BYTES, [""])] == [
        *"a",
        "",
        "é",
        *["", "", "漢"],
        *["", "", "", "😀"],
        "b",
    ]


def test_half_a_character_at_the_end_is_shown_as_such(say):
    model, _ = say(list("a漢".encode())[:3])
    assert list(stream(model, BYTES)) == ["a", "�"]
    assert generate(model, BYTES) == "a�"


def test_bytes_that_are_no_character_do_not_swallow_the_next(say):
    model, _ = say([0xC3, ord("x"), 0xFF, ord("y")])
    assert generate(model, BYTES) == "�x�y"


def test_the_token_that_stops_is_no_part_of_the_text(say):
    model, _ = say([*b"ab", 0xC3, ord("c")], ends="stop token")
    (found,) = sample(model, BYTES, [""])
    assert (found.text, found.end, found.tokens) == ("ab�", "stop token", [*b"ab", 0xC3, ord("c")])


def test_a_text_that_runs_out_of_tokens_says_so(say):
    model, _ = say([*b"ab", NONE_LEFT], ends="none left")
    (found,) = sample(model, BYTES, [""])
    assert (found.text, found.end, found.tokens, found.logprobs) == ("ab", "none left", [*b"ab"], [-1.0, -1.0])


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
    row = Detokenizer(stop)
    expected, shown, ended = expected_until_stop(text, stop), "", None
    for number, part in enumerate(parts):
        for piece in row.add(Step(0, number, -1.0, "length" if number == len(parts) - 1 else None), part):
            shown += piece.text
            assert expected.startswith(shown)
            ended = piece.end
        if ended == "stop string":
            break
    assert shown == expected
    assert (ended == "stop string") == any(string in text for string in stop)
    assert not row.waiting


def test_what_may_begin_a_stop_string_is_held_back_and_no_more(say):
    model, _ = say(list(b"one. two.\n\n."))
    assert list(stream(model, BYTES, stop=["\n\n!", "."])) == list("one")
    assert list(stream(model, BYTES, stop="\n\n!")) == [*"one. two.", "\n", "\n", "."]
    assert "".join(stream(model, BYTES, stop="o. t!")) == "one. two.\n\n."


def test_a_stop_string_ends_inside_a_token_and_spans_several(say):
    words = Words([b"The cat", b" sat. Th", b"e dog", b" ran"])
    model, _ = say([1, 2, 3, 4], tokenizer=words)
    assert generate(model, words, stop="t s") == "The ca"
    assert generate(model, words, stop=". The d") == "The cat sat"
    (found,) = sample(model, words, [""], stop="dog")
    assert (found.text, found.end, found.tokens) == ("The cat sat. The ", "stop string", [1, 2, 3])


def test_a_stop_string_in_the_middle_of_characters(say):
    words = Words(["x漢".encode()[:2], "漢字".encode()[1:4], "字y".encode()[1:]])
    model, _ = say([1, 2, 3], tokenizer=words)
    assert generate(model, words) == "x漢字y"
    assert generate(model, words, stop="漢") == "x"
    assert generate(model, words, stop="字") == "x漢"


def test_a_row_that_was_stopped_is_closed_and_the_others_go_on(say):
    model, closings = say([*b"a.b"], [*b"xyz"], [*b"..."])
    assert generate(model, BYTES, ["", "", ""], stop=".") == ["a", "xyz", ""]
    assert closings == [{0, 2}]


@pytest.fixture(scope="module")
def trained(run_folder):
    return load(run_folder)


PROMPTS = ["", "the", "the dog likes " * 20, "ünïcode 漢字 😀"]


def test_any_prompt_will_do_and_says_in_company_what_it_says_alone(trained):
    together = generate(*trained, PROMPTS, max_new_tokens=40, seed=5)
    assert together == [generate(*trained, prompt, max_new_tokens=40, seed=5) for prompt in PROMPTS]
    assert together == ["".join(stream(*trained, prompt, max_new_tokens=40, seed=5)) for prompt in PROMPTS]


def test_sixteen_samples_are_what_each_seed_gives_alone(trained):
    together = generate(*trained, "the ", n=16, max_new_tokens=12, seed=100, temperature=1.5)
    assert together == [generate(*trained, "the ", max_new_tokens=12, seed=100 + i, temperature=1.5) for i in range(16)]
    assert len(set(together)) > 8
    (first, *_), (second, *_) = generate(*trained, ["the ", "a "], n=3, max_new_tokens=12, seed=100, temperature=1.5)
    assert first == together[0]
    assert second == generate(*trained, "a ", max_new_tokens=12, seed=100, temperature=1.5)


def test_a_sample_tells_how_to_get_it_again(trained):
    for found in sample(*trained, ["the ", ""], n=2, max_new_tokens=10, temperature=2.0):
        assert generate(*trained, found.prompt, seed=found.seed, max_new_tokens=10, temperature=2.0) == found.text


def test_the_largest_seeds_wrap(trained):
    last, first = sample(*trained, [""], n=2, max_new_tokens=2, seed=2**63 - 1)
    assert (last.seed, first.seed) == (2**63 - 1, 0)


def test_logprobs_are_the_models_own(trained):
    model, tokenizer = trained
    (found,) = sample(model, tokenizer, ["the "], max_new_tokens=8, seed=1, temperature=0.3, top_k=2)
    ids = torch.tensor([[*tokenizer.encode("the ").tolist(), *found.tokens]])
    with torch.no_grad():
        logprobs = model(ids).log_softmax(dim=-1)[0, 3:-1].gather(1, ids[0, 4:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(found.logprobs), logprobs, rtol=1e-4, atol=1e-4)
    assert found.mean_logprob == pytest.approx(logprobs.mean().item(), abs=1e-4)


def test_a_text_of_no_tokens(trained):
    assert generate(*trained, "the", max_new_tokens=0) == ""
    (found,) = sample(*trained, ["the"], max_new_tokens=0)
    assert (found.text, found.tokens, found.end) == ("", [], "length")
    assert found.mean_logprob == -float("inf")
    assert generate(*trained, [], max_new_tokens=5) == []


def test_what_ends_a_text_can_be_chosen(trained):
    model, tokenizer = trained
    (free,) = sample(model, tokenizer, ["the "], max_new_tokens=30, temperature=0, stop_tokens=())
    assert free.end == "length"
    (found,) = sample(model, tokenizer, ["the "], max_new_tokens=30, temperature=0, stop_tokens=[free.tokens[3]])
    assert found.end == "stop token"
    assert found.tokens == free.tokens[: free.tokens.index(free.tokens[3]) + 1]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 1.5}, "top-p"),
        ({"banned": [257]}, "no token 257"),
        ({"seed": 2**64}, "seed"),
        ({"max_new_tokens": -1}, "max-new-tokens"),
        ({"stop": ["x", ""]}, "stop string is empty"),
        ({"stop_tokens": [257]}, "no such stop token.*257"),
        ({"max_new_tokens": 2.5}, "max-new-tokens must be a whole number"),
        ({"top_k": "5"}, "top-k must be a whole number"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"n": 0}, "samples"),
        ({"n": 10_001}, "samples"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(trained, wrong, word):
    with pytest.raises(ConfigError, match=word):
        generate(*trained, "x", **wrong)
    if "n" not in wrong:
        with pytest.raises(ConfigError, match=word):
            stream(*trained, "x", **wrong)  # before the first piece is asked for


def test_a_misspelt_setting_is_named(trained):
    with pytest.raises(TypeError, match="temprature"):
        generate(*trained, "x", temprature=1.0)


@pytest.mark.parametrize("change", [{}, {"temperature": 0}, {"top_k": None}, {"top_k": None, "top_p": 0.5}])
def test_a_broken_model_is_one_message(run_folder, change):
    model, tokenizer = load(run_folder)
    with torch.no_grad():
        model.wte.weight[7] = float("nan")
    with pytest.raises(MiniGPTError, match="not numbers"):
        generate(model, tokenizer, ["the", "a"], max_new_tokens=5, **change)


def test_another_models_tokenizer_is_refused(trained):
    with pytest.raises(TokenizerError, match="not the model's"):
        generate(trained[0], make_tokenizer("char", ["abc"]), "x")
