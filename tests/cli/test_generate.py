"""`minigpt generate` as a user meets it, also in a terminal."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import subprocess
import sys

import pytest

import minigpt
from minigpt.cli.generate_options import DisplayOptions, SamplingOptions, token_id, token_name
from minigpt.cli.generate_views import make_view, percent
from minigpt.cli.interactive import Conversation
from minigpt.errors import ConfigError
from minigpt.generation import StepOutput, sample, stream_samples
from minigpt.generation.inference_weights import choose_dtype
from minigpt.generation.search import beam_search, best_of
from minigpt.sampling_params import SamplingParams
from minigpt.text_utils import escape_control
from minigpt.tokenizers import make_tokenizer

BYTES = make_tokenizer("byte", [])


@pytest.fixture
def say(call, run_folder):
    """Calls `minigpt generate` on a small run for short texts; returns exit code, output and errors."""

    def run(*options: object) -> tuple[int, str, str]:
        usual = {"--max-new-tokens": 12, "--seed": 5}
        left = [word for option, value in usual.items() if option not in options for word in (option, value)]
        return call("generate", run_folder, *left, *options)

    return run


@pytest.fixture(scope="module")
def loaded(run_folder):
    return minigpt.load(run_folder)


def test_the_text_is_that_of_python(say, loaded):
    text = minigpt.generate(*loaded, "the cat", max_new_tokens=12, seed=5, top_p=0.9, no_repeat_ngram=4)
    code, out, err = say("--prompt", "the cat", "--top-p", 0.9, "--no-repeat-ngram", 4)
    assert (code, out, err) == (0, f"the cat{text}\n", "")


def test_several_texts_are_printed_in_order_each_as_alone(say):
    alone = {(p, s): say("--prompt", p, "--seed", s)[1] for p in ("the", "a dog") for s in (5, 6)}
    code, out, _ = say("--prompt", "the", "--prompt", "a dog", "--num-samples", 2)
    assert code == 0
    expected = [f"--- text {at}, seed {seed} ---\n{text}" for at, ((_, seed), text) in enumerate(alone.items(), 1)]
    assert out == "\n".join(expected)


def test_a_hundred_samples(say):
    out = say("--num-samples", 100, "--max-new-tokens", 2)[1]
    assert re.findall(r"--- text (\d+), seed (\d+) ---", out) == [(str(i + 1), str(i + 5)) for i in range(100)]


def test_json_lines_contain_everything(say, loaded):
    code, out, _ = say(
        "--prompt", "the", "--num-samples", 2, "--json", "--top-logprobs", 5, "--stop", r"\n", "--banned-token", "q"
    )
    first, second = map(json.loads, out.splitlines())
    assert code == 0
    found, *_ = sample(*loaded, ["the"], SamplingParams(max_new_tokens=12, seed=5, stop="\n", banned_tokens=[ord("q")]))
    assert (first["prompt"], first["text"], first["tokens"]) == ("the", found.text, found.tokens)
    assert first["logprobs"] == pytest.approx(found.logprobs)
    assert (first["finish_reason"], first["stop_reason"]) == (found.finish_reason, found.stop_reason)
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first["settings"]["stop"] == [r"\n"]
    assert first["settings"]["dtype"] == "float32"
    assert first["settings"]["banned_token"] == ["q"]
    assert len(first["top_logprobs"]) == len(first["tokens"])
    for step in first["top_logprobs"]:
        logprobs = [candidate["logprob"] for candidate in step]
        assert [candidate["text"] for candidate in step] == [BYTES.decode([each["token"]]) for each in step]
        assert [token_id(BYTES, candidate["name"]) for candidate in step] == [each["token"] for each in step]
        assert len(step) in (5, 6)
        assert logprobs == sorted(logprobs, reverse=True)
    for token, step in zip(first["tokens"], first["top_logprobs"], strict=True):
        assert token in [candidate["token"] for candidate in step]


def test_prompts_come_from_a_file(say, tmp_path, monkeypatch):
    lines, objects = tmp_path / "p.txt", tmp_path / "p.jsonl"
    lines.write_bytes("\ufeffthe\r\n\nünï  \n\r\n \n".encode())
    objects.write_text('{"prompt": "the"}\n\n{"prompt": "", "more": 1}\n{"prompt": "ünï  "}\n \n\n', encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("the\n\nünï  ".encode())))
    outputs = [say("--prompt-file", file, "--json") for file in (lines, objects, "-")]
    assert [json.loads(line)["prompt"] for line in outputs[0][1].splitlines()] == ["the", "", "ünï  "]
    assert outputs[0] == outputs[1] == outputs[2]


def test_invalid_bytes_on_the_command_line_are_replaced(say):
    line = json.loads(say("--prompt", "a\udcff", "--json")[1])
    assert line["prompt"] == "a\ufffd"
    assert line["text"] == json.loads(say("--prompt", "a\ufffd", "--json")[1])["text"]


def test_missing_standard_input_is_an_error(say, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    code, _, err = say("--prompt-file", "-")
    assert (code, "nothing on standard input" in err) == (2, True)


def test_without_colours_probabilities_follow_the_tokens(say, loaded):
    (found,) = sample(*loaded, ["the"], SamplingParams(max_new_tokens=12, seed=5))
    tokens = zip(found.tokens, found.logprobs, strict=True)
    shares = [("⏎" if token == ord("\n") else chr(token), math.exp(logprob)) for token, logprob in tokens]
    expected = "the" + "".join(f"{text}[{f'{share:.0%}' if share >= 0.01 else '<1%'}]" for text, share in shares) + "\n"
    legend, out = say("--prompt", "the", "--show-probabilities")[1].split("\n\n", 1)
    assert ("probability" in legend, re.sub(r"(⏎\[[^]]+\])\n", r"\1", out)) == (True, expected)


def test_a_new_line_is_marked_before_its_probability(capsys):
    view = make_view(BYTES, DisplayOptions(show_probabilities=True), {"dtype": "float32"}, many=False, context=8)
    for text, share in (("a", 0.5), (".\n  ", 0.25), ("b", 0.004)):
        view.add(StepOutput(0, 1, math.log(share), text))
    assert capsys.readouterr().out == "a[50%].⏎[25%]\n  b[<1%]"


def test_a_note_says_how_much_of_a_long_prompt_is_seen(say, loaded):
    context = loaded[0].config.block_size
    prompt = "a" * (context + 7)
    code, out, err = say("--prompt", prompt, "--json")
    line = json.loads(out)
    assert (code, line["prompt_tokens"], line["prompt_tokens_seen"]) == (0, context + 7, context)
    assert err == f"note: the prompt has {context + 7} tokens; the model sees the last {context} of them\n"
    assert line["notes"] == {"context": err.removeprefix("note: ").rstrip()}
    three = ("--prompt", "a", "--prompt", prompt, "--prompt", prompt)
    several = err.replace("the prompt", "prompt 2", 1).replace("them\n", "them (also 1 other prompt)\n")
    assert say(*three)[2] == several
    assert say("--prompt", "a" * context)[2] == ""


def test_top_logprobs_show_each_step(say, loaded):
    out = say("--prompt", "the", "--top-logprobs", 5, "--top-k", 2, "--temperature", 3.0)[1]
    text = minigpt.generate(*loaded, "the", max_new_tokens=12, seed=5, top_k=2, temperature=3.0)
    assert out.endswith(f"\n\nthe{text}\n")
    steps = out.split("\n\n")[:12]
    for number, (step, letter) in enumerate(zip(steps, text, strict=True), 1):
        rows = step.splitlines()[-5:]
        assert rows[0].startswith(f"{number:4}")
        assert [row.endswith(f"> {letter!r}") for row in rows].count(True) == 1
        assert ["–" in row for row in rows] == [False, False, True, True, True]


def test_a_chosen_token_that_is_unlikely_is_shown_too(say, loaded):
    out = say("--prompt", "the", "--top-logprobs", 5, "--top-k", "none", "--temperature", 9, "--seed", 1)[1]
    steps = [step.splitlines() for step in out.split("\n\n")[:12]]
    unlikely = [step[-1] for step in steps if len(step) == 6 + (step is steps[0])]
    assert unlikely
    for row in unlikely:
        assert re.fullmatch(r" +(< 0\.1%|\d+\.\d%) +(< 0\.1%|\d+\.\d%)  > '.+'", row), row


def test_a_carriage_return_and_line_feed_are_one_end_of_line(say, monkeypatch, capsys):
    """The two tokens come one after the other; on a terminal neither is seen as a character."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    options = ["--prompt", "a\r\nb", "--logit-bias", r"\r=1000", "--max-new-tokens", 1, "--temperature", 0]
    assert say(*options)[1] == "a\nb\n"
    view = make_view(BYTES, DisplayOptions(), {"dtype": "float32"}, many=False, context=8)
    for text in ("x\r", "\ny", "\r", "z"):
        view.add(StepOutput(0, 1, 0.0, text))
    assert capsys.readouterr().out == "x\ny␍z"


def test_a_stop_string_with_escapes_is_found(say, loaded):
    options = ("--logit-bias", r"\r=1000", "--max-new-tokens", 3, "--json")
    assert json.loads(say(*options, "--stop", r"\r\x0d")[1])["stop_reason"] == "\r\r"
    assert json.loads(say(*options, "--stop", r"\u000d\r")[1])["text"] == ""
    assert json.loads(say(*options, "--stop", r"\\r")[1])["finish_reason"] == "length"


def test_control_characters_are_escaped_in_json(say):
    out = say("--prompt", "a\x9b\u202e\x7f\x1b", "--json")[1]
    assert json.loads(out)["prompt"] == "a\x9b\u202e\x7f\x1b"
    assert out.rstrip("\n").isprintable()


def test_searches_print_what_python_returns(say, loaded):
    beams = beam_search(*loaded, "the", SamplingParams(max_new_tokens=12), num_beams=3, length_penalty=0.5)
    options = ("--prompt", "the", "--num-beams", 3, "--length-penalty", 0.5, "--seed", "none")
    code, out, _ = say(*options, "--json", "--num-samples", 2)
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["text"], line["score"]) for line in lines] == [(b.text, pytest.approx(b.score)) for b in beams[:2]]
    assert "temperature" not in lines[0]["settings"]
    assert say(*options)[1] == f"the{beams[0].text}\n"
    found = best_of(*loaded, "the", SamplingParams(max_new_tokens=12, seed=5), n=4)
    assert say("--prompt", "the", "--best-of", 4)[1] == f"the{found[0].text}\n"


def test_verbose_prints_device_speed_and_cost(say):
    code, out, err = say("--prompt", "the", "--verbose", "--dtype", "bfloat16")
    assert code == 0
    assert out.startswith("the")
    for words in ("device cpu", "weights bfloat16 (as requested)", "tokens/s", "loss on", "validation split"):
        assert words in err
    assert "weights float32 (for reproducible text)" in say("-v")[2]


def test_rounded_weights_are_named_next_to_the_seed(say):
    assert say("--num-samples", 2, "--dtype", "bfloat16")[1].startswith("--- text 1, seed 5, bfloat16 weights ---\n")


def test_reproducible_texts_use_exact_weights(call, run_folder, monkeypatch):
    asked = []

    def note(model, dtype="auto", rows=1):
        asked.append(dtype)
        return choose_dtype(model, "float32", rows)

    monkeypatch.setattr("minigpt.generation.inference_weights.choose_dtype", note)
    for options in (["--seed", 1], ["--temperature", 0], ["--num-beams", 2], ["--dtype", "bfloat16", "--seed", 1], []):
        assert call("generate", run_folder, "--max-new-tokens", 1, *options)[0] == 0
    assert asked == ["float32", "float32", "float32", "bfloat16", "auto"]


def test_tokens_are_named_by_text_or_number():
    tokenizer = make_tokenizer("bpe:300", ["the cat sees the dog. " * 50])
    assert [token_id(tokenizer, token_name(tokenizer, token)) for token in range(270)] == list(range(270))
    (the,) = tokenizer.encode(" the").tolist()
    assert token_id(tokenizer, " the") == token_id(tokenizer, f"#{the}") == the
    assert token_id(tokenizer, r"\n") == tokenizer.encode("\n")[0]
    assert token_id(tokenizer, "<|endoftext|>") == tokenizer.end_of_text
    for wrong in (" the cat sees", "", "#300", "<|unknown|>"):
        with pytest.raises(ConfigError, match="token"):
            token_id(tokenizer, wrong)
    characters = make_tokenizer("char", ["#1'\"é\u0301\ufffd"])
    with pytest.raises(ConfigError, match="Not a single token"):
        token_id(characters, "d")
    assert [token_id(characters, token_name(characters, token)) for token in range(9)] == list(range(9))
    params = SamplingOptions(bias=(" the=-2.5", "==1", "<|endoftext|>=-9"), stop_token=(".",)).params(tokenizer)
    assert params.logit_bias == {the: -2.5, token_id(tokenizer, "="): 1.0, tokenizer.end_of_text: -9.0}
    assert params.stop_tokens == [tokenizer.end_of_text, token_id(tokenizer, ".")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["a text"], ["--prompt 'a text'"]),
        (["a", "text"], ["--prompt 'a text'"]),
        (["--prompt", "a", "--prompt-file", "b"], ["--prompt and --prompt-file"]),
        (["--interactive", "--json"], ["--interactive and --json"]),
        (["--num-beams", "2", "--top-logprobs", "5"], ["--num-beams and --top-logprobs"]),
        (["--num-beams", "2", "--temperature", "0.5"], ["draws nothing", "temperature"]),
        (["--num-beams", "0", "--seed", "none"], ["--num-beams is out of range", "got: 0", "1 to 1,000"]),
        (["--num-beams", "-1", "--seed", "none"], ["--num-beams", "got: -1"]),
        (["--num-beams", "100000", "--seed", "none"], ["beams", "1 to 1,000"]),
        (["--num-beams", "2", "--length-penalty", "1000"], ["--length-penalty", "-10 to 10"]),
        (["--length-penalty", "2"], ["--length-penalty only works with --num-beams"]),
        (["--best-of", "10001"], ["--best-of", "1 to 10,000"]),
        (["--best-of", "0"], ["--best-of", "got: 0", "1 to 10,000"]),
        (["--num-samples", "0"], ["--num-samples", "1 to 10,000"]),
        (["--best-of", "2", "--num-samples", "3"], ["Give 1 to 2", "number of texts"]),
        (["--prompt-file", "nowhere.txt"], ["nowhere.txt", "no such file"]),
        (["--prompt-file", "BAD"], ["UTF-8", "0xff", "line 2"]),
        (["--prompt-file", "BAD.jsonl"], ["Line 2"]),
        (["--prompt-file", "EMPTY"], ["empty"]),
        (["--prompt-file", "BLANK"], ["No prompts", "empty"]),
        (["--prompt-file", "WIDE"], ["UTF-16", "iconv -f UTF-16LE"]),
        (["--prompt-file", "PACKED"], ["gzip", "gunzip"]),
        (["--top-p", "2"], ["top-p", "2.0"]),
        (["--stop", ""], ["stop string", "empty"]),
        (["--banned-token", "two"], ["3", "#116 't'"]),
        (["--banned-token", r"\q"], [r"got: \q", r"\uNNNN"]),
        (["--stop", r"a\8"], ["Unknown escape", r"got: a\8", r"Write \\ for a backslash"]),
        (["--stop", r"\xe9"], ["--stop is not valid UTF-8", r"\u00e9"]),
        (["--logit-bias", "the"], ["--logit-bias", "TOKEN=NUMBER"]),
        (["--logit-bias", "t=x"], ["--logit-bias", "TOKEN=NUMBER"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--max-new-tokens", "-1"], ["max-new-tokens", "-1"]),
        (["--dtype", "int3"], ["int3"]),
        (["--tempratur", "1"], ["Did you mean --temperature"]),
    ],
)
def test_mistakes_get_one_message_and_exit_code_2(say, tmp_path, options, words):
    files = {
        "BAD": b"ok\nb\xffd\n",
        "BAD.jsonl": b'{"prompt": "a"}\n{"prompt": 3}\n',
        "EMPTY": b"",
        "BLANK": b"\n \r\n",
    }
    files |= {"WIDE": "two words".encode("utf-16-le"), "PACKED": gzip.compress(b"words")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    code, out, err = say(*[tmp_path / option if option in files else option for option in options])
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_control_characters_are_escaped_on_a_terminal():
    assert escape_control("a\x1b[31mb\tc\nd\x07\x7f\x9b") == "a␛[31mb\tc\nd␇␡�"
    assert escape_control("a\u202eb\u200b\u2066\ufeff\u200d") == "a<U+202E>b<U+200B><U+2066><U+FEFF>\u200d"
    assert escape_control("a\r\nb\rc") == "a\nb␍c"
    names = {0x1B: r"\x1b", 0xE6: r"\xe6", 0x20: " ", 0x0D: r"\r", 0x5C: "\\\\", BYTES.end_of_text: "<|endoftext|>"}
    assert {token: token_name(BYTES, token) for token in names} == names
    assert [token_id(BYTES, token_name(BYTES, token)) for token in range(257)] == list(range(257))


def test_percentages_have_six_characters():
    shares = [percent(share) for share in (1.0, 0.5, 0.001, 0.0009, 0.0)]
    assert shares == ["100.0%", " 50.0%", "  0.1%", "< 0.1%", "     –"]


def test_in_a_terminal_probabilities_are_colours(say, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    options = ("--prompt", "the\x1b[2J", "--max-new-tokens", 30)
    plain = say(*options)[1]
    assert "\x1b" not in plain
    legend, text = say(*options, "--show-probabilities")[1].split("\n\n", 1)
    assert "50%-100%" in legend
    assert {"\x1b[32m", "\x1b[31m"} <= set(re.findall(r"\x1b\[\d+m", legend))
    assert len(set(re.findall(r"\x1b\[3\dm", text))) > 1
    assert re.sub(r"\x1b\[\d*m", "", text) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert re.search(r"\n\nthe␛\[2J(.\[<?\d+%\]\n?)+$", say(*options, "--show-probabilities", "--top-k", 3)[1], re.S)


def test_a_closed_pipe_ends_quietly(run_folder):
    """As `| head` closes it."""
    options = ["--max-new-tokens", "3000", "--seed", "1"]
    command = [sys.executable, "-m", "minigpt", "generate", str(run_folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) in (0, 141)


def one_and_then_ctrl_c(*arguments, **settings):
    """Generates one token, and then the user presses Ctrl-C."""
    samples, outputs = stream_samples(*arguments, **settings)

    def until_ctrl_c():
        yield next(outputs)
        raise KeyboardInterrupt

    return samples, until_ctrl_c()


def test_ctrl_c_keeps_what_is_printed(say, loaded, monkeypatch):
    first = minigpt.generate(*loaded, "the", max_new_tokens=1, seed=5)
    monkeypatch.setattr("minigpt.generation.stream_samples", one_and_then_ctrl_c)
    assert say("--prompt", "the") == (130, f"the{first}", "\nstopped\n")


def test_lines_from_a_pipe_have_a_bounded_length(say, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the\n" + "x" * 2**20 + "\nnever read"))
    code, out, _ = say("--interactive", "--max-new-tokens", "2")
    assert (code, out.count("> ")) == (0, 2)


class Talk:
    """A conversation whose lines are given; returns what is printed."""

    def __init__(self, loaded, monkeypatch, capsys) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.conversation = Conversation(*loaded, SamplingOptions(max_new_tokens=6, seed=5), DisplayOptions())

    def __call__(self, *lines: str) -> str:
        said = iter(lines)

        def line(conversation):
            found = next(said, None)
            if found is None:
                raise EOFError
            if found == "^C":
                raise KeyboardInterrupt
            return found

        self.monkeypatch.setattr(Conversation, "_line", line)
        self.conversation.run()
        return self.capsys.readouterr().out


@pytest.fixture
def talk(loaded, monkeypatch, capsys):
    return Talk(loaded, monkeypatch, capsys)


def test_interactive_mode_continues_each_line_or_the_whole_text(talk, loaded):
    def text(prompt, **settings):
        return minigpt.generate(*loaded, prompt, max_new_tokens=6, seed=5, **settings)

    first, second = f"the{text('the')}", f"a{text('a')}"
    assert f"\n{first}\n{second}\n" in talk("the", "a")
    assert f"\n/the{text('/the')}\n" in talk("//the")
    assert f"\n{text('')}\n" in talk("")
    assert f"\nthe{text('the', temperature=0)}\n" in talk("/temperature 0", "the", "/temperature 0.8")
    second = f"a{text(f'{first}{chr(10)}a')}"
    third = text(f"{first}\n{second}")
    assert f"\n{first}\n  keep on\n{second}\n{third}\n" in talk("the", "/keep on", "a", "")


def test_its_settings_are_shown_and_changed(talk):
    out = talk("/top-p 0.5", "/top-k none", r"/stop '\n' 'x y'", "/top-logprobs 5", "/settings", "/help", "/min-p 1")
    for words in ("top-p 0.5", "top-k none", r"stop '\n' 'x y'", "top-logprobs 5", "temperature 0.8", "min-p 1.0"):
        assert f"  {words}\n" in out
    assert "/quit" in out
    assert "step   model" in talk("the")
    assert "  stop none\n" in talk("/stop none")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/top-p 3", "top-p is 3.0"),
        ("/tempratur 1", "Did you mean temperature"),
        ("/top-k many", "a whole number, or none"),
        ("/show-probabilities maybe", "on or off"),
        ("/top-logprobs many", "a whole number"),
        ("/stop 'x", "quoted"),
        ("/banned-token two", "Not a single token"),
        ("/logit-bias x", "Invalid --logit-bias"),
        ("/", "Unknown command"),
    ],
)
def test_mistakes_do_not_end_the_session(talk, line, words):
    before = talk.conversation.sampling, talk.conversation.display
    out = talk(line, "the")
    assert words in out
    assert "\nthe" in out
    assert (talk.conversation.sampling, talk.conversation.display) == before


def test_ctrl_c_stops_a_text_and_ctrl_d_exits(talk, loaded, monkeypatch):
    first = "the" + minigpt.generate(*loaded, "the", max_new_tokens=1, seed=5)
    monkeypatch.setattr("minigpt.cli.interactive.stream_samples", one_and_then_ctrl_c)
    out = talk("the", "^C", "/keep")
    assert f"{first}\nstopped; Ctrl-D exits\n\nstopped; Ctrl-D exits\n  keep off\n\n" in out
    assert talk.conversation.text == first
    assert "keep" not in talk("/quit", "/keep")


def test_exit_and_quit_get_a_hint(talk):
    assert talk("exit", "quit").count("Type /quit to exit") == 2
    assert talk("exit ").count("Type /quit to exit") == 0


def test_display_settings_that_exclude_each_other(talk):
    out = talk("/top-logprobs 3", "/show-probabilities on", "/top-logprobs")
    assert "  show-probabilities on\n> " in out or "  show-probabilities on\n  top-logprobs 0\n" in out
    assert (talk.conversation.display.top_logprobs, talk.conversation.display.show_probabilities) == (0, True)
