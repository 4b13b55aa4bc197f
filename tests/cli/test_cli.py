"""The command line as a user meets it: in a process of its own where that matters, else through `main`."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from minigpt.cli.app import main
from minigpt.cli.train_view import duration
from minigpt.config import preset_names
from minigpt.records import read_metrics
from tests.conftest import tiny

TINY = [
    "--model.block-size=32",
    "--model.n-layer=1",
    "--model.n-head=2",
    "--model.n-embd=16",
    "--model.n-inner=32",
    "--train.batch-size=4",
    "--train.lr=1e-2",
    "--machine.device=cpu",
    "--machine.precision=float32",
]


VERBS = [
    "prepare",
    "plan",
    "train",
    "resume",
    "verify-resume",
    "generate",
    "evaluate",
    "doctor",
    "export",
    "import",
    "device",
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_explains_itself(call, verb):
    code, out, err = call(verb, "--help")
    assert code == 0
    assert f"minigpt {verb}" in out
    assert err == ""


def test_the_help_of_train_names_every_preset(call):
    out = call("train", "--help")[1]
    assert all(name in out for name in preset_names())


def test_the_version_is_told(call):
    assert call("--version")[1].strip()


def test_from_text_to_words(call, text_folder, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    assert call("prepare", text_folder, "--out", data, "--tokenizer", "bpe:300", "--block-size", 32)[0] == 0
    code, out, _ = call("train", "--data", data, "--run", run, "--epochs", 2, *TINY)
    assert code == 0
    assert "parameters in total" in out
    assert "validation loss" in out
    assert "best validation loss" in out
    assert "estimate: " in out
    assert "; the estimate was " in out
    assert len(read_metrics(run / "metrics.jsonl", "validation")) == 2

    texts = [call("generate", run, "--prompt", "the cat", "--seed", seed, "--max-new-tokens", 20) for seed in (1, 1, 2)]
    assert [code for code, _, _ in texts] == [0, 0, 0]
    assert texts[0][1].startswith("the cat")
    assert texts[0] == texts[1] != texts[2]

    code, out, _ = call("evaluate", run, "--json", "--checkpoint", "latest")
    assert code == 0
    figures = json.loads(out)
    last = read_metrics(run / "metrics.jsonl", "validation")[-1]
    assert figures["loss"] == pytest.approx(last["val_loss"], rel=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(last["val_bits_per_byte"], rel=1e-5)
    assert "perplexity" in call("evaluate", run)[1]
    moved = data.rename(tmp_path / "elsewhere")
    code, _, err = call("evaluate", run)
    assert (code, "--data" in err) == (2, True)
    assert "finished" in call("resume", run, "--data", moved)[1]
    assert call("evaluate", run, "--data", moved)[0] == 0


def test_an_option_overrides_the_preset_even_with_the_defaults_value(call, data_folder, tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[train]\nlog_every = 3\ngrad_clip = 0.25\n")
    run = tmp_path / "run"
    code, _, _ = call(
        "train", "--data", data_folder, "--run", run, *TINY, "--config", file, "--steps", 1, "--train.log-every", 10
    )
    assert code == 0
    text = (run / "config.toml").read_text()
    assert "log_every = 10\n" in text  # the default's value, but given: it beats the file
    assert "grad_clip = 0.25\n" in text
    assert "steps = 1\n" in text


def test_settings_have_the_short_names_of_other_commands(call, data_folder, tmp_path):
    run, short = tmp_path / "run", ["--steps", 1, "--device", "cpu", "--precision", "float32", "--threads", 1]
    assert call("train", "--data", data_folder, "--run", run, *TINY, *short)[0] == 0
    settings = tomllib.loads((run / "config.toml").read_text())
    assert settings["train"]["steps"] == settings["machine"]["threads"] == 1
    assert (settings["machine"]["device"], settings["machine"]["precision"]) == ("cpu", "float32")
    for command in ("plan", "generate", "evaluate", "samples", "report"):
        assert "--device" in call(command, "--help")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["Did you mean", "train"]),
        (["train"], ["--run is missing", "minigpt train --help"]),
        (["generate", "RUN", "--prompt", "- dash"], ["--prompt needs a value", '--prompt="-like this"']),
        (["train", "--data", "DATA", "--run", "RUN", "--model.n-lay", "4"], ["--model.n-layer"]),
        (["train", "--data", "DATA", "--run", "RUN", "--model.n-layer", "six"], ["six", "whole number"]),
        (["train", "--data", "DATA", "--run", "RUN", "--model.n-head", "3"], ["128", "divisible", "3"]),
        (["train", "--data", "DATA", "--run", "RUN", "--preset", "sed"], ["sed", "Did you mean seed"]),
        (["train", "--data", "DATA", "--run", "RUN", "--config", "no.toml"], ["no.toml"]),
        (["train", "--data", "DATA", "--run", "RUN", "--model.vocab-size", "99"], ["vocabulary", "99", "257"]),
        (["train", "--data", "nowhere", "--run", "RUN"], ["No such data set", "nowhere", "minigpt prepare"]),
        (["train", "--data", "DATA", "--run", "FINISHED"], ["already exists", "--run"]),
        (
            ["train", "--data", "DATA", "--run", "RUN", "--model.block-size", "99999"],
            ["too short", "block-size"],
        ),
        (["train", "--data", "DATA", "--run", "RUN", "--machine.device", "warp"], ["warp", "cpu"]),
        (["train", "--data", "DATA", "--run", "RUN", "--machine.device", "cuda:99"], ["cuda:99"]),
        (["generate", "nowhere"], ["No such run folder", "nowhere"]),
        (["train", "--data", "FINISHED", "--run", "RUN"], ["a run, not a data set", "minigpt prepare"]),
        (["generate", "FINISHED", "--temperature", "-1"], ["temperature", "-1"]),
        (["generate", "FINISHED", "--checkpoint", "77"], ["77", "latest"]),
        (["evaluate", "FINISHED", "--batch-size", "0"], ["batch size", "0"]),
        (["evaluate", "FINISHED", "--split", "test"], ["test", "val"]),
    ],
)
def test_mistakes_get_one_message_and_exit_code_2(call, arguments, words, data_folder, run_folder, tmp_path):
    places = {"DATA": data_folder, "RUN": tmp_path / "run", "FINISHED": run_folder}
    before = sorted(str(path) for path in run_folder.rglob("*"))
    code, _, err = call(*[places.get(argument, argument) for argument in arguments])
    assert code == 2
    for word in words:
        assert word in err
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert not (tmp_path / "run").exists()
    assert before == sorted(str(path) for path in run_folder.rglob("*"))


def test_another_tokenizers_data_is_refused(call, text_folder, run_folder, tmp_path):
    call("prepare", text_folder, "--out", tmp_path / "char", "--tokenizer", "char", "--block-size", 32)
    code, _, err = call("evaluate", run_folder, "--data", tmp_path / "char")
    assert code == 2
    assert "different tokenizer" in err


def test_a_corrupted_data_set_is_refused(call, text_folder, tmp_path):
    data = tmp_path / "data"
    call("prepare", text_folder, "--out", data, "--tokenizer", "byte", "--block-size", 32)
    file = data / "train.tokens"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    code, _, err = call("train", "--data", data, "--run", tmp_path / "run", *TINY)
    assert code == 2
    assert "damaged" in err
    assert not (tmp_path / "run").exists()


def test_the_device_is_told_with_its_reasons(call):
    code, out, _ = call("device")
    assert code == 0
    for word in ("device", "precision", "processor", "memory", "torch", "GFLOP/s"):
        assert word in out


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (185, "3:05 min"), (3723, "1:02:03 h")])
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_text_prepared_with_a_runs_tokenizer_can_be_evaluated_with_it(call, text_folder, run_folder, tmp_path):
    out = tmp_path / "data"
    assert call("prepare", text_folder, "--out", out, "--tokenizer", run_folder, "--block-size", 32)[0] == 0
    assert call("evaluate", run_folder, "--data", out)[0] == 0


def test_tensorboard_is_written_beside_the_rest(call, data_folder, tmp_path):
    run = tmp_path / "run"
    assert call("train", "--data", data_folder, "--run", run, "--steps", 3, *TINY, "--tensorboard")[0] == 0
    assert list((run / "tensorboard").glob("events*"))


def test_a_length_in_epochs_overrides_a_presets_in_steps(call, data_folder, tmp_path):
    run = tmp_path / "run"
    code, _, _ = call("train", "--data", data_folder, "--run", run, *TINY, "--preset", "shakespeare", "--epochs", 1)
    assert code == 0
    assert [r["epoch"] for r in read_metrics(run / "metrics.jsonl", "validation")] == [1]


def test_a_disk_that_is_full_is_one_message(call, data_folder, tmp_path, monkeypatch):
    def refuse(self, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minigpt.records.MetricsFile.__call__", refuse)
    code, _, err = call("train", "--data", data_folder, "--run", tmp_path / "run", *TINY)
    assert code == 2
    assert "the disk is full" in err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")]
)
def test_too_little_memory_is_one_message(call, data_folder, tmp_path, monkeypatch, error):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("minigpt.training.trainer.Trainer.step", fail)
    code, _, err = call("train", "--data", data_folder, "--run", tmp_path / "run", *TINY)
    assert code == 2
    assert "--train.grad-accum-steps" in err


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    def fail(*arguments, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr("minigpt.runs.folder.load", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["generate", "anything"])


def test_resuming_is_proven(call, data_folder, tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(tiny().to_toml())
    code, out, _ = call("verify-resume", "--data", data_folder, "--config", file, "--steps", 12, "--kills", 2)
    assert code == 0
    assert "identical: killed" in out
    assert call("verify-resume", "--data", data_folder, "--steps", 2, "--kills", 5)[0] == 2


def test_a_plan_takes_the_options_of_a_training(call, data_folder, run_folder):
    code, out, _ = call("plan", "--data", data_folder, *TINY, "--steps", "7")
    assert code == 0
    assert re.search(r"^  steps +7 +\d+ s$", out, re.M)
    assert re.search(r"^  samples +1 ", out, re.M)
    assert re.search(r"^  checkpoints +1 ", out, re.M)
    assert "total" in out
    code, out, _ = call(
        "plan", "--init-from", run_folder, "--data", data_folder, "--steps", "3", "--machine.device=cpu"
    )
    assert code == 0
    assert re.search(r"^  steps +3 ", out, re.M)
    code, out, _ = call("plan")
    assert code == 0
    assert "41.74" in out
    assert "give --data" in out
    assert "vocabulary size 50,257, as with --tokenizer gpt2" in out


@pytest.mark.parametrize(
    ("preset", "said"),
    [("laptop", "4,096, as with --tokenizer bpe:4096;"), ("shakespeare", "256, as with --tokenizer char (a guess")],
)
def test_a_plan_without_data_has_the_vocabulary_of_its_preset(call, preset, said):
    code, out, _ = call("plan", "--preset", preset)
    assert code == 0
    assert f"vocabulary size {said}" in out


def test_a_plan_says_what_does_not_fit_the_length_of_the_run(call, data_folder):
    words = ("plan", "--data", data_folder, "--preset", "shakespeare", *TINY, "--steps", 40)
    code, out, _ = call(*words)
    assert code == 0
    assert "learning rate 0.01 after 8 steps of warm-up, then cosine" in out
    assert "warm-up takes" not in out
    options = ("--schedule.warmup-steps", 100, "--train.patience", 2, "--train.log-every", 50)
    out = call(*words, *options)[1]
    assert "The warm-up takes 100 steps of the run's 40: the learning rate never reaches its peak. Try --sch" in out
    assert "cannot stop it early" in out
    assert "--train.log-every 50 is longer than the run's 40 steps" in out
    assert "or less" not in out
    out = call(*words, "--train.patience", 2, "--train.validate-every", 4)[1]
    assert "or less: early stopping after 2 validations without improvement" in out


def test_what_does_not_fit_is_said_before_a_run_begins_or_becomes_longer(call, data_folder, tmp_path):
    run = tmp_path / "run"
    words = (
        "train",
        "--data",
        data_folder,
        "--run",
        run,
        *TINY,
        "--train.sample-prompts",
        0,
        "--train.validate-every",
        4,
    )
    out = call(*words, "--steps", 3)[1]
    assert "--train.validate-every 4 is longer than the run's 3 steps: it adds no validation. Try" in out
    assert out.index("it adds no validation") < out.index("step 1/3")
    assert "it adds no validation" not in call("resume", run, "--steps", 5)[1]
    assert "cannot stop it early" in call("resume", run, "--steps", 6, "--patience", 5)[1]
    assert "cannot stop it early" not in call("resume", run)[1]


def test_a_plan_without_such_data_is_one_message(call, tmp_path):
    code, _, err = call("plan", "--data", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in err
