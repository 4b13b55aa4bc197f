"""Schedules against torch's own and against closed forms."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR

from minigpt.config import Schedule, ScheduleConfig
from minigpt.training.schedules import SCHEDULES, lr_factor

TOTAL = 50


def ours(config: ScheduleConfig) -> list[float]:
    return [lr_factor(step, TOTAL, config) for step in range(TOTAL)]


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
    assert ours(ScheduleConfig(name="cosine", min_lr_ratio=0.1)) == pytest.approx(
        theirs(CosineAnnealingLR, T_max=TOTAL, eta_min=0.1)
    )


def test_linear_is_torchs():
    assert ours(ScheduleConfig(name="linear", min_lr_ratio=0.2)) == pytest.approx(
        theirs(LinearLR, start_factor=1.0, end_factor=0.2, total_iters=TOTAL)
    )


def test_one_cycle_is_torchs():
    # torch reaches its peak at pct_start * total - 1, and its end at total - 1
    assert ours(ScheduleConfig(name="one-cycle", warmup_steps=16, min_lr_ratio=1 / (25 * 1e4))) == pytest.approx(
        theirs(OneCycleLR, max_lr=1.0, total_steps=TOTAL + 1, pct_start=1 / 3, cycle_momentum=False)
    )


def test_constant_stays():
    assert ours(ScheduleConfig(name="constant")) == [1.0] * TOTAL


@pytest.mark.parametrize("warmup", [0, 10])
def test_wsd_decays_over_its_share_of_all_steps_whatever_the_warm_up(warmup):
    """Against torch's schedulers one behind the other: the warm-up takes nothing from the decay."""
    rates = ours(ScheduleConfig(name="wsd", warmup_steps=warmup, decay_ratio=0.2, min_lr_ratio=0.1))
    decay = theirs(LinearLR, start_factor=1.0, end_factor=0.1, total_iters=10)
    assert rates[warmup:] == pytest.approx([1.0] * (40 - warmup) + decay[:10])


def test_wsd_with_no_room_for_its_decay_falls_from_the_end_of_the_warm_up():
    rates = ours(ScheduleConfig(name="wsd", warmup_steps=40, decay_ratio=0.5, min_lr_ratio=0.0))
    assert rates[39:] == pytest.approx([40 / 41, *(1 - step / 10 for step in range(10))])


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_rises_to_the_peak_and_the_schedule_ends_one_step_after_the_last(name):
    config = ScheduleConfig(name=name, warmup_steps=10, min_lr_ratio=0.3)
    rates = ours(config)
    assert rates[:11] == sorted(rates[:11])
    assert 0 < rates[0] < 0.2
    assert rates[10] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] > 0.3
    assert lr_factor(TOTAL, TOTAL, config) == pytest.approx(1.0 if name == "constant" else 0.3)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3, 50])
def test_every_step_of_a_run_learns(name, total):
    for warmup in (0, 1, 5, 50, 51):
        config = ScheduleConfig(name=name, warmup_steps=warmup, min_lr_ratio=0.0)
        rates = [lr_factor(step, total, config) for step in range(total)]
        assert all(0 < r <= 1 and math.isfinite(r) for r in rates)


def test_a_share_limits_the_warm_up_of_short_runs_only():
    config = ScheduleConfig(name="cosine", warmup_steps=100, max_warmup_ratio=0.2)
    assert [config.warmup(total) for total in (1, 40, 500, 2000)] == [0, 8, 100, 100]
    assert ScheduleConfig(warmup_steps=100).warmup(40) == 100
    assert ScheduleConfig(name="one-cycle", max_warmup_ratio=0.2).warmup(40) == 12  # its own usual share
