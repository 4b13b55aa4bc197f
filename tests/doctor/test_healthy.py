"""Healthy runs: nothing may be said of them."""

from __future__ import annotations

import pytest

from minigpt.config import preset_names


@pytest.mark.parametrize("preset", preset_names())
def test_of_each_preset_in_small_nothing_is_said(treat, preset):
    """A narrow model takes a higher rate, and a short run a shorter warm-up."""
    length = 320 if preset == "seed" else 200  # a constant rate takes longer to come to rest
    patient = treat(
        preset=preset, train__steps=length, train__validate_every=length // 4, train__lr=1e-2, schedule__warmup_steps=10
    )
    assert patient.said == []
    diagnosis = patient.diagnosis()
    assert [finding.seen for finding in diagnosis.findings] == []
    assert diagnosis.left_out == {}
    assert diagnosis.made >= 20
