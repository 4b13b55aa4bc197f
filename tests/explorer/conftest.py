"""A run with several checkpoints, opened for exploring."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt.explorer.explored_run import ExploredRun
from minigpt.explorer.session import Session
from minigpt.training import train
from tests.conftest import tiny

TEXT = "the cat sees the dog.\nthe cat"


@pytest.fixture(scope="session")
def explored_folder(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("explored") / "run"
    settings = {"model__n_layer": 2, "model__position": "rope", "model__norm": "rmsnorm", "model__dropout": 0.0}
    train(data_folder, run, tiny(**settings, train__save_every=20, train__keep_checkpoints=4))
    return run


@pytest.fixture(scope="session")
def session(explored_folder: Path) -> Session:
    return Session([ExploredRun(explored_folder)])
