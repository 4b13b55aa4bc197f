"""Learning-rate schedules: each a function from progress to a share of the peak rate.

`rate` is what the loop calls. A schedule sees only the share `t` of the way from the end of the warm-up (0) to the
last step (1); the warm-up itself is the same straight line for all but one-cycle. A new schedule is a function and a
line in `SCHEDULES`.
"""

from __future__ import annotations

import math

from minigpt.config import ScheduleConfig


def constant(t: float, config: ScheduleConfig) -> float:
    """Stays at the peak."""
    return 1.0


def linear(t: float, config: ScheduleConfig) -> float:
    """Falls to `final` in a straight line."""
    return 1.0 + (config.final - 1.0) * t


def cosine(t: float, config: ScheduleConfig) -> float:
    """Falls to `final` along half a cosine (Loshchilov and Hutter 2017)."""
    return config.final + (1.0 - config.final) * 0.5 * (1.0 + math.cos(math.pi * t))


def wsd(t: float, config: ScheduleConfig) -> float:
    """Warm-up, stable, decay (Hu et al. 2024): flat, then a straight line to `final` over the last `decay`."""
    return linear(max(0.0, t - (1.0 - config.decay)) / config.decay, config)


def one_cycle(t: float, config: ScheduleConfig) -> float:
    """Falls along a cosine, after a warm-up that rises along one from 1/25 of the peak (Smith and Topin 2018)."""
    return cosine(t, config)


SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "wsd": wsd,
    "one-cycle": one_cycle,
}


def rate(step: int, total: int, config: ScheduleConfig) -> float:
    """Returns the share of the peak rate for one step.

    Args:
        step: the step, from 0.
        total: steps in the whole run; the last one, total - 1, gets the schedule's end.
        config: which schedule, and its settings.
    """
    cycle = config.name == "one-cycle"
    warmup = config.warmup_steps or (max(1, round(0.3 * total)) if cycle else 0)
    if step < warmup:
        if cycle:
            return 1.0 + (1 / 25 - 1.0) * 0.5 * (1.0 + math.cos(math.pi * step / warmup))
        return (step + 1) / (warmup + 1)
    t = (step - warmup) / max(1, total - 1 - warmup)
    return SCHEDULES[config.name](min(t, 1.0), config)
