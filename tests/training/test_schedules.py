"""Schedules against torch's own and against closed forms."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR

from minigpt.config import Schedule, ScheduleConfig
from minigpt.training.schedules import SCHEDULES, rate

TOTAL = 50


def ours(config: ScheduleConfig) -> list[float]:
    return [rate(step, TOTAL, config) for step in range(TOTAL)]


def theirs(make: type[LRScheduler], **settings: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **settings)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_settings_name_every_schedule():
    assert set(get_args(Schedule)) == set(SCHEDULES)


def test_cosine_is_torchs():
    assert ours(ScheduleConfig(name="cosine", final=0.1)) == pytest.approx(
        theirs(CosineAnnealingLR, T_max=TOTAL - 1, eta_min=0.1)
    )


def test_linear_is_torchs():
    assert ours(ScheduleConfig(name="linear", final=0.2)) == pytest.approx(
        theirs(LinearLR, start_factor=1.0, end_factor=0.2, total_iters=TOTAL - 1)
    )


def test_one_cycle_is_torchs():
    # torch reaches its peak at pct_start * total - 1
    assert ours(ScheduleConfig(name="one-cycle", warmup_steps=14, final=1 / (25 * 1e4))) == pytest.approx(
        theirs(OneCycleLR, max_lr=1.0, total_steps=TOTAL, pct_start=0.3, cycle_momentum=False)
    )


def test_constant_and_wsd_have_their_closed_forms():
    assert ours(ScheduleConfig(name="constant")) == [1.0] * TOTAL
    expected = [1.0 - 0.9 * max(0.0, step / 49 - 0.8) / 0.2 for step in range(TOTAL)]
    assert ours(ScheduleConfig(name="wsd", decay=0.2, final=0.1)) == pytest.approx(expected)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_warm_up_rises_to_the_peak_and_the_end_is_final(name):
    rates = ours(ScheduleConfig(name=name, warmup_steps=10, final=0.3))
    assert rates[:11] == sorted(rates[:11])
    assert 0 < rates[0] < 0.2
    assert rates[10] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1.0 if name == "constant" else 0.3)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_finite_rates(name, total):
    for warmup in (0, 1, 5):
        rates = [rate(step, total, ScheduleConfig(name=name, warmup_steps=warmup)) for step in range(total)]
        assert all(0 < r <= 1 and math.isfinite(r) for r in rates)
