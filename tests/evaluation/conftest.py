"""What the tests of the evaluation share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding out which precision is fast takes a quarter of a second, and runs name theirs anyhow."""
    monkeypatch.setattr("minigpt.runtime.measure_matmul_flops", lambda *arguments: 1.0)
