"""What all plots share: colours, the look of axes, legends, long curves, and how a file is written.

Not here: what is drawn (training/loss_plot.py, evaluation/eval_plots.py, report/plots.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import numpy as np

from minigpt.atomic import replacing
from minigpt.text_utils import escape_control

INK, MUTED, GRID = "#1c1f24", "#667080", "#dfe2e6"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b0548a", "#8a6d00", "#444a54")
"""Distinguishable with any kind of colour vision (after Okabe and Ito 2008). report/templates/style.css has the same
colours as variables, and lighter ones for dark mode."""

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
"""One of each for every colour, so that nothing depends on colour alone."""

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

CHARACTER_POINTS, HANDLE_POINTS, ROW_INCHES = 5.2, 42, 0.16
"""Room that a legend needs in a browser's font: a character, the line before each label, and a row."""

MAX_POINTS = 1000


@contextmanager
def plot_style(**settings: Any) -> Iterator[None]:
    """Within the block, everything that matplotlib draws and writes has the common look; `settings` add to it."""
    import matplotlib

    style: dict[Any, Any] = {**STYLE, **settings}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a run may be named in letters that the font lacks
        yield


def new_figure(width: float, height: float, **settings: Any) -> Any:
    """Returns an empty figure of that size in inches, whose parts make room for each other.

    The object interface: pyplot would choose a window system, and keep every figure alive.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", **settings)


def write_figure(figure: Any, target: Any, form: str, **settings: Any) -> None:
    """Writes a figure to a path or stream as png, svg or pdf. Control characters in its text become visible."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(escape_control(text.get_text()))
    figure.savefig(target, format=form, **settings)


def save(figure: Any, file: Path) -> None:
    """Writes a figure on white, in the format of the file's ending; an older file is replaced by a whole one."""
    with replacing(file) as temporary:
        write_figure(figure, temporary, file.suffix.removeprefix("."), facecolor="white")


def series_style(number: int) -> dict[str, Any]:
    """Returns the colour, dashes and marker of the curve with this number, from 0."""
    number %= len(SERIES)
    return {"color": SERIES[number], "linestyle": DASHES[number], "marker": MARKERS[number]}


def legend_above(axes: Any) -> None:
    """Adds a legend above the axes of a figure's only plot, in as many columns as surely fit."""
    figure, (handles, labels) = axes.figure, axes.get_legend_handles_labels()
    cells = (sum(1 + (east_asian_width(c) in "WF") for c in escape_control(label)) for label in labels)
    widest = CHARACTER_POINTS * max(cells, default=0)
    columns = max(1, int(figure.get_figwidth() * 72 // (widest + HANDLE_POINTS)))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + ROW_INCHES * max(0, rows - 2))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=8.5, borderaxespad=0.2)


def engineering() -> Any:
    """Returns a formatter that writes a tick as `10 k` or `2 M`."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep=" ")


def log_y(axes: Any) -> None:
    """Makes the vertical axis logarithmic, with round numbers at its ticks."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high / low < 8:
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter("{x:,g}")


def downsample(
    x: Sequence[float], y: Sequence[float], *, log_x: bool = False, log_y: bool = False, limit: int = MAX_POINTS
) -> tuple[list[float], list[float]]:
    """Returns the points of a curve that can be drawn, at most `limit` of them.

    A long curve is cut into stretches of equal width on the plot. The lowest and the highest point of each stay, so
    that no peak is lost, and so do the first and the last point of all.

    Args:
        x, y: the points; those that are not finite are dropped.
        log_x, log_y: whether an axis is logarithmic: points at or below 0 are dropped.
        limit: how many points.
    """
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    drawn = np.isfinite(across) & np.isfinite(up) & ((across > 0) | (not log_x)) & ((up > 0) | (not log_y))
    across, up = across[drawn], up[drawn]
    if len(across) > limit:
        position = np.log(across) if log_x else across
        left, right = position.min(), position.max()
        count = limit // 2 - 1
        stretch = ((position - left) / max(right - left, 1e-300) * count).astype(np.int64).clip(max=count - 1)
        order = np.lexsort((up, stretch))  # by stretch, and within each by value
        ends = np.flatnonzero(np.diff(stretch[order])) + 1
        kept = np.unique(np.concatenate([order[[0, *ends]], order[[*(ends - 1), -1]], [0, len(across) - 1]]))
        across, up = across[kept], up[kept]
    return across.tolist(), up.tolist()
