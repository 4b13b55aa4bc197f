"""Real processes, really killed: a short form of benchmarks/crash_soak.py, and signals."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minigpt.cli.train_view import StopSignals
from minigpt.errors import RunError
from minigpt.records import read_metrics
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder
from minigpt.training import resume, train
from tests.conftest import tiny

SOAK = Path(__file__).parents[2] / "benchmarks" / "crash_soak.py"


@pytest.fixture(autouse=True, scope="module")
def ctrl_c_is_heard():
    """A shell lets what it runs in the background ignore it, and so would all that these tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="the soak kills itself with SIGKILL, which Windows has not")
def test_short_soak(tmp_path):
    spec = importlib.util.spec_from_file_location("crash_soak", SOAK)
    assert spec is not None
    assert spec.loader is not None
    crash_soak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(crash_soak)
    counts, wrong = crash_soak.soak(tmp_path, kills=1, seed=1, runs_of=2, settings=crash_soak.SETTINGS[1:2])
    assert wrong == []
    assert counts["killed from outside"] >= 1
    assert counts["killed inside a save"] >= 1
    assert counts["bit-identical runs"] == counts["runs"] >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these signals to another process")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_with_its_code(data_folder, tmp_path, number, code):
    file, run = tmp_path / "config.toml", tmp_path / "run"
    file.write_text(tiny(train__epochs=10_000, train__log_every=1).to_toml())
    command = ["-m", "minigpt", "train", "--data", str(data_folder), "--run", str(run), "--config", str(file)]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(read_metrics(run / "metrics.jsonl", "step")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "stopped after step" in out
    assert ("train ppl" in out) == bool(read_metrics(run / "metrics.jsonl", "validation"))  # no table without rows
    assert "Traceback" not in err
    steps = read_metrics(run / "metrics.jsonl", "step")
    latest = RunFolder.open(run).find_checkpoint("latest")
    assert int(latest.name.removeprefix("step-")) == steps[-1]["step"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these signals to another process")
def test_a_second_ctrl_c_stops_at_once_and_leaves_the_last_checkpoint_whole(data_folder, tmp_path):
    """The first is noted, the second comes while the step it waits for still goes on."""
    run = tmp_path / "run"
    code = (
        "import os, signal, sys, minigpt.training.trainer as loop\n"
        "from minigpt.cli.app import main\n"
        "real = loop.Trainer.step\n"
        "def step(self, batch, lr):\n"
        "    if self.state.step == 5:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(self, batch, lr)\n"
        "loop.Trainer.step = step\n"
        "main(sys.argv[1:])\n"
    )
    file = tmp_path / "config.toml"
    file.write_text(tiny(train__save_every=2).to_toml())
    command = ["-c", code, "train", "--data", str(data_folder), "--run", str(run), "--config", str(file)]
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
    latest = RunFolder.open(run).find_checkpoint("latest")
    assert latest.name == "step-000000004"
    checkpoint.verify(latest)


def test_a_second_signal_acts_as_usual():
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        assert stop.exit_code == 130
        assert signal.getsignal(signal.SIGINT) == before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows knows no hang-up")
def test_a_signal_that_is_ignored_stays_ignored():
    """As `nohup` and the shell's `&` have it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_unwritable_run_folder_is_an_error(data_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be created"):
        train(data_folder, tmp_path / "file" / "run", tiny())
    answers = iter([True])
    train(data_folder, tmp_path / "run", tiny(), should_stop=lambda: next(answers))

    def refuse(self, *arguments, **settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("minigpt.runs.folder.FileLock.acquire", refuse)
    with pytest.raises(RunError, match=r"cannot be written.*permission denied"):
        resume(tmp_path / "run")
