"""Text that a small model learns within seconds, and runs on it that are healthy or made sick."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from minigpt.config import resolve
from minigpt.data import prepare
from minigpt.doctor import Diagnosis, Evidence, Finding, diagnose, read_evidence
from minigpt.errors import MiniGPTError
from minigpt.records import read_metrics
from minigpt.training import train
from minigpt.training.api import start
from minigpt.training.trainer import Trainer

SMALL: dict[str, Any] = {
    "model.block_size": 32,
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 32,
    "model.n_inner": 64,
    "model.dropout": 0.0,
    "train.batch_size": 8,
    "train.log_every": 5,
    "train.health_every": 20,
    "train.sample_prompts": 0,
    "machine.device": "cpu",
    "machine.precision": "float32",
}
"""A model in which each part of a large one is there."""


def letters(seed: int, count: int) -> str:
    """Text of a language in which three letters may follow each, one as likely as the others."""
    language, chance = random.Random(0), random.Random(seed)
    alphabet = "abcdefghiklmnoprstuw"
    after = {letter: language.sample(alphabet, 3) for letter in alphabet}
    text = [chance.choice(alphabet)]
    for _ in range(count):
        text.append(chance.choice(after[text[-1]]))
    return "".join(text) + "\n"


def write_texts(folder: Path, documents: int, count: int) -> Path:
    folder.mkdir()
    for number in range(documents):
        (folder / f"{number:03d}.txt").write_text(letters(number + 1, count), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred documents."""
    return write_texts(tmp_path_factory.mktemp("letters") / "text", 100, 800)


@pytest.fixture(scope="session")
def data(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that has nothing wrong with it."""
    out = tmp_path_factory.mktemp("prepared") / "letters"
    prepare([str(text)], out, tokenizer="char", block_size=32)
    return out


@pytest.fixture(scope="session")
def little_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few letters at random: there is nothing to learn but the text itself."""
    folder = tmp_path_factory.mktemp("little")
    (folder / "text.txt").write_text("".join(random.Random(1).choices("abcdefghik", k=1500)), encoding="utf-8")
    prepare([str(folder / "text.txt")], folder / "data", tokenizer="char", block_size=32)
    return folder / "data"


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short healthy run, whose records tests change by hand."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train(data, run, resolve(overrides={**SMALL, "train.steps": 60, "train.lr": 1e-2, "train.log_every": 2}))
    return run


@pytest.fixture
def evidence(trained: Path) -> Evidence:
    return read_evidence(trained)


class Patient:
    """A run, and what was said of it, live and afterwards."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.said: list[Finding] = []
        self.texts: list[str] = []

    def watch(self, record: Any) -> None:
        if record["kind"] == "finding":
            self.said.append(record["finding"])
        elif record["kind"] in ("message", "note"):
            self.texts.append(record["text"])

    @property
    def live(self) -> list[str]:
        return [finding.check for finding in self.said]

    def diagnosis(self, **arguments: Any) -> Diagnosis:
        return diagnose(read_evidence(self.run), **arguments)

    @property
    def validations(self) -> list[dict[str, Any]]:
        return read_metrics(self.run / "metrics.jsonl", "validation")

    @property
    def found(self) -> dict[str, Finding]:
        return {finding.check: finding for finding in self.diagnosis().findings}


@pytest.fixture
def treat(data: Path, tmp_path: Path) -> Callable[..., Patient]:
    """Trains a run: settings as `train__lr=10.0`, and what to do to the training before its first step."""

    def run(
        on: Path = data,
        preset: str = "seed",
        before: Callable[[Trainer], Any] = lambda training: None,
        after_step: Callable[[Trainer], Any] = lambda training: False,
        name: str = "run",
        diverges: bool = False,
        **changes: Any,
    ) -> Patient:
        patient = Patient(tmp_path / name)
        settings = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
        trainings: list[Trainer] = []
        training = start(
            on,
            patient.run,
            resolve(preset, overrides=settings),
            callbacks=[patient.watch],
            should_stop=lambda: bool(after_step(trainings[0])),
        )
        trainings.append(training)
        before(training)
        with pytest.raises(MiniGPTError, match="5 consecutive steps") if diverges else nullcontext():
            training.run()
        return patient

    return run
