"""Healthy runs: nothing may be said of them."""

from __future__ import annotations

import pytest

from minigpt.config import preset_names


@pytest.mark.parametrize("preset", preset_names())
def test_of_each_preset_in_small_nothing_is_said(treat, preset):
    """A narrow model takes a higher rate."""
    patient = treat(preset=preset, train__steps=240, train__validate_every=60, train__lr=5e-3)
    assert patient.said == []
    diagnosis = patient.diagnosis()
    assert [finding.seen for finding in diagnosis.findings] == []
    assert diagnosis.left_out == {}
    assert diagnosis.made >= 20
