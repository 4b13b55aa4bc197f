"""Runs of a second: what they say is short, and nothing is drawn, unless a test wants it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="module")
def quick(run_folder: Path) -> Iterator[None]:
    """Short texts, and no pictures. The run that all tests share, here and elsewhere, is made before, with both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minigpt.generation.sample_log.NEW_CHARACTERS", 40)
        patch.setattr("minigpt.training.callbacks.plot.plot_losses", lambda *arguments: None)
        yield
