"""What a model cannot read of a prompt, and stop strings that no text can reach."""

from __future__ import annotations

import json
import shutil

import pytest

from minigpt.data import prepare
from minigpt.generation.notes import notes_of_all, prompt_notes, stop_notes
from minigpt.sampling_params import SamplingParams
from minigpt.tokenizers import make_tokenizer
from minigpt.training import train
from tests.conftest import story, tiny

COMPOSED, APART = "caf\u00e9", "cafe\u0301"
WORDS = " the caf\u00e9 sees the caf\u00e9 and the d\u00e9j\u00e0." * 40
BPE, CHAR, BYTE = make_tokenizer("bpe:320", [WORDS]), make_tokenizer("char", [WORDS]), make_tokenizer("byte")
KINDS = {"bpe": BPE, "char": CHAR, "byte": BYTE}


@pytest.mark.parametrize(
    ("kind", "prompt", "names"),
    [
        ("char", "the", []),
        ("char", "THE", ["unknown_characters"]),
        ("char", "the\r\n", ["unknown_characters"]),
        ("char", COMPOSED, []),
        ("char", APART, ["unknown_characters", "other_form"]),
        ("char", "the ", []),
        ("bpe", "THE \u017b", []),
        ("bpe", COMPOSED, []),
        ("bpe", APART, ["other_form"]),
        ("bpe", "the ", ["trailing_space"]),
        ("bpe", "the\n", []),
        ("byte", APART, []),
        ("byte", "the ", []),
        ("byte", "a\ufffd", ["replaced_bytes"]),
        ("byte", "a\udcff", []),
        ("byte", "<|endoftext|>", ["end_of_text"]),
        ("byte", "a" * 33, ["context"]),
        ("byte", "", []),
    ],
)
def test_notes_on_a_prompt(kind, prompt, names):
    notes = prompt_notes(KINDS[kind], prompt, context=32)
    assert list(notes) == names
    assert all(note.startswith("the prompt ") for note in notes.values())


def test_either_normal_form_can_be_the_better_one():
    apart = make_tokenizer("char", [APART])
    assert "NFD" in prompt_notes(apart, COMPOSED, 32)["other_form"]
    assert "NFC" in prompt_notes(CHAR, APART, 32)["other_form"]
    assert prompt_notes(CHAR, APART, 32)["unknown_characters"].startswith(r"the prompt contains '\u0301', which")


def test_many_unknown_characters_are_not_all_shown():
    note = prompt_notes(CHAR, "0123456789", 32)["unknown_characters"]
    assert "'0', '1', '2', '3', '4' and 5 more, which" in note


def test_of_several_prompts_the_first_of_each_kind_is_named():
    assert notes_of_all(BPE, ["a", "b ", APART, "c ", "d "], 32) == [
        prompt_notes(BPE, "b ", 32)["trailing_space"].replace("the prompt", "prompt 2", 1) + " (also 2 other prompts)",
        prompt_notes(BPE, APART, 32)["other_form"].replace("the prompt", "prompt 3", 1),
    ]


@pytest.mark.parametrize(
    ("kind", "stop", "expected"),
    [
        ("char", ["the", "."], None),
        ("char", "THE", "'THE' (the vocabulary lacks some of its characters)"),
        ("char", "\r\n", r"no text can stop at '\r\n' (the"),
        ("char", APART, "lacks some"),
        ("char", "\ufffd", None),
        ("char", "<|endoftext|>", None),
        ("char", ["\u00e9 t", "\u00e9"], "'\u00e9 t' (the text stops at '\u00e9' first)"),
        ("char", ["e t", "t"], None),
        ("bpe", "THE \u017b\u00f3\u0142w", None),
        ("byte", "\u017b", None),
    ],
)
def test_stop_strings_that_no_text_can_reach(kind, stop, expected):
    notes = stop_notes(KINDS[kind], SamplingParams(stop=stop))
    assert (expected is None) == (not notes)
    assert expected is None or expected in notes["never_stops"]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A run whose tokenizer knows only the letters of its text."""
    folder = tmp_path_factory.mktemp("letters")
    (folder / "text.txt").write_text("".join(map(story, range(30))), encoding="utf-8")
    prepare([str(folder / "text.txt")], folder / "data", tokenizer="char", block_size=32)
    train(folder / "data", folder / "run", tiny(train__steps=1))
    return folder / "run"


def test_the_commands_print_the_notes(call, letters, tmp_path):
    options = ["--prompt", "the CAT", "--stop", "X", "--max-new-tokens", 2]
    code, out, err = call("generate", letters, *options, "--json")
    notes = json.loads(out)["notes"]
    assert (code, list(notes)) == (0, ["unknown_characters", "never_stops"])
    assert err == "".join(f"note: {note}\n" for note in notes.values())
    assert "'C', 'A', 'T'" in err
    copy = shutil.copytree(letters, tmp_path / "run")
    assert (
        call("samples", copy, "--prompt", "the CAT", "--max-new-tokens", 2)[2]
        == f"note: {notes['unknown_characters']}\n"
    )
    assert json.loads(call("generate", letters, "--max-new-tokens", 2, "--json")[1])["notes"] == {}
