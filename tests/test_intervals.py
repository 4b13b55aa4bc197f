"""When something is due: counted over whole runs, step by step."""

from __future__ import annotations

import itertools

import pytest

from minigpt.intervals import MAX_EPOCH_ENDS, MIN_STEPS_BETWEEN, Intervals
from tests.conftest import tiny


def intervals(epoch: int, total: int, val: int = 0, **settings) -> Intervals:
    """Of a run with epochs of `epoch` steps; a step has 128 tokens."""
    return Intervals(tiny(train__steps=total, **settings), epoch * 128 + 1, val)


def ends(due: Intervals) -> list[int]:
    return [step for step in range(1, due.total_steps + 1) if due.epoch_ends(step)]


@pytest.mark.parametrize(
    ("settings", "epoch", "total"),
    [
        ({}, 1, 60),
        ({"train__validate_every": 7, "train__save_every": 4, "train__health_every": 9}, 11, 100),
        ({"train__validate_every": 500, "train__save_every": 500, "train__health_every": 0}, 3, 1),
        ({"train__sample_prompts": 0, "train__health_every": 1}, 60, 130),
    ],
)
def test_the_counts_are_those_of_the_steps(settings, epoch, total):
    due = intervals(epoch, total, **settings)
    steps = range(1, total + 1)
    assert due.steps_per_epoch == epoch
    assert due.counts == {
        "samples": len(ends(due)) if due.config.train.sample_prompts else 0,
        "validations": sum(map(due.validation, steps)),
        "checkpoints": sum(due.save(step, 0.0) for step in steps),
        "health checks": sum(map(due.health, steps)),
    }


@pytest.mark.parametrize(("epoch", "total"), [(50, 200), (334, 1670), (6, 12), (41, 82), (5, 50)])
def test_an_epoch_that_is_long_enough_is_validated(epoch, total):
    assert ends(intervals(epoch, total)) == list(range(epoch, total + 1, epoch))


@pytest.mark.parametrize(("epoch", "total"), [(1, 60), (1, 7), (2, 33), (7, 10_000), (1, 10_000), (49, 499), (100, 30)])
def test_short_epochs_are_validated_in_groups(epoch, total):
    found = ends(intervals(epoch, total))
    apart = {after - before for before, after in itertools.pairwise(found)} or {total}
    assert found[-1] == total
    assert all(step % epoch == 0 for step in found[:-1])
    assert len(found) <= max(MAX_EPOCH_ENDS, total / MIN_STEPS_BETWEEN) + 1
    assert sorted(apart)[-1] < min(MIN_STEPS_BETWEEN, total / MAX_EPOCH_ENDS) + 1 + epoch


def test_a_validation_text_larger_than_the_training_text_is_not_read_each_epoch():
    due = intervals(50, 1000, val=3 * 50 * 128)
    assert ends(due) == [150, 300, 450, 600, 750, 900, 1000]


def test_an_empty_text_has_one_step_per_epoch():
    assert Intervals(tiny(), 0, 0).total_steps == tiny().train.epochs


def test_a_very_long_run_is_counted_at_once():
    due = intervals(11, 2**62, train__validate_every=7, train__save_every=3, train__health_every=1)
    assert due.counts["health checks"] == 2**62
    assert 2**62 // 7 < due.counts["validations"] < due.counts["checkpoints"] < 2**62
