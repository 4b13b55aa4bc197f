"""What tests share, since they only read it: a small text, its data set, a run trained on it; and the command line."""

from __future__ import annotations

import os

# Before torch is imported: on a machine that others use too, threads that wait for each other would keep it busy, and
# tests with two threads take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.cli.app import main
from minigpt.config import Config, resolve
from minigpt.data import Dataset, prepare
from minigpt.doctor import Finding
from minigpt.errors import MiniGPTError
from minigpt.training import train
from tests.printed import commands_in, mistakes_in, strange_options, training_with

TINY: dict[str, Any] = {
    "model.block_size": 32,
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.n_inner": 32,
    "model.dropout": 0.1,
    "train.batch_size": 4,
    "train.epochs": 2,
    "train.lr": 1e-2,
    "train.log_every": 5,
    "train.sample_prompts": 1,
    "machine.device": "cpu",
    "machine.precision": "float32",
}


def tiny(**changes: Any) -> Config:
    """The settings of the smallest run that learns something; `train__lr=1e-3` changes `train.lr`."""
    return resolve(overrides={**TINY, **{name.replace("__", "."): value for name, value in changes.items()}})


def story(seed: int) -> str:
    """A few lines of made-up English."""
    chance = random.Random(seed)
    nouns, verbs = ["cat", "dog", "bird", "fish", "fox"], ["sees", "likes", "follows", "hears"]
    lines = [f"the {chance.choice(nouns)} {chance.choice(verbs)} the {chance.choice(nouns)}." for _ in range(8)]
    return "\n".join(lines) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--threads 2` runs the tests with two threads. The models are so small that a second one only waits."""
    parser.addoption("--threads", type=int, default=1, help="threads of torch")


@pytest.fixture(autouse=True, scope="session")
def threads_of_torch(request: pytest.FixtureRequest) -> None:
    """So many as `--threads` says."""
    torch.set_num_threads(request.config.getoption("--threads"))


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """For tests whose kernels share their work among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty small documents."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(story(number), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def data_folder(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Them as a data set of bytes."""
    out = tmp_path_factory.mktemp("data") / "stories"
    prepare([str(text_folder)], out, tokenizer="byte", block_size=32)
    return out


@pytest.fixture(scope="session")
def dataset(data_folder: Path) -> Dataset:
    """The same, open."""
    return Dataset.open(data_folder)


@pytest.fixture(scope="session")
def run_folder(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on it."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    train(data_folder, run, tiny())
    return run


@pytest.fixture(autouse=True)
def every_command_in_a_message_is_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of each error and each finding that a test meets, the commands are held against the command line.

    What trains a run anew must do it otherwise, and with settings that can work.
    """
    said = []
    for kind in (MiniGPTError, Finding):
        made = kind.__init__

        def noted(self: Any, *arguments: Any, made: Any = made, **named: Any) -> None:
            made(self, *arguments, **named)
            said.append(self.fix if isinstance(self, Finding) else self.remedy)

        monkeypatch.setattr(kind, "__init__", noted)
    yield
    assert not [mistake for text in said for mistake in mistakes_in(text)]
    assert not [(command, wrong) for text in said for command in commands_in(text) if (wrong := training_with(command))]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; returns its exit code, standard output and standard error, after a look at the commands there."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        if "--help" not in arguments:  # which is wrapped; tests/test_printed.py reads it unwrapped
            assert not mistakes_in(f"{captured.out}\n{captured.err}")
            assert not strange_options([*map(str, arguments)], captured.err)
        return int(end.value.code or 0), captured.out, captured.err

    return run
