"""What all pictures of Mini-GPT share: colours, the look of axes, and how a file is written.

Not here: what is drawn (training/picture.py, evaluation/picture.py, report/).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from minigpt.atomic import replacing

# Of the Okabe-Ito palette: told apart with any kind of colour vision (Okabe and Ito 2008).
BLUE, VERMILLION, SKY, FAINT = "#0072B2", "#D55E00", "#9ecae1", "#888888"


def new_figure(width: float, height: float, **settings: Any) -> Any:
    """Returns an empty figure of so many inches, whose parts make room for each other.

    The object interface: pyplot would choose a window system, and keep every figure alive.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", **settings)


def tidy(axes: Any, which: str = "major") -> None:
    """Gives axes the common look: a faint grid, no frame above and to the right."""
    axes.grid(alpha=0.25, which=which)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, file: Path) -> None:
    """Writes a picture in the format of its ending, and replaces the file when the picture is whole."""
    with replacing(file) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a run may be named in letters that the font has not
        figure.savefig(temporary, format=file.suffix.removeprefix("."))
