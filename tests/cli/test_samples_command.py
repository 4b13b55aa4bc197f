"""`minigpt samples` as a user meets it."""

from __future__ import annotations

import json
import shutil

import pytest

import minigpt
from minigpt.export.exporting import export_run
from minigpt.generation.sample_log import read_sample_log
from minigpt.runs.folder import RunFolder


@pytest.fixture
def run(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "run")


def test_the_history_is_shown_prompt_by_prompt_and_epoch_by_epoch(call, run):
    before = (run / "samples.jsonl").read_bytes()
    code, out, err = call("samples", run)
    assert (code, err) == (0, "")
    kept = [one for one in read_sample_log(RunFolder(run)) if one.temperature == 0.7]
    assert len(kept) == 2
    assert out.count(kept[0].prompt + "   temperature 0.7\n") == 1
    assert out.index("\n    1    41  ") < out.index("\n    2    82  ")
    for one in kept:
        first = one.text.strip().splitlines()[0].strip()
        assert first[:20] in out
    assert (run / "samples.jsonl").read_bytes() == before


def test_json_prints_the_logged_samples(call, run):
    code, out, _ = call("samples", run, "--json", "--temperature", 0, "--temperature", 1.0, "--checkpoint", 82)
    assert code == 0
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text("utf-8").splitlines()]
    expected = [line for line in lines if line["step"] == 82 and line["temperature"] != 0.7]
    assert [json.loads(line) for line in out.splitlines()] == expected
    assert out.isascii()


def test_own_prompts_are_continued_and_logged(call, run):
    options = ("--prompt", "the cat", "--prompt", "- a", "--temperature", 0, "--max-new-tokens", 6)
    before = (run / "samples.jsonl").read_bytes()
    code, out, err = call("samples", run, *options[:2], "--prompt=- a", *options[4:])
    assert (code, err) == (0, "")
    assert out.count("temperature 0\n") == 2
    kept = [one for one in read_sample_log(RunFolder(run)) if one.source == "own"]
    assert [(one.step, one.prompt) for one in kept] == [(41, "the cat"), (41, "- a"), (82, "the cat"), (82, "- a")]
    text = minigpt.generate(*minigpt.load(run, "82"), "the cat", temperature=0, max_new_tokens=6)
    assert kept[2].text == text
    after = (run / "samples.jsonl").read_bytes()
    assert after.startswith(before)
    assert call("samples", run, *options[:2], "--prompt=- a", *options[4:])[1] == out
    assert (run / "samples.jsonl").read_bytes() == after


def test_another_temperature_is_generated_for_the_same_passages(call, run):
    passages = {one.prompt for one in read_sample_log(RunFolder(run))}
    code, out, _ = call("samples", run, "--temperature", 0.3, "--max-new-tokens", 5, "--checkpoint", "best", "--json")
    made = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {one["prompt"] for one in made} == passages
    assert {(one["temperature"], len(one["ids"]), one["source"]) for one in made} == {(0.3, 5, "own")}


@pytest.mark.parametrize("options", [["--temperature", 0.3, "--temperature", 0.7], ["--max-new-tokens", 5]])
def test_samples_of_one_checkpoint_are_completed_for_the_others(call, run, options):
    first = call("samples", run, "--checkpoint", 82, "--json", *options)[1].splitlines()
    every = call("samples", run, "--json", *options)[1].splitlines()
    assert every[len(every) // 2 :] == first
    assert [json.loads(line)["step"] for line in every] == [41] * len(first) + [82] * len(first)
    shutil.rmtree(run / "checkpoints" / "step-000000041")
    code, out, _ = call("samples", run, "--checkpoint", 41, "--json", *options)
    assert (code, out.splitlines()) == (0, every[: len(first)])


def test_a_run_without_a_log_is_sampled_at_its_checkpoints(call, run, run_folder):
    expected = call("samples", run)[1]
    (run / "samples.jsonl").unlink()
    assert call("samples", run)[1] == expected
    assert (run / "samples.jsonl").read_bytes() == (run_folder / "samples.jsonl").read_bytes()


def test_samples_are_shown_after_their_checkpoint_is_deleted(call, run):
    before = call("samples", run, "--checkpoint", 41)
    shutil.rmtree(run / "checkpoints" / "step-000000041")
    assert call("samples", run, "--checkpoint", 41) == before
    assert before[0] == 0


def test_an_imported_run_needs_a_prompt(call, run, tmp_path):
    hf, imported = tmp_path / "hf", tmp_path / "imported"
    export_run(run, hf)
    assert call("import", hf, "--run", imported)[0] == 0
    code, out, err = call("samples", imported)
    assert (code, out) == (2, "")
    assert "no data set" in err
    assert "--prompt" in err
    code, out, _ = call("samples", imported, "--prompt", "the ", "--max-new-tokens", 4, "--json")
    assert (code, json.loads(out)["step"], json.loads(out)["epoch"]) == (0, 0, None)
    assert call("samples", imported, "--prompt", "", "--max-new-tokens", 4)[1].startswith(
        "(the beginning of a document)"
    )


def test_control_characters_in_samples_are_escaped(call, run):
    file = run / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for line in lines:
        line.update(prompt="[bold]\x1b]0;a\x07", text="\x1b[2J[/bold][red]:smile:\n\n\u202ex\r" + "y" * 200, ended=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    code, out, _ = call("samples", run)
    assert code == 0
    assert not any(character in out for character in "\x1b\x07\r\u202e")
    assert "[bold]␛]0;a␇" in out
    assert "␛[2J[/bold][red]:smile: " in out
    assert "<U+202E>x" in out
    assert "y ■" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    out = call("samples", run, "--json")[1]
    assert out.isascii()
    assert not any(character in out for character in "\x1b\x07\r\x7f")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--temperature", "-1"], "temperature is -1"),
        (["--temperature", "nan"], "--temperature takes a number"),
        (["--max-new-tokens", "0"], "Give 1 to 10,000"),
        (["--max-new-tokens", "10001"], "Give 1 to 10,000"),
        (["--checkpoint", "7"], "available steps: 41, 82"),
        (["--checkpoint", "newest"], "available steps: 41, 82"),
        (["--prompt", "a", "--checkpoint", "7"], "available steps: 41, 82"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_get_one_message(call, run, options, expected):
    code, out, err = call("samples", run, *options)
    assert (code, out) == (2, "")
    assert expected in err


def test_a_run_without_complete_checkpoints_is_an_error(call, run):
    for folder in (run / "checkpoints").glob("step-*"):
        (folder / "model.safetensors").write_bytes(b"")
    code, out, err = call("samples", run, "--prompt", "new")
    assert (code, out) == (2, "")
    assert "The checkpoint is damaged" in err
    shutil.rmtree(run / "checkpoints")
    code, out, err = call("samples", run, "--prompt", "new")
    assert (code, out) == (2, "")
    assert "The run has no checkpoints" in err


def test_an_invalid_sample_log_is_named(call, run):
    (run / "samples.jsonl").write_text('{"step": 1}\n', "utf-8")
    code, _, err = call("samples", run)
    assert code == 2
    assert "samples.jsonl, line 1" in "".join(err.split("\n"))
    assert call("samples", run.parent)[0] == 2
