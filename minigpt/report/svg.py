"""A matplotlib plot as SVG within a page: in the page's colours, for light and dark, with text that stays text.

Not here: what is drawn (plots.py), the values of the colours (style.css).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minigpt.plotting import GRID, INK, MUTED, SERIES, legend_above, new_figure, plot_style, write_figure

VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {
    color: f"series-{number}" for number, color in enumerate(SERIES, start=1)
}
"""The CSS variable of each colour."""

_COLOR = re.compile("|".join(VARIABLES))
_WRAPPING = re.compile(r"^.*?<svg\b|\s*<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>", re.S)
_DIGITS = re.compile(r"\d+\.\d{3,}")


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Attributes:
        key: its id in the page, of letters, digits and hyphens.
        title: what it shows.
        hint: how to read it.
        description: its content in words, for those who cannot see it.
        view_box: its size, as SVG writes it.
        svg: the elements within its `<svg>`; the only markup that the page takes as it is.
    """

    key: str
    title: str
    hint: str
    description: str
    view_box: str
    svg: str


def render(
    key: str,
    title: str,
    description: str,
    draw: Callable[[Any], None],
    hint: str = "",
    *,
    legend: bool = True,
    width: float = 6.4,
    height: float = 3.7,
) -> Plot:
    """Returns the plot that `draw` makes on the axes it is given; width and height are in units of 72 points."""
    stream = io.StringIO()
    with plot_style(**{"svg.hashsalt": key}):  # the ids of clip paths and markers are hashes: no two plots share any
        figure = new_figure(width, height)
        axes = figure.subplots()
        draw(axes)
        if legend:
            legend_above(axes)
        write_figure(figure, stream, "svg", metadata={"Date": None})
    drawn = stream.getvalue()
    opening = re.search(r"<svg\b[^>]*>", drawn)
    assert opening is not None
    view_box = re.search(r'viewBox="([\d. -]+)"', opening[0])
    content = _WRAPPING.sub("", drawn[opening.end() : drawn.rindex("</svg>")])
    svg = re.sub(r"<[^>]+>", _tidy, re.sub(r">\s+<", "><", content))  # matplotlib escapes > in text and attributes
    return Plot(key, title, hint, description, view_box[1] if view_box else "0 0 1 1", svg)


def _tidy(found: re.Match[str]) -> str:
    """Returns a tag with the page's font and colours, without names that nothing refers to, and with short numbers."""
    tag = found[0].replace("xlink:href=", "href=").replace("\n", " ")
    if tag.startswith("<g "):
        tag = re.sub(r' id="[^"]*"', "", tag)
    tag = re.sub(r"font-family: [^;\"]*(; )?", "", tag)
    tag = _COLOR.sub(lambda color: f"var(--{VARIABLES[color[0]]})", tag)
    return _DIGITS.sub(lambda digits: f"{float(digits[0]):.2f}", tag)
