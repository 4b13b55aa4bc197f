"""A picture of matplotlib's as SVG within a page: it takes the page's colours, and its names meet no other picture's.

One picture serves light and dark: it is drawn in stand-in colours, which become the page's variables. Words stay
words. Not here: what is drawn (plots.py), which colours there are (style.css).
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unicodedata import east_asian_width
from xml.etree import ElementTree

from minigpt.plotting import new_figure
from minigpt.report.html import Html, element, shown

INK, MUTED, GRID, PAPER = "#000011", "#000012", "#000013", "#000014"
SERIES = ("#000021", "#000022", "#000023", "#000024", "#000025", "#000026")
"""Stand-ins for the page's colours: words and lines; baselines; the grid; what is behind; and things told apart."""

VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)
}
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Beside the colours, so that nothing depends on them alone."""

LETTER, BESIDE, ROW = 5.2, 42, 0.16
"""A letter of a legend takes so many points in a browser's font, line and gap beside each name so many; and a row so
many inches."""

MOST_POINTS = 1000
SPACE = "{http://www.w3.org/2000/svg}"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "both",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}


class Drawing:
    """An empty picture, and what becomes of it.

    Attributes:
        figure: matplotlib's.
        html: the picture as a part of the page, once it is drawn.
    """

    def __init__(self, figure: Any) -> None:
        self.figure = figure
        self.html = Html("")


@contextmanager
def drawing(
    key: str, title: str, description: str, hint: str = "", *, width: float = 6.4, height: float = 3.7
) -> Iterator[Drawing]:
    """Yields a picture to draw on; behind the block its `html` is there, with title and hint above it.

    Args:
        key: its name in the page, of letters, digits and hyphens, no other picture's.
        title: what it is.
        description: what it shows, for those who cannot see it.
        hint: how to read it, for all.
        width: in units of 72 points.
        height: likewise.
    """
    import matplotlib

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's font may have letters that this one has not
        made = Drawing(new_figure(width, height))
        yield made
        buffer = io.StringIO()
        made.figure.savefig(buffer, format="svg", metadata={"Date": None})
    caption = element("figcaption", element("b", title), [element("br"), hint] if hint else None)
    made.html = element("figure", caption, _inline(buffer.getvalue(), key, title, description))


def legend(axes: Any) -> None:
    """Names what is drawn, above the axes, in as many columns as the picture is sure to have room for."""
    figure, (handles, labels) = axes.figure, axes.get_legend_handles_labels()
    widest = max((LETTER * sum(1 + (east_asian_width(c) in "WF") for c in label) for label in labels), default=0)
    columns = max(1, int(figure.get_figwidth() * 72 // (widest + BESIDE)))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + ROW * max(0, rows - 2))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=8.5, borderaxespad=0.2)


def engineering() -> Any:
    """Returns what writes a tick as `10 k` or `2 M`."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep=" ")


def thinned(
    x: Sequence[float],
    y: Sequence[float],
    *,
    above: float = -math.inf,
    log_x: bool = False,
    most: int = MOST_POINTS,
) -> tuple[list[float], list[float]]:
    """Returns the points of a curve that are numbers, at most `most` of them.

    Of each stretch of a long curve, all as wide in the picture, the lowest and the highest point stay, so that no peak
    is lost; and the first and the last of all, so that it ends where it ends.

    Args:
        x, y: the points.
        above: y of those that are left out, and lower ones; 0 for a logarithmic axis.
        log_x: whether the horizontal axis is logarithmic; points that it cannot show are left out.
        most: how many.
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b) and b > above]
    if log_x:
        points = [point for point in points if point[0] > 0]
    if len(points) > most:
        across = [math.log(a) if log_x else a for a, _ in points]
        left, right = min(across), max(across)
        count = most // 2 - 1
        kept = {0, len(points) - 1}
        stretches: dict[int, list[int]] = {}
        for place, where in enumerate(across):
            number = int((where - left) / (right - left) * count) if right > left else 0
            stretches.setdefault(min(number, count - 1), []).append(place)
        for places in stretches.values():
            kept |= {end(places, key=lambda place: points[place][1]) for end in (min, max)}
        points = [points[place] for place in sorted(kept)]
    return [a for a, _ in points], [b for _, b in points]


def _inline(picture: str, key: str, title: str, description: str) -> Html:
    """Returns matplotlib's file as an element of a page: no style for all, no size of its own, no foreign names."""
    root = ElementTree.fromstring(shown(picture))
    for child in list(root):
        if child.tag != f"{SPACE}g" and not child.findall(f"{SPACE}clipPath"):
            root.remove(child)  # metadata, and a style that would hold for the whole page
    used = set(re.findall(r"#([\w-]+)\b", " ".join(value for part in root.iter() for value in part.attrib.values())))
    for part in root.iter():
        part.tag, part.tail = part.tag.removeprefix(SPACE), None
        if part.tag != "text":
            part.text = None
        part.attrib = {
            new: value for old, text in part.attrib.items() for new, value in _attribute(old, text, key, used)
        }
    for tag, words in (("desc", description), ("title", title)):
        child = ElementTree.Element(tag, {"id": f"{key}-{tag}"})
        child.text = shown(words)
        root.insert(0, child)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-labelledby": f"{key}-title {key}-desc"}
    return Html(ElementTree.tostring(root, encoding="unicode"))


def _attribute(name: str, text: str, key: str, used: set[str]) -> Iterator[tuple[str, str]]:
    """Yields an attribute as it stands in the page, or nothing."""
    name = name.rpartition("}")[2]
    if name == "id":
        if text in used:
            yield name, f"{key}-{text}"
    elif name == "style":
        parts = [part.strip() for part in text.split(";")]
        kept = "; ".join(part for part in parts if part and not part.startswith("font-family"))
        kept = re.sub(r"#0000[12]\d\b", lambda found: f"var(--{VARIABLES[found[0]]})", kept)
        yield name, re.sub(r"url\(#", f"url(#{key}-", kept)
    elif name in ("href", "clip-path"):
        yield name, text.replace("#", f"#{key}-", 1)
    elif name in ("d", "x", "y", "width", "height", "transform", "points"):
        yield name, re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", text)
    else:
        yield name, text
