"""Plots within a page: readable by machines, in the page's colours, without names that clash."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from minigpt import plotting
from minigpt.plotting import SERIES, legend_above, new_figure, plot_style
from minigpt.report.page import render_template
from minigpt.report.svg import VARIABLES, Plot, render


def plot(key: str, label: str = "loss", points: int = 20) -> Plot:
    def draw(axes):
        axes.plot(range(points), [math.sin(x) for x in range(points)], "o-", color=SERIES[0], label=label)
        axes.set_xlabel(label)

    return render(key, "A <title>", "What & how", draw, "Read it so")


def figure(made: Plot) -> str:
    return render_template("training.html", s={"plots": [made], "small_plots": []}, labels=["a"])


def parsed(made: Plot) -> ElementTree.Element:
    return ElementTree.fromstring(figure(made).replace("<br>", "<br/>")).find("figure")


def test_a_plot_is_whole_and_has_a_title_and_a_description():
    found = parsed(plot("one"))
    svg = found.find("svg")
    assert svg.get("role") == "img"
    names = {part.get("id"): part.text for part in svg if part.get("id")}
    assert [names[key] for key in svg.get("aria-labelledby").split()] == ["A <title>", "What & how"]
    assert "".join(found.find("figcaption").itertext()) == "A <title>Read it so"


def test_colours_are_the_pages_own_and_no_style_leaks():
    text = plot("one").svg
    assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r"(url\(|href=\")#\w+", "", text))
    assert "var(--series-1)" in text
    assert "var(--ink)" in text
    for unwanted in ("<style", "<metadata", "<svg", "font-family", "xlink"):
        assert unwanted not in text


def test_the_colours_of_files_are_those_of_the_light_page():
    css = render_template("style.css")
    light = css.partition("@media")[0]
    for color, name in VARIABLES.items():
        assert f"--{name}: {color};" in light
    assert len(SERIES) == len(set(SERIES)) == len(plotting.MARKERS) == len(plotting.DASHES)
    assert {value for value in plotting.STYLE.values() if str(value).startswith("#")} <= set(VARIABLES)


def test_two_plots_share_no_name_and_each_finds_its_own():
    names = []
    for key in ("one", "two"):
        text = plot(key).svg
        ids = re.findall(r'\bid="([^"]+)"', text)
        used = re.findall(r'(?:url\(|href=")#([\w-]+)', text)
        assert used
        assert set(used) == set(ids)
        names += ids
    assert len(names) == len(set(names))


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize(("width", "behind"), [(6.4, ", validation"), (4.4, "")])
@pytest.mark.parametrize("name", ["r", "shakespeare-laptop-lr-0.001", "M" * 28, "字" * 28])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_legend_stays_within_its_plot_and_leaves_room_for_the_curves(width, behind, name, count):
    with plot_style():
        made = new_figure(width, 2.7)
        axes = made.subplots()
        for number in range(count):
            axes.plot([0, 1], [number, 2], label=f"{name}{behind}")
        legend_above(axes)
        made.draw_without_rendering()
    [box] = [each.get_window_extent() for each in made.legends]
    assert box.x0 >= 0
    assert box.x1 <= made.bbox.x1
    assert box.y1 <= made.bbox.y1
    curves = axes.get_window_extent()
    assert curves.width > 0.6 * made.bbox.width
    assert curves.height > 0.35 * made.bbox.height
    assert curves.y1 < box.y0


def test_the_same_plot_is_drawn_twice():
    assert plot("one") == plot("one")


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("</svg><script>alert(1)</script>", "</svg><script>alert(1)</script>"),
        ("$x_1$ \\frac", "$x_1$ \\frac"),
        ("a\0b\x0b", "a␀b␋"),
        ("ไทย 👋 שלום", "ไทย 👋 שלום"),
        ('" id="x #0072b2 1.23456', '" id="x #0072b2 1.23456'),
    ],
)
def test_text_in_a_plot_stays_text(label, shown):
    assert shown in [part.text for part in parsed(plot("one", label)).iter("text")]
