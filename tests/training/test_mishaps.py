"""What goes wrong around a training and is not the model's: none of it costs what was learned."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigpt.cli.console import Console
from minigpt.cli.train_view import StopSignals, TrainView
from minigpt.data import Dataset
from minigpt.errors import DataError
from minigpt.records import MetricsFile, read_metrics
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder
from minigpt.training import resume, train, trainer
from minigpt.training.callbacks.tensorboard import TensorBoardCallback
from minigpt.training.resume_check import differences
from tests.conftest import tiny

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps others from writing to a file that is mapped")


def at_step(step: int, act: Callable[[], Any]) -> Callable[[Any], None]:
    """A watcher that does something after a step."""

    def watch(record: Any) -> None:
        if (record["kind"], record["step"]) == ("progress", step):
            act()

    return watch


@pytest.fixture
def data(data_folder: Path, tmp_path: Path) -> Path:
    """A data set of one's own, to be destroyed."""
    return shutil.copytree(data_folder, tmp_path / "data")


def changed(file: Path) -> None:
    """Other ids in the same place, as `prepare` or `cp` over a file that is in use would leave them."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, (1, 1))  # a coarse clock might not tell


DAMAGE = {
    "cut short": lambda file: os.truncate(file, 128),
    "half of it": lambda file: os.truncate(file, file.stat().st_size // 2),
    "emptied": lambda file: os.truncate(file, 0),
    "longer": lambda file: os.truncate(file, 2 * file.stat().st_size),
    "other ids": changed,
}


@posix
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_data_set_changed_during_a_run_saves_and_ends_it(data, tmp_path, split, damage):
    """Looking at a map behind the end of its file would kill the process (SIGBUS)."""
    file, run = data / f"{split}.tokens", tmp_path / "run"
    whole = file.read_bytes()
    config = tiny(train__steps=12, train__validate_every=4, train__sample_prompts=0, train__keep_checkpoints=9)
    with pytest.raises(DataError, match=rf"{split}\.tokens was changed while it was in use.*minigpt resume"):
        train(data, run, config, callbacks=[at_step(6, lambda: damage(file))])
    latest = RunFolder.open(run).find_checkpoint("latest")
    assert latest.name == ("step-000000006" if split == "train" else "step-000000008")
    checkpoint.verify(latest)
    file.write_bytes(whole)
    assert resume(run).steps == 12
    train(data, tmp_path / "other", config)
    shutil.rmtree(run / "checkpoints" / "step-000000006", ignore_errors=True)
    assert differences(run, tmp_path / "other") == []


@posix
@pytest.mark.parametrize(
    "harmless",
    [
        lambda data: shutil.rmtree(data),
        lambda data: data.rename(data.with_name("moved")),
        lambda data: [(data / name).unlink() for name in ("train.tokens", "meta.json")],
        lambda data: [os.utime(file, (1, 1)) for file in data.iterdir()],
        lambda data: [file.write_bytes(file.read_bytes()) for file in data.iterdir()],
        lambda data: os.replace(shutil.copy(data / "val.tokens", data / "new"), data / "train.tokens"),
    ],
    ids=["removed", "moved", "a part removed", "touched", "written again", "another put in its place"],
)
def test_a_run_survives_the_removal_of_its_data_set(data, data_folder, tmp_path, harmless):
    config = tiny(train__steps=12, train__validate_every=4, train__sample_prompts=0)
    outcome = train(data, tmp_path / "run", config, callbacks=[at_step(6, lambda: harmless(data))])
    assert outcome.steps == 12
    train(data_folder, tmp_path / "other", config)
    assert differences(tmp_path / "run", tmp_path / "other") == []


@posix
def test_samples_without_their_data_set_are_one_note(data, tmp_path):
    config = tiny(train__epochs=3, train__batch_size=32)
    train(data, tmp_path / "run", config, callbacks=[at_step(3, lambda: shutil.rmtree(data))])
    notes = [note["text"] for note in read_metrics(tmp_path / "run" / "metrics.jsonl", "note")]
    assert len(notes) == 1
    assert notes[0].startswith("no samples of this epoch: ")


def test_a_file_that_is_as_it_was_is_not_read_again(data, monkeypatch):
    shard = Dataset.open(data).train
    monkeypatch.setattr("minigpt.data.token_file._scan", lambda path, dtype: pytest.fail("read again"))
    assert shard.check_unchanged(shard.state) == shard.state


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to process string"),
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
        MemoryError(),
        KeyError("x"),
        ImportError("no matplotlib"),
        RecursionError("too deep"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_error_of_the_plot_is_one_note(data_folder, tmp_path, monkeypatch, error):
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("minigpt.training.callbacks.plot.plot_losses", fail)
    monkeypatch.setattr("minigpt.training.callbacks.plot.SECONDS_BETWEEN_PLOTS", -1.0)
    outcome = train(
        data_folder, tmp_path / "run", tiny(train__steps=4, train__validate_every=1, train__sample_prompts=0)
    )
    assert outcome.steps == 4
    notes = [note["text"] for note in read_metrics(tmp_path / "run" / "metrics.jsonl", "note")]
    assert len(notes) == 1
    assert type(error).__name__ in notes[0]


def test_a_failing_tensorboard_is_one_note(data_folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    callback = TensorBoardCallback(tmp_path / "file" / "tensorboard")
    assert train(data_folder, tmp_path / "run", tiny(train__steps=3), callbacks=[callback]).steps == 3
    (note,) = read_metrics(tmp_path / "run" / "metrics.jsonl", "note")
    assert note["text"].startswith("TensorBoard was not updated: ")


@pytest.mark.parametrize(("error", "told"), [(ValueError("I/O operation on closed file"), 1), (OSError("gone"), 0)])
def test_a_failing_view_does_not_end_the_run(data_folder, tmp_path, capsys, error, told):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    assert (
        train(data_folder, tmp_path / "run", tiny(train__steps=3), callbacks=[TrainView(Console(file=Closed()))]).steps
        == 3
    )
    assert capsys.readouterr().err.count("its progress is no longer shown") == told


def test_metrics_that_cannot_be_written_end_the_run(data_folder, tmp_path, monkeypatch):
    real = MetricsFile.__call__

    def full(self: MetricsFile, record: Any) -> None:
        if record["step"] == 5:
            raise OSError(28, "No space left on device")
        real(self, record)

    monkeypatch.setattr(MetricsFile, "__call__", full)
    with pytest.raises(OSError, match="No space left"):
        train(data_folder, tmp_path / "run", tiny(train__steps=8, train__save_every=4))
    monkeypatch.undo()
    assert resume(tmp_path / "run").steps == 8


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no hang-up")
@pytest.mark.parametrize(("ignored", "code", "steps"), [(False, 129, 3), (True, 0, 6)])
def test_sighup_saves_and_ends_unless_ignored(call, data_folder, tmp_path, monkeypatch, ignored, code, steps):
    """`nohup minigpt train ...` goes on when the terminal is closed."""
    real = trainer.Trainer.step

    def step(self: trainer.Trainer, *arguments: Any) -> Any:
        if self.state.step == 2:
            signal.raise_signal(signal.SIGHUP)
        return real(self, *arguments)

    monkeypatch.setattr(trainer.Trainer, "step", step)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    (tmp_path / "config.toml").write_text(tiny(train__steps=6, train__sample_prompts=0).to_toml())
    words = ("--data", data_folder, "--run", tmp_path / "run", "--config", tmp_path / "config.toml")
    try:
        assert call("train", *words)[0] == code
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)
    latest = RunFolder.open(tmp_path / "run").find_checkpoint("latest")
    assert latest.name == f"step-{steps:09d}"


def test_other_commands_work_while_a_run_is_trained(call, data_folder, tmp_path):
    """They read what is there; only a second training is refused."""
    run, codes = tmp_path / "run", {}

    def use() -> None:
        out = tmp_path / "out"
        for words in (
            ("generate", run, "--prompt", "the", "--max-new-tokens", 2),
            ("samples", run, "--prompt", "the", "--max-new-tokens", 2),
            ("evaluate", run, "--device", "cpu"),
            ("doctor", run),
            ("report", run, "--device", "cpu"),
            ("export", run, "--out", out),
            ("resume", run),
            ("train", "--data", data_folder, "--run", run),
            ("train", "--init-from", run, "--run", tmp_path / "child", "--steps", 1, "--machine.device", "cpu"),
        ):
            codes[" ".join(map(str, words[:2]))] = call(*words)

    config = tiny(train__steps=12, train__validate_every=4, train__keep_checkpoints=1)
    assert train(data_folder, run, config, callbacks=[at_step(9, use)]).steps == 12
    refused = {name: err for name, (code, _, err) in codes.items() if code}
    assert all(code in (0, 2) for code, _, _ in codes.values()), codes
    assert set(refused) == {f"resume {run}", "train --data"}, refused
    assert "Another process is training into this run" in refused[f"resume {run}"]
    train(data_folder, tmp_path / "other", config)
    shutil.rmtree(run / "tensorboard", ignore_errors=True)
    found = [line for line in differences(run, tmp_path / "other") if line != "samples.jsonl differs"]
    assert found == []


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert not stop()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
