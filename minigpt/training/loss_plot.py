"""training_metrics.png: the loss and perplexity curves of a run, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt.plotting import BLUE, SKY, VERMILLION, new_figure, save, tidy
from minigpt.records import read_metrics
from minigpt.text_utils import escape_control


def draw_curves(metrics_file: Path, picture_file: Path, title: str) -> None:
    """Draws loss (left) and perplexity (right) of training and validation against the epoch.

    The faint line is the training loss as it went by; the points are those of the epoch table.
    """
    steps = read_metrics(metrics_file, "step")
    validations = read_metrics(metrics_file, "validation")

    from matplotlib.ticker import LogLocator

    figure = new_figure(11, 4.2, dpi=120, facecolor="white")
    figure.suptitle(escape_control(title), parse_math=False)
    loss_axes, perplexity_axes = figure.subplots(1, 2)
    if steps:
        loss_axes.plot(
            _column(steps, "epoch"),
            _column(steps, "loss"),
            color=SKY,
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
        tidy(axes, "both")
        axes.legend(frameon=False)
    save(figure, picture_file)


def _curves(axes: Any, validations: Sequence[dict[str, Any]], train: str, validation: str) -> None:
    epochs = _column(validations, "epoch")
    axes.plot(
        epochs,
        _column(validations, train),
        "o-",
        color=BLUE,
        ms=4,
        label="training, mean since the point before",
    )
    axes.plot(epochs, _column(validations, validation), "s-", color=VERMILLION, ms=4, label="validation")


def _column(records: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [float("nan") if record[name] is None else record[name] for record in records]


def _narrow(validations: Sequence[dict[str, Any]]) -> bool:
    """Whether the perplexities span less than a factor of four, so that the minor ticks need their numbers."""
    values = [v for name in ("train_perplexity", "val_perplexity") for v in _column(validations, name) if v == v]
    return bool(values) and max(values) < 4 * min(values)
