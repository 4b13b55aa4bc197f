"""Paths that do not exist, cannot be read or cannot be written: each error says which."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from minigpt.atomic import atomic_directory
from minigpt.errors import CheckpointError, DataError, RunError, TokenizerError, UnreadableError
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder, load
from minigpt.tokenizers import load_tokenizer
from minigpt.training import resume, train
from tests.conftest import tiny

READING = {
    "generate": ["PATH"],
    "resume": ["PATH"],
    "samples": ["PATH"],
    "doctor": ["PATH"],
    "evaluate": ["PATH"],
    "evaluate --data": ["RUN", "--data", "PATH"],
    "report": ["PATH"],
    "report --data": ["RUN", "--data", "PATH"],
    "export": ["PATH", "--out", "OUT"],
    "import": ["PATH", "--run", "OUT"],
    "train": ["--data", "PATH", "--run", "OUT"],
    "train --init-from": ["--init-from", "PATH", "--run", "OUT"],
    "train --config": ["--data", "DATA", "--run", "OUT", "--config", "PATH"],
    "plan": ["--data", "PATH"],
    "generate --prompt-file": ["RUN", "--prompt-file", "PATH"],
    "prepare": ["FILE", "--out", "OUT", "--tokenizer", "PATH"],
}

WRITING = {
    "prepare": ["FILE", "--tokenizer", "byte", "--out", "PATH"],
    "train": ["--data", "DATA", "--run", "PATH"],
    "export": ["RUN", "--out", "PATH"],
    "report": ["RUN", "--no-evaluate", "--no-samples", "--out", "PATH.html"],
    "evaluate": ["RUN", "--plot", "PATH.png"],
}

PLACES = ["y" * 300, "x/" * 200 + "x" * 300, "FILE/inside", "nowhere/at/all"]


def error_of(call, name, words, path, **places):
    for known, place in {**places, "PATH": path}.items():
        words = [word.replace(known, str(place)) for word in words]
    code, _, err = call(name.partition(" ")[0], *words)
    assert code == 2
    assert err.count("error: ") == 1
    assert "Errno" not in err
    assert "partial" not in err
    return err


@pytest.fixture
def places(run_folder, data_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text " * 100)
    yield {"RUN": run_folder, "DATA": data_folder, "OUT": tmp_path / "out", "FILE": tmp_path / "text.txt"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[:10])
def test_what_is_not_there_is_an_error(call, places, name, place):
    err = error_of(call, name, READING[name], place.replace("FILE", str(places["FILE"])), **places)
    assert any(
        words in err.lower()
        for words in ("no such", "unknown tokenizer", "not a ", "not found", "here is no", "his is no", "read")
    )
    assert "written" not in err
    assert "damaged" not in err


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("place", PLACES[:3], ids=lambda place: place[:10])
def test_what_cannot_be_written_is_an_error(call, places, name, place):
    err = error_of(call, name, WRITING[name], place.replace("FILE", str(places["FILE"])), **places)
    words = ("cannot be written", "Cannot write", "cannot be created", "does not exist", "not found")
    assert any(word in err for word in words)


@pytest.fixture
def forbid(monkeypatch):
    """Lets the system refuse to open what has this name; root is never refused, and so this is no test by rights."""

    def forbid(name: str) -> None:
        opened, listed = os.open, os.listdir

        def refuse(path, *arguments, **settings):
            if os.path.basename(os.fsdecode(path)) == name:
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return opened(path, *arguments, **settings)

        def refuse_to_list(path="."):
            if os.path.basename(os.fsdecode(path)) == name:
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return listed(path)

        monkeypatch.setattr("os.open", refuse)
        monkeypatch.setattr("os.listdir", refuse_to_list)

    return forbid


@pytest.fixture
def own_run(run_folder, tmp_path):
    return RunFolder(shutil.copytree(run_folder, tmp_path / "copy"))


@pytest.mark.parametrize("part", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged_and_stays(own_run, forbid, part):
    before = sorted(path.name for path in own_run.checkpoints.iterdir())
    forbid(part)
    with pytest.raises(UnreadableError, match="may not be read"):
        resume(own_run.path, steps=1000)
    assert sorted(path.name for path in own_run.checkpoints.iterdir()) == before


def test_a_run_whose_checkpoints_may_not_be_listed_does_not_begin_anew(own_run, forbid):
    metrics = own_run.metrics_file.read_bytes()
    forbid("checkpoints")
    for use in (lambda: resume(own_run.path), lambda: load(own_run.path)):
        with pytest.raises(RunError, match="checkpoints: permission denied"):
            use()
    assert own_run.metrics_file.read_bytes() == metrics


@pytest.mark.parametrize("file", ["data.json", "environment.json", "metrics.jsonl", "tokenizer_config.json"])
def test_a_file_of_a_run_that_may_not_be_read_is_named(call, own_run, forbid, file):
    forbid(file)
    code, _, err = call("resume", own_run.path, "--steps", 1000)
    assert (code, file in err, "permission denied" in err, "damaged" in err) == (2, True, True, False)


@pytest.mark.parametrize("file", ["meta.json", "train.tokens", "tokenizer_config.json"])
def test_a_file_of_a_data_set_that_may_not_be_read_is_named(call, data_folder, tmp_path, forbid, file):
    forbid(file)
    code, _, err = call("train", "--data", data_folder, "--run", tmp_path / "run")
    assert (code, file in err, "permission denied" in err, "damaged" in err) == (2, True, True, False)


def test_a_tokenizer_that_may_not_be_read_is_not_called_damaged(own_run, forbid):
    forbid("tokenizer_config.json")
    with pytest.raises(TokenizerError, match=r"cannot be read \(got: .*tokenizer_config.json': permission denied"):
        load_tokenizer(own_run.tokenizer_folder)


def test_of_a_new_folder_only_what_concerns_it_is_a_writing_error(tmp_path):
    with pytest.raises(DataError, match="cannot be written"), atomic_directory(tmp_path / "out") as made:
        raise PermissionError(13, "Permission denied", str(made / "train.tokens"))
    with pytest.raises(DataError, match="disk is full"), atomic_directory(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    with pytest.raises(PermissionError), atomic_directory(tmp_path / "out"):
        raise PermissionError(13, "Permission denied", str(tmp_path / "source.txt"))
    assert list(tmp_path.iterdir()) == []


# Rights, and names that are not UTF-8


@pytest.mark.skipif(os.name == "nt", reason="POSIX's rights")
def test_every_file_has_the_rights_that_the_umask_leaves(call, text_folder, data_folder, tmp_path):
    before = os.umask(0o027)
    try:
        run = tmp_path / "run"
        train(data_folder, run, tiny(train__epochs=1))
        call("report", run)
        call("export", run, "--out", tmp_path / "export")
        call("import", tmp_path / "export", "--run", tmp_path / "imported")
        call("prepare", text_folder, "--out", tmp_path / "data", "--tokenizer", "bpe:300")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert {
        "model.safetensors",
        "optimizer.safetensors",
        "report.html",
        "train.tokens",
        "evaluation.json",
    } <= modes.keys()
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o640} == {}


def test_a_run_may_have_any_name_that_the_system_takes(call, data_folder, tmp_path):
    run, out, made = (tmp_path / f"{name}\udcff\x1b\n" for name in ("run", "out", "made"))
    try:
        run.mkdir()
    except OSError:
        pytest.skip("this system takes names in UTF-8 only")
    code, printed, _ = call(
        "train", "--data", data_folder, "--run", run, *["--steps", "3", "--train.sample-prompts", "1"]
    )
    assert (code, (run / "training_metrics.png").exists(), (run / "samples.jsonl").exists()) == (0, True, True)
    assert not {"\x1b", "\udcff"} & set(printed)
    assert "run\\xff␛" in printed
    for command in (
        ("resume", run, "--steps", 4),
        ("generate", run, "--max-new-tokens", 3),
        ("samples", run),
        ("evaluate", run, "--plot", run / "picture\udcff.png"),
        ("doctor", run),
        ("report", run),
        ("export", run, "--out", out),
        ("import", out, "--run", made),
        ("generate", made, "--max-new-tokens", 3),
        ("train", "--init-from", run, "--data", data_folder, "--run", tmp_path / "next\udcff", "--steps", 1),
    ):
        code, printed, err = call(*command)
        assert (code, "Traceback" in err) == (0, False), (command, err)
        assert not {"\x1b", "\udcff"} & set(printed + err), command
    assert RunFolder(tmp_path / "next\udcff").origin()["folder"] == str(run)
    shutil.rmtree(tmp_path / "next\udcff")  # pytest's own clean-up is content with any name, reports of it are not


def test_a_damaged_checkpoint_is_still_called_so(own_run):
    (own_run.find_checkpoint("latest") / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged") as caught:
        checkpoint.verify(own_run.find_checkpoint("latest"))
    assert not isinstance(caught.value, UnreadableError)
