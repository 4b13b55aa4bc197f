"""Learning-rate schedules: each a function from progress to a fraction of the peak rate.

The trainer calls `lr_factor`. A schedule is given `done`, the fraction of all steps taken, and `start`, the fraction at
which the warm-up ends; the warm-up itself is the same straight line for all but one-cycle. Each reaches `min_lr_ratio`
one step after the last, as in Hugging Face's schedules, so that even a ratio of 0 leaves every step a rate.
A new schedule is a function and a line in `SCHEDULES`.
"""

from __future__ import annotations

import math

from minigpt.config import ScheduleConfig


def constant(done: float, start: float, config: ScheduleConfig) -> float:
    """Stays at the peak."""
    return 1.0


def linear(done: float, start: float, config: ScheduleConfig) -> float:
    """Falls to `min_lr_ratio` in a straight line."""
    return 1.0 + (config.min_lr_ratio - 1.0) * max(0.0, done - start) / (1.0 - start)


def cosine(done: float, start: float, config: ScheduleConfig) -> float:
    """Falls to `min_lr_ratio` along half a cosine (Loshchilov and Hutter 2017)."""
    return config.min_lr_ratio + (1.0 - config.min_lr_ratio) * 0.5 * (
        1.0 + math.cos(math.pi * (done - start) / (1.0 - start))
    )


def wsd(done: float, start: float, config: ScheduleConfig) -> float:
    """Warm-up, stable, decay (Hu et al. 2024): constant, then linear over the last `decay_ratio`."""
    return linear(done, max(start, 1.0 - config.decay_ratio), config)


def one_cycle(done: float, start: float, config: ScheduleConfig) -> float:
    """Falls along a cosine, after a warm-up that rises along one from 1/25 of the peak (Smith and Topin 2018)."""
    return cosine(done, start, config)


SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "wsd": wsd,
    "one-cycle": one_cycle,
}


def lr_factor(step: int, total: int, config: ScheduleConfig) -> float:
    """Returns the fraction of the peak rate for one step.

    Args:
        step: the step, from 0.
        total: steps in the whole run.
        config: which schedule, and its settings.
    """
    warmup = config.warmup(total)
    if step >= warmup:
        return SCHEDULES[config.name](step / total, warmup / total, config)
    if config.name == "one-cycle":
        return 1.0 + (1 / 25 - 1.0) * 0.5 * (1.0 + math.cos(math.pi * step / warmup))
    return (step + 1) / (warmup + 1)
