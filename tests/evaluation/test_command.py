"""`minigpt evaluate` as a user meets it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from functools import partial

import pytest

from minigpt.cli import evaluate as module
from minigpt.cli import progress as progress_module
from minigpt.cli.app import main
from tests.evaluation.test_harness import CHOICE, RECORDS, WRITING


@pytest.fixture
def call(call):
    """Runs `minigpt evaluate`; returns its exit code, standard output and standard error."""
    return partial(call, "evaluate")


def test_the_tables_explain_each_metric(call, run_folder):
    code, out, err = call(run_folder)
    assert (code, err) == (0, "")
    for words in (
        "perplexity",
        "bits per byte",
        "95 % interval",
        "one of its first five",
        "uniform",
        "unigram",
        "bigram",
        "this model",
        "tokens of context",
        "count in training",
        "documents",
        "windows of 32, 32 apart, in float32",
    ):
        assert words in out
    assert all(len(line) <= 80 for line in out.splitlines()[2:])


def test_json_is_one_object_and_nothing_else(call, run_folder, data_folder):
    code, out, err = call(run_folder, "--data", data_folder, "--json", "--stride", 8, "--split", "train")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found["stride"] == 8
    assert found["loss"] == pytest.approx(found["baselines"]["uniform"]["value"], rel=0.9)


def test_control_characters_do_not_reach_the_terminal(call, run_folder, tmp_path):
    for name in ("a\x1b[31m[bold]", "b"):
        (tmp_path / f"{name}.txt").write_text("the \x1b[2J cat")
    code, out, _ = call(run_folder, "--text", tmp_path / "a\x1b[31m[bold].txt", tmp_path / "b.txt")
    assert code == 0
    assert "\x1b" not in out
    assert "a␛[31m[bold].txt" in out


def test_documents_are_named_by_their_files(call, text_folder, run_folder, tmp_path):
    main_arguments = ["prepare", str(text_folder), "--out", str(tmp_path / "d"), "--tokenizer", str(run_folder)]
    with pytest.raises(SystemExit):
        main([*main_arguments, "--val-fraction", "0.4"])
    code, out, _ = call(run_folder, "--data", tmp_path / "d")
    assert code == 0
    head, *rows = out.partition("easiest and hardest")[2].strip().splitlines()[:7]
    assert head.split()[:2] == ["begins", "share"]
    assert len(rows) == 6
    assert all(re.match(rf"{text_folder.name}/\d\d\.txt +the ", row) for row in rows)
    assert all(len(row) <= 80 for row in rows)
    (tmp_path / "d" / "val.documents").unlink()  # then by their first words
    code, out, _ = call(run_folder, "--data", tmp_path / "d")
    assert code == 0
    assert all(row.startswith("the ") for row in out.partition("and hardest")[2].strip().splitlines()[1:7])
    (tmp_path / "d" / "val.documents").write_text("?")
    code, _, err = call(run_folder, "--data", tmp_path / "d")
    assert code == 2
    assert "val.documents is damaged" in err


def test_texts_folders_and_a_plot(call, run_folder, text_folder, tmp_path):
    code, out, _ = call(run_folder, "--text", text_folder, "--plot", tmp_path / "p.png")
    assert code == 0
    assert "30 documents" in out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text"], "--text needs a value"),
        (["--tasks"], "--tasks needs a value"),
        (["--tasks", "x", "--stride", "3"], "come with their own texts"),
        (["--tasks", "x", "--split", "val"], "come with their own texts"),
        (["--text", "EMPTY", "--split", "val"], "Texts have no splits"),
        (["--threads", "0"], "threads"),
        (["--text", "EMPTY"], "empty"),
        (["--text", "LATIN"], "not UTF-8"),
        (["--stride", "0"], "stride"),
        (["--plot", "x.bmp"], ".png"),
        (["--device", "warp"], "warp"),
    ],
)
def test_mistakes_are_one_message(call, run_folder, tmp_path, arguments, words):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    places = {"EMPTY": tmp_path / "empty", "LATIN": tmp_path / "latin"}
    code, out, err = call(run_folder, *[places.get(argument, argument) for argument in arguments])
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("error: ")


def test_an_imported_run_has_no_training_data_to_compare_with(call, run_folder, data_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    known = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**known, "folder": "", "splits": {}}))
    code, out, _ = call(run, "--data", data_folder)
    assert code == 0
    assert "training data is not available (the run does not name it)" in " ".join(out.split())


def test_tasks_from_the_command_line(call, run_folder, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    files = []
    for name, template in (("choose", CHOICE), ("reply", WRITING)):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(template.format(name=name, file=tmp_path / "x.jsonl"))
    code, out, _ = call(run_folder, "--tasks", *files)
    assert code == 0
    assert "standard error" in out
    assert "choose" in out
    code, out, _ = call(run_folder, "--tasks", files[0], "--json")
    assert [task["metric"] for task in json.loads(out)["tasks"]] == ["acc,none"]


def test_progress_on_a_terminal_and_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with progress_module.progress() as show:
            for done in range(5):
                show("predicting", done, 4)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "predicting" in captured.err
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 15.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with progress_module.progress() as show:
        show("predicting", 1, 2)
    assert capsys.readouterr().err == ""  # what is quickly done needs no words


def test_ctrl_c_ends_it_without_a_traceback(call, run_folder, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("minigpt.evaluation.scores.TokenScorer.__call__", interrupted)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = call(run_folder, "--json")
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_the_module_stays_light():
    assert not {"torch", "numpy"} & set(vars(module))
