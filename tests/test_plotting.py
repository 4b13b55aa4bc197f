"""Long curves keep their peaks and ends."""

from __future__ import annotations

import math
import random
from itertools import pairwise

from minigpt.plotting import downsample


def test_long_curves_keep_their_peaks():
    chance = random.Random(0)
    y = [chance.random() for _ in range(50_000)]
    y[12_345], y[40_001], y[7] = 9.0, -9.0, math.nan
    x, values = downsample(range(50_000), y)
    assert len(x) == len(values) <= 1_000
    assert (12_345, 9.0) in zip(x, values, strict=True)
    assert (40_001, -9.0) in zip(x, values, strict=True)
    assert x == sorted(x)
    assert all(map(math.isfinite, values))


def test_a_long_curve_keeps_its_ends_and_its_beginning_on_a_logarithmic_axis():
    x, y = range(1, 50_001), [10 / math.log(place + 2) for place in range(50_000)]
    short, values = downsample(x, y, log_x=True)
    assert len(short) <= 1_000
    assert (short[0], short[-1]) == (1, 50_000)
    assert (values[0], values[-1]) == (y[0], y[-1])
    assert short[:40] == list(range(1, 41))  # there the axis is wide
    gaps = [math.log(later / earlier) for earlier, later in pairwise(short[40:])]
    assert max(gaps) < 0.05
    assert downsample([0, 1, 2], [5.0, 6.0, 7.0], log_x=True) == ([1, 2], [6.0, 7.0])
    assert len(downsample([3.0] * 5_000, [1.0] * 5_000)[0]) <= 1_000


def test_what_a_logarithmic_axis_cannot_show_is_dropped():
    assert downsample([1, 2, 3, 4], [0.0, 1.0, -1.0, math.inf], log_y=True) == ([2], [1.0])
    assert downsample([], []) == ([], [])
