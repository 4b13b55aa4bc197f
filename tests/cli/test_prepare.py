"""`minigpt prepare` as it is typed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minigpt.cli.app import main
from minigpt.data import Dataset

TEXT = "".join(f"line {number} of some text\n" for number in range(500))
COMMAND = [sys.executable, "-m", "minigpt.cli.app", "prepare"]


def run(*words: str | Path) -> int:
    """The exit code of `minigpt prepare` with these words."""
    with pytest.raises(SystemExit) as ended:
        main(["prepare", *map(str, words)])
    return int(ended.value.code or 0)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A small text file."""
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8", newline="\n")
    return file


def test_it_prepares_reports_and_says_what_comes_next(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "my data"
    assert run(text, "--out", out, "--tokenizer", "char", "--block-size", "64", "--val-fraction", "0.2") == 0
    captured = capsys.readouterr()
    assert f"minigpt train --data '{out}' --run 'runs/my data'" in captured.out
    assert "Note: There are fewer than 10 documents, so the last 20%" in captured.out.replace("\n", " ")
    for phase in ("reading", "learning", "encoding", "comparing"):
        assert f"{phase}: " in captured.err
    report = Dataset.open(out).report
    assert (report.val_fraction, report.block_size, report.tokenizer) == (0.2, 64, "char")
    for name, _ in report.rows():
        assert name in captured.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x"], "nothing to prepare"),
        (["nowhere", "--out", "x"], "There is no such file"),
        (["pylib", "--out", "x", "--tokenizer", "gpt"], "Did you mean gpt2"),
        (["pylib", "--out", "x", "--val-fraction", "2"], "share of validation"),
        (["pylib", "--out", "x", "--split-by", "word"], "word"),
        (["pylib", "--out", "x", "--tokeniser", "gpt2"], "no such option"),
        (["pylib"], "out"),
    ],
)
def test_mistakes_end_with_a_message_and_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(text, "--out", tmp_path) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_hyphen_is_standard_input(tmp_path: Path):
    out = tmp_path / "out"
    command = [*COMMAND, "-", "--out", str(out), "--tokenizer", "byte", "--block-size", "64"]
    subprocess.run(command, input=TEXT.encode(), capture_output=True, check=True)
    dataset = Dataset.open(out)
    text = "".join(dataset.tokenizer.decode(shard.tokens) for shard in (dataset.train, dataset.val))
    assert text == TEXT


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_it_with_its_code_and_leaves_nothing(name: str, code: int, tmp_path: Path):
    # Standard input stays open, so it waits in the first phase, its temporary folder made.
    process = subprocess.Popen(
        [*COMMAND, "-", "--out", "out"], cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in range(1000):
        if list(tmp_path.iterdir()):
            break
        time.sleep(0.02)
    process.send_signal(getattr(signal, name))
    process.communicate()
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_the_help_is_quick_to_reach_and_worth_reading(capsys: pytest.CaptureFixture[str]):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for word in ("--out", "--tokenizer", "--val-fraction", "--split-by", "pylib", "hf:", "minigpt prepare notes/"):
        assert word in shown
