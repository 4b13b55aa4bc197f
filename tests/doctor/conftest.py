"""Text that a small model learns within seconds, and runs on it that are healthy or made sick."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigpt.config import resolve
from minigpt.data import prepare
from minigpt.doctor import Diagnosis, Finding, examine, read_evidence
from minigpt.training.loop import Training
from minigpt.training.start import start

SMALL: dict[str, Any] = {
    "model.block_size": 32,
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 32,
    "model.n_hidden": 64,
    "model.dropout": 0.0,
    "train.batch_size": 8,
    "train.log_every": 5,
    "train.health_every": 20,
    "train.samples": 0,
    "machine.device": "cpu",
    "machine.precision": "float32",
}
"""A model in which each part of a large one is there."""


def words(seed: int, count: int) -> str:
    """Words of a language that has six of them, in any order."""
    language = random.Random(0)
    lexicon = ["".join(language.choices("abcdefghiklmnoprstuw", k=language.randint(2, 3))) for _ in range(6)]
    chance = random.Random(seed)
    return " ".join(chance.choice(lexicon) for _ in range(count)) + "\n"


def write_texts(folder: Path, documents: int, count: int) -> Path:
    folder.mkdir()
    for number in range(documents):
        (folder / f"{number:03d}.txt").write_text(words(number + 1, count), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred documents."""
    return write_texts(tmp_path_factory.mktemp("words") / "text", 100, 300)


@pytest.fixture(scope="session")
def data(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that has nothing wrong with it."""
    out = tmp_path_factory.mktemp("prepared") / "words"
    prepare([str(text)], out, tokenizer="char", block_size=32)
    return out


@pytest.fixture(scope="session")
def little_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short documents."""
    folder = tmp_path_factory.mktemp("little")
    prepare([str(write_texts(folder / "text", 6, 40))], folder / "data", tokenizer="char", block_size=32)
    return folder / "data"


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
        return examine(read_evidence(self.run), **arguments)

    @property
    def found(self) -> dict[str, Finding]:
        return {finding.check: finding for finding in self.diagnosis().findings}


@pytest.fixture
def treat(data: Path, tmp_path: Path) -> Callable[..., Patient]:
    """Trains a run: settings as `train__lr=10.0`, and what to do to the training before its first step."""

    def run(
        on: Path = data,
        preset: str = "seed",
        before: Callable[[Training], Any] = lambda training: None,
        after_step: Callable[[Training], Any] = lambda training: False,
        name: str = "run",
        **changes: Any,
    ) -> Patient:
        patient = Patient(tmp_path / name)
        settings = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
        trainings: list[Training] = []
        training = start(
            on,
            patient.run,
            resolve(preset, overrides=settings),
            watchers=[patient.watch],
            should_stop=lambda: bool(after_step(trainings[0])),
        )
        trainings.append(training)
        before(training)
        training.run()
        return patient

    return run
