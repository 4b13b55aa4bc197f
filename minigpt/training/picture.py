"""training_metrics.png: the loss and perplexity curves of a run, for people."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt.metrics import read_metrics

# Blue and orange of the Okabe-Ito palette: told apart with any kind of colour vision.
TRAIN, VALIDATION, FAINT = "#0072B2", "#D55E00", "#9ecae1"


def draw_curves(metrics_file: Path, picture_file: Path, title: str) -> None:
    """Draws loss (left) and perplexity (right) of training and validation against the epoch.

    The faint line is the training loss as it went by; the points are those of the epoch table.
    """
    steps = read_metrics(metrics_file, "step")
    validations = read_metrics(metrics_file, "validation")

    # The object interface: pyplot would choose a window system, and keep every figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False)
    loss_axes, perplexity_axes = figure.subplots(1, 2)
    if steps:
        loss_axes.plot(
            _column(steps, "epoch"),
            _column(steps, "loss"),
            color=FAINT,
            lw=1,
            label="training, as it went by",
        )
    _curves(loss_axes, validations, "train_loss", "val_loss")
    _curves(perplexity_axes, validations, "train_perplexity", "val_perplexity")
    loss_axes.set_ylabel("cross-entropy, nats per token")
    perplexity_axes.set_ylabel("perplexity (log scale)")
    perplexity_axes.set_yscale("log")
    perplexity_axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    perplexity_axes.yaxis.set_major_formatter("{x:,g}")
    perplexity_axes.yaxis.set_minor_formatter("{x:,g}" if _narrow(validations) else "")
    for axes in (loss_axes, perplexity_axes):
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25, which="both")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    temporary = picture_file.with_name(f".{picture_file.name}.partial")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a run may be named in letters that the font has not
        figure.savefig(temporary, format="png")
    temporary.replace(picture_file)


def _curves(axes: Any, validations: Sequence[dict[str, Any]], train: str, validation: str) -> None:
    epochs = _column(validations, "epoch")
    axes.plot(
        epochs,
        _column(validations, train),
        "o-",
        color=TRAIN,
        ms=4,
        label="training, mean since the point before",
    )
    axes.plot(epochs, _column(validations, validation), "s-", color=VALIDATION, ms=4, label="validation")


def _column(records: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [float("nan") if record[name] is None else record[name] for record in records]


def _narrow(validations: Sequence[dict[str, Any]]) -> bool:
    """Whether the perplexities span less than a factor of four, so that the minor ticks need their numbers."""
    values = [v for name in ("train_perplexity", "val_perplexity") for v in _column(validations, name) if v == v]
    return bool(values) and max(values) < 4 * min(values)
