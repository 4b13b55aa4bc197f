"""A round trip on the command line: export, import, and further training."""

from __future__ import annotations

import json

import pytest

SHORT = ["--train.batch-size=4", "--train.lr=1e-2", "--machine.device=cpu", "--machine.precision=float32"]


def test_export_import_and_training_on(call, run_folder, data_folder, tmp_path):
    hf, back, on = tmp_path / "hf", tmp_path / "back", tmp_path / "on"
    code, out, _ = call("export", run_folder, "--format", "hf", "--out", hf, "--license", "mit")
    assert (code, "model.safetensors" in out) == (0, True)
    code, out, _ = call("import", hf, "--run", back)
    assert (code, "tokenizer byte, vocabulary 257" in out) == (0, True)

    asked = ["--prompt", "the cat", "--max-new-tokens", 20, "--temperature", 0]
    assert call("generate", back, *asked)[1] == call("generate", run_folder, *asked)[1]
    figures = [
        json.loads(call("evaluate", run, "--data", data_folder, "--json", "--device", "cpu")[1])["loss"]
        for run in (back, run_folder)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)

    code, out, _ = call("train", "--init-from", back, "--data", data_folder, "--run", on, "--steps", 3, *SHORT)
    assert (code, "starting from the weights of" in out) == (0, True)
    assert call("generate", on, "--checkpoint", "0", *asked)[1] == call("generate", back, *asked)[1]
    assert "finished" in call("resume", on)[1]
    code, _, err = call("resume", back)
    assert (code, "minigpt train --init-from" in err) == (2, True)


def test_without_data_the_initial_runs_is_used(call, run_folder, data_folder, tmp_path):
    assert call("train", "--init-from", run_folder, "--run", tmp_path / "on", "--steps", 1, *SHORT)[0] == 0
    assert json.loads((tmp_path / "on" / "data.json").read_text())["folder"] == str(data_folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "RUN", "--out", "RUN"], ["already exists", "--out"]),
        (["export", "RUN", "--out", "NEW", "--format", "gguf"], ["Unknown export format", "gguf", "hf"]),
        (["export", "RUN", "--out", "NEW", "--checkpoint", "7"], ["No such checkpoint", "7"]),
        (["export", "nowhere", "--out", "NEW"], ["No such run folder", "nowhere"]),
        (["import", "nowhere", "--run", "NEW"], ["Folder not found", "nowhere"]),
        (["import", "RUN", "--run", "NEW"], ["Already a run of Mini-GPT"]),
        (["import", "FILE", "--run", "NEW"], ["Not a folder", "folder that contains it"]),
        (["generate", "HF"], ["Not a run folder", "minigpt import", "--run NEW"]),
        (["train", "--run", "NEW"], ["--data"]),
        (["train", "--data", "DATA", "--run", "NEW", "--init-from", "nowhere"], ["No such run folder", "nowhere"]),
        (
            ["train", "--data", "DATA", "--run", "NEW", "--init-from", "RUN", "--model.n-layer", "5"],
            ["model.n_layer is 5", "existing model has 1"],
        ),
    ],
)
def test_a_mistake_gets_one_message_and_leaves_nothing(
    call, arguments, words, run_folder, data_folder, plain, tmp_path
):
    places = {
        "HF": plain,
        "FILE": plain / "config.json",
        "RUN": run_folder,
        "DATA": data_folder,
        "NEW": tmp_path / "new",
    }
    code, _, err = call(*[places.get(argument, argument) for argument in arguments])
    assert code == 2
    for word in words:
        assert word in err
    assert err.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_names_are_printed_as_they_are_and_quoted_in_a_command(call, run_folder, plain, tmp_path):
    run, out = tmp_path / "a :smile: b", tmp_path / ":smile:"
    code, text, _ = call("import", plain, "--run", run, "--tokenizer", "byte")
    assert code == 0
    assert f"{run}: " in text
    assert f"minigpt generate '{run}' --prompt" in text
    assert f"{out}, for" in call("export", run_folder, "--out", out)[1]
