"""Pictures within a page: readable by machines, in the page's colours, never in each other's way."""

from __future__ import annotations

import math
import random
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from minigpt.report.svg import DASHES, MARKERS, SERIES, STYLE, VARIABLES, drawing, legend, thinned


def picture(key: str, label: str = "loss", points: int = 20) -> str:
    with drawing(key, "A <title>", "What & how", "Read it so") as made:
        axes = made.figure.subplots()
        axes.plot(range(points), [math.sin(x) for x in range(points)], "o-", color=SERIES[0], label=label)
        axes.set_xlabel(label)
        axes.legend()
    return made.html.text


def test_a_picture_is_whole_and_speaks_to_those_who_cannot_see_it():
    figure = ElementTree.fromstring(picture("one").replace("<br>", "<br/>"))
    svg = figure.find("svg")
    assert svg.get("role") == "img"
    names = {part.get("id"): part.text for part in svg if part.get("id")}
    assert [names[key] for key in svg.get("aria-labelledby").split()] == ["A <title>", "What & how"]
    assert "".join(figure.find("figcaption").itertext()) == "A <title>Read it so"


def test_colours_are_the_pages_own_and_no_style_leaks():
    text = picture("one")
    assert not re.search(r"#[0-9a-f]{6}", text)
    assert "var(--series-1)" in text
    assert "var(--ink)" in text
    assert "<style" not in text
    assert "<metadata" not in text
    assert "font-family" not in text
    assert "width=" not in text.split(">")[4]


def test_two_pictures_share_no_name_and_each_finds_its_own():
    names = []
    for key in ("one", "two"):
        text = picture(key)
        ids = re.findall(r'\bid="([^"]+)"', text)
        used = re.findall(r'(?:url\(|href=")#([\w-]+)', text)
        assert used
        assert set(used) <= set(ids)
        names += ids
    assert len(names) == len(set(names))


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize(("width", "behind"), [(6.4, ", validation"), (4.4, "")])
@pytest.mark.parametrize("name", ["r", "shakespeare-laptop-lr-0.001", "M" * 28, "字" * 28])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_legend_stays_within_its_picture_and_leaves_room_for_the_curves(width, behind, name, count):
    with drawing("one", "title", "told", width=width, height=2.7) as made:
        axes = made.figure.subplots()
        for number in range(count):
            axes.plot([0, 1], [number, 2], label=f"{name}{behind}")
        legend(axes)
    [box] = [each.get_window_extent() for each in made.figure.legends]
    assert box.x0 >= 0
    assert box.x1 <= made.figure.bbox.x1
    assert box.y1 <= made.figure.bbox.y1
    plot = axes.get_window_extent()
    assert plot.width > 0.6 * made.figure.bbox.width
    assert plot.height > 0.35 * made.figure.bbox.height
    assert plot.y1 < box.y0


def test_the_same_picture_is_drawn_twice():
    assert picture("one") == picture("one")


@pytest.mark.parametrize(
    "label", ["</svg><script>alert(1)</script>", "$x_1$ \\frac", "a\0b\x0b", "ไทย 👋 שלום", '" id="x']
)
def test_words_in_a_picture_stay_words(label):
    from minigpt.report.html import shown

    figure = ElementTree.fromstring(picture("one", shown(label)).replace("<br>", "<br/>"))
    assert shown(label) in [part.text for part in figure.iter("text")]


def test_long_curves_keep_their_peaks():
    chance = random.Random(0)
    y = [chance.random() for _ in range(50_000)]
    y[12_345], y[40_001], y[7] = 9.0, -9.0, math.nan
    x, thin = thinned(range(50_000), y)
    assert len(x) == len(thin) <= 1_000
    assert (12_345, 9.0) in zip(x, thin, strict=True)
    assert (40_001, -9.0) in zip(x, thin, strict=True)
    assert x == sorted(x)
    assert all(map(math.isfinite, thin))


def test_a_long_curve_keeps_its_ends_and_its_beginning_on_a_logarithmic_axis():
    x, y = range(1, 50_001), [10 / math.log(place + 2) for place in range(50_000)]
    thin, values = thinned(x, y, log_x=True)
    assert len(thin) <= 1_000
    assert (thin[0], thin[-1]) == (1, 50_000)
    assert (values[0], values[-1]) == (y[0], y[-1])
    assert thin[:40] == list(range(1, 41))  # there the axis is wide
    gaps = [math.log(later / earlier) for earlier, later in pairwise(thin[40:])]
    assert max(gaps) < 0.05
    assert thinned([0, 1, 2], [5.0, 6.0, 7.0], log_x=True) == ([1, 2], [6.0, 7.0])
    assert len(thinned([3.0] * 5_000, [1.0] * 5_000)[0]) <= 1_000


def test_what_a_logarithm_cannot_show_is_left_out():
    assert thinned([1, 2, 3, 4], [0.0, 1.0, -1.0, math.inf], above=0) == ([2], [1.0])
    assert thinned([], []) == ([], [])


def test_there_is_a_dash_a_marker_and_a_variable_for_each_colour():
    assert len(SERIES) == len(set(SERIES)) == len(MARKERS) == len(DASHES)
    assert {*SERIES} <= set(VARIABLES)
    assert {value for value in STYLE.values() if str(value).startswith("#")} <= set(VARIABLES)
