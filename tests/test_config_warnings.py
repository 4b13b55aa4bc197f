"""Settings that do not fit the run's length or its text, each with an option that helps."""

from __future__ import annotations

import math

import pytest

from minigpt.config import Config, preset_names, resolve
from minigpt.config_warnings import config_warnings
from minigpt.intervals import Intervals
from tests.conftest import tiny

STEP = 128
"""Tokens of a step."""

CASES = {
    "a warm-up as long as the run": ({"schedule.warmup_steps": 40}, "warm-up", "never reaches its peak"),
    "a warm-up longer than the run": ({"schedule.warmup_steps": 100}, "warm-up", "100 steps of the run's 40"),
    "a warm-up of most of the run": ({"schedule.warmup_steps": 30}, "warm-up", "little time at its peak"),
    "one-cycle's own number": ({"schedule.name": "one-cycle", "schedule.warmup_steps": 50}, "warm-up", "never"),
    "wsd without a flat part": (
        {"schedule.name": "wsd", "schedule.warmup_steps": 15, "schedule.decay_ratio": 0.8},
        "decay",
        "Warm-up (15) and decay (32) are longer than the run's 40 steps",
    ),
    "patience for more validations than there are": ({"train.patience": 9}, "patience", "cannot stop it early"),
    "patience for the last one": ({"train.patience": 4, "train.validate_every": 8}, "patience", "5 validations"),
    "validations": ({"train.validate_every": 41}, "validate every", "--train.validate-every 41 is longer than"),
    "checkpoints": ({"train.save_every": 500}, "save every", "adds no checkpoint"),
    "lines of metrics": ({"train.log_every": 50}, "log every", "only the first and last steps are logged"),
    "health checks": ({"train.health_every": 1000}, "health every", "1,000 is longer than the run's 40 steps"),
    "a batch larger than the text": (
        {"train.batch_size": 80},
        "batch",
        "80 rows, and the training text only 40 sequences",
    ),
    "micro-batches": ({"train.batch_size": 80, "train.grad_accum_steps": 4}, "batch", "40 empty rows"),
}


def intervals(config: Config, train: int = 10 * STEP + 1, val: int = 10_000) -> Intervals:
    return Intervals(config, train, val)


def found(due: Intervals) -> dict[str, str]:
    return {warning.name: str(warning) for warning in config_warnings(due)}


def configured(settings) -> Config:
    return tiny(**{"train__steps": 40, **{name.replace(".", "__"): value for name, value in settings.items()}})


@pytest.mark.parametrize(("settings", "name", "words"), CASES.values(), ids=CASES.keys())
def test_each_warning_suggests_an_option_that_helps(settings, name, words):
    due = intervals(configured(settings))
    (warning,) = config_warnings(due)
    assert warning.name == name
    assert words in str(warning)
    assert " ".join(warning.options) in str(warning)
    pairs = zip(warning.options[::2], warning.options[1::2], strict=True)
    options = {option.removeprefix("--").replace("-", "_"): float(value) for option, value in pairs}
    whole = {option: int(value) if value == math.floor(value) else value for option, value in options.items()}
    assert found(intervals(configured(settings | whole))) == {}


def test_a_small_validation_text_is_warned_of():
    assert "1 token, less than one sequence of 32" in found(intervals(tiny(), val=1))["small validation"]
    assert "less than" not in found(intervals(tiny(), val=4000))["small validation"]


def test_defaults_are_not_warned_of():
    """A short run has fewer steps than there are between two health checks by default."""
    assert found(intervals(tiny(train__steps=8, train__log_every=10))) == {}


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("steps", [1, 2, 10, 40, 500])
def test_a_preset_fits_a_run_of_any_length(preset, steps):
    assert found(Intervals(resolve(preset, overrides={"train.steps": steps}), 1_000_000, 100_000)) == {}


def test_without_a_text_the_length_alone_is_checked():
    due = Intervals.of_steps(configured({"schedule.warmup_steps": 100}))
    assert due is not None
    assert set(found(due)) == {"warm-up"}
    assert Intervals.of_steps(tiny()) is None
