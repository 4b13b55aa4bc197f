"""`minigpt prepare` as it is typed."""

from __future__ import annotations

import json
import random
import shlex
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
    assert (
        "Note: There are fewer than 10 documents, so validation is the end of the text (about 20%)"
        in captured.out.replace("\n", " ")
    )
    for phase in ("reading", "learning", "encoding", "comparing"):
        assert f"{phase}: " in captured.err
    report = Dataset.open(out).card
    assert (report.val_fraction, report.block_size, report.tokenizer) == (0.2, 64, "char")
    for name, _ in report.rows():
        assert name in captured.out


def next_commands(printed: str) -> list[list[str]]:
    """What it says to type next."""
    lines = printed.partition("Next: ")[2].splitlines()
    return [shlex.split(line.partition("minigpt ")[2]) for line in lines if "minigpt " in line]


@pytest.mark.parametrize("tokenizer", ["byte", "char", "bpe:300", "gpt2"])
def test_what_it_says_to_type_next_runs(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tokenizer: str
):
    monkeypatch.chdir(tmp_path)
    assert run(text, "--out", "my data", "--tokenizer", tokenizer, "--block-size", "16") == 0
    (command,) = next_commands(capsys.readouterr().out)
    assert command[:5] == ["train", "--data", "my data", "--run", "runs/my data"]
    planned = [word for word in command if word not in ("--run", "runs/my data")]  # what it says of the same training
    with pytest.raises(SystemExit) as ended:
        main(["plan", *planned[1:], "--steps", "2"])
    assert not ended.value.code, capsys.readouterr().err


def test_text_for_a_runs_tokenizer_is_measured_whole_or_trained_on(
    text: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert run(text, "--out", "letters", "--tokenizer", run_folder) == 0
    measuring, training = next_commands(capsys.readouterr().out)
    with pytest.raises(SystemExit) as ended:
        main([*measuring, "--json"])
    assert not ended.value.code
    tokens = Dataset.open("letters").card.tokens
    assert json.loads(capsys.readouterr().out)["tokens"] == tokens - 2  # all but the first of each split
    with pytest.raises(SystemExit) as ended:
        main([*training, "--steps", "2", "--train.sample-prompts", "0"])
    assert not ended.value.code, capsys.readouterr().err
    # a data set's tokenizer is not a run, so there is no model to evaluate
    assert run(text, "--out", "more", "--tokenizer", "letters") == 0
    assert next_commands(capsys.readouterr().out)[0][0] == "train"


def test_own_validation_files(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("v1.txt", "v2.txt", "v3.txt"):
        (tmp_path / name).write_text(f"{name} is for validation\n" * 30)
    names = [tmp_path / f"v{number}.txt" for number in (1, 2, 3)]
    out = tmp_path / "out"
    arguments = ["--out", out, "--tokenizer", "byte", "--block-size", "64"]
    assert run(text, "--val", *names[:2], "--val", names[2], *arguments) == 0
    assert "validation from" in capsys.readouterr().out
    assert Dataset.open(out).card.val.documents == 3
    assert run("--val", text, "--out", tmp_path / "x") == 2
    assert "all files follow --val" in capsys.readouterr().err
    assert run(text, "--val", "--out", tmp_path / "x") == 2
    assert "--val has no value" in capsys.readouterr().err
    assert run(text, "--val", names[0], "--val-fraction", "0.1", "--out", tmp_path / "x") == 2
    assert "Leave out --val-fraction" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x"], "nothing to prepare"),
        (["pylib", "--out", "x", "--seed", "-3"], "seed is out of range"),
        (["nowhere", "--out", "x"], "No such file"),
        (["pylib", "--out", "x", "--tokenizer", "gpt"], "Did you mean gpt2"),
        (["pylib", "--out", "x", "--val-fraction", "2"], "validation fraction"),
        (["pylib", "--out", "x", "--split-by", "word"], "word"),
        (["pylib", "--out", "x", "--tokeniser", "gpt2"], "Did you mean --tokenizer?"),
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
    assert "already exists" in capsys.readouterr().err


def test_a_hyphen_is_standard_input(tmp_path: Path):
    out = tmp_path / "out"
    command = [*COMMAND, "-", "--out", str(out), "--tokenizer", "byte", "--block-size", "64"]
    subprocess.run(command, input=TEXT.encode(), capture_output=True, check=True)
    dataset = Dataset.open(out)
    text = "".join(dataset.tokenizer.decode(token_file.tokens) for token_file in (dataset.train, dataset.val))
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
def test_a_signal_ends_it_while_the_vocabulary_is_learned(tmp_path: Path):
    letters = bytes(b"ACGT"[byte % 4] for byte in range(256))
    (tmp_path / "dna.txt").write_bytes(random.Random(0).randbytes(3_000_000).translate(letters))
    command = [*COMMAND, "dna.txt", "--out", "out", "--tokenizer", "bpe:9000"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert any(b"Note: Words of up to " in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)  # and with it the process that learns, which has this pipe too
    assert process.returncode == 143
    assert [path.name for path in tmp_path.iterdir()] == ["dna.txt"]


def test_the_help_is_quick_to_reach_and_worth_reading(capsys: pytest.CaptureFixture[str]):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for word in ("--out", "--tokenizer", "--val-fraction", "--split-by", "pylib", "hf:", "minigpt prepare notes/"):
        assert word in shown
