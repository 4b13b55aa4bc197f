"""The curves of loss and perplexity: on `training_metrics.png`, and in the report of one run or of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minigpt.plotting import (
    INK,
    MARKERS,
    MUTED,
    SERIES,
    downsample,
    engineering,
    log_y,
    new_figure,
    plot_style,
    save,
    series_style,
)
from minigpt.records import column, read_metrics

XAxis = Literal["epoch", "tokens", "seconds"]
Records = Sequence[Mapping[str, Any]]

MAX_LOSS = 50.0
"""Above it, the axis of perplexity is omitted."""

LONG_SECONDS = 7_200
"""A longer run is drawn in hours, not minutes."""

STEP_LABEL, MEAN_LABEL = "training, mean of a few steps", "training, mean since the last validation"

SECONDS_BETWEEN_PLOTS = 10.0
"""A plot takes half a second; it is drawn no more often than this, and at the end."""


@dataclass(frozen=True)
class Curves:
    """What is drawn of one run.

    Attributes:
        label: its name in the legend.
        steps, validations: its `step` and `validation` records.
        bits_per_nat: draws the validation in bits per byte, and no training loss; None for nats per token.
        baselines: losses drawn as labelled lines.
    """

    label: str
    steps: Records
    validations: Records
    bits_per_nat: float | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)


def draw_loss(axes: Any, runs: Sequence[Curves], by: XAxis = "epoch") -> None:
    """Draws the loss of one run (training and validation in two colours) or of several (a colour each).

    A faint line is the training loss of single steps.
    """
    seconds = max((value for run in runs for value in column(run.steps, "seconds") if math.isfinite(value)), default=0)
    label, unit = {
        "epoch": ("epoch", 1),
        "tokens": ("tokens seen in training (log scale)", 1),
        "seconds": ("hours of training", 3_600) if seconds > LONG_SECONDS else ("minutes of training", 60),
    }[by]
    for number, run in enumerate(runs):
        _draw_losses(axes, run, number, by, unit, alone=len(runs) == 1)
    if by == "tokens":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(engineering())
    elif by == "epoch":
        axes.set_xlim(left=0)
    for name, loss in runs[0].baselines.items() if len(runs) == 1 else ():
        axes.axhline(loss, color=MUTED, linestyle=":", lw=1)
        where: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(name, (0, loss), xytext=(3, 2), color=MUTED, fontsize=8, **where)
    axes.set_xlabel(label)
    in_nats = all(run.bits_per_nat is None for run in runs)
    axes.set_ylabel("loss, nats per token" if in_nats else "bits per byte of the validation text")
    if in_nats and axes.get_ylim()[1] < MAX_LOSS:
        _add_perplexity_axis(axes)


def draw_perplexity(axes: Any, runs: Sequence[Curves]) -> None:
    """Draws the perplexity at each validation against the epoch; of a single run also that of training."""
    for number, run in enumerate(runs):
        curves = [("val_perplexity", run.label, series_style(number))]
        if len(runs) == 1:
            curves = [
                ("train_perplexity", MEAN_LABEL, {**series_style(0), "linestyle": "--"}),
                ("val_perplexity", "validation", {**series_style(1), "linestyle": "-"}),
            ]
        for name, label, style in curves:
            points = downsample(column(run.validations, "epoch"), column(run.validations, name), log_y=True)
            axes.plot(*points, **style, label=label)
    log_y(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("perplexity (log scale)")


def plot_losses(metrics_file: Path, plot_file: Path, title: str) -> None:
    """Draws loss (left) and perplexity (right) of a run against the epoch, and replaces the file by a whole one."""
    run = Curves("", read_metrics(metrics_file, "step"), read_metrics(metrics_file, "validation"))
    with plot_style():
        figure = new_figure(11, 4.2, dpi=120)
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        draw_loss(left, [run])
        draw_perplexity(right, [run])
        for axes in (left, right):
            axes.legend()
        save(figure, plot_file)


def _draw_losses(axes: Any, run: Curves, number: int, by: XAxis, unit: int, *, alone: bool) -> None:
    train, val = (0, 1) if alone else (number, number)
    color = SERIES[train % len(SERIES)]

    def points(records: Records, name: str, scale: float = 1) -> tuple[list[float], list[float]]:
        x, y = column(records, by), column(records, name)
        return downsample([value / unit for value in x], [value * scale for value in y], log_x=by == "tokens")

    if run.bits_per_nat is None:  # else the tokens are not those of the other runs
        label = STEP_LABEL if alone else None
        axes.plot(*points(run.steps, "loss"), color=color, alpha=0.45, lw=1, label=label)
    if alone:
        means = points(run.validations, "train_loss")
        axes.plot(*means, "--", color=color, marker=MARKERS[0], label=MEAN_LABEL)
    style = {**series_style(val), "linestyle": "-"} if alone else series_style(val)
    losses = points(run.validations, "val_loss", 1 if run.bits_per_nat is None else run.bits_per_nat)
    axes.plot(*losses, **style, label="validation" if alone else f"{run.label}, validation")


def _add_perplexity_axis(axes: Any) -> None:
    """Adds perplexity, exp(loss), on the right."""
    import numpy as np
    from matplotlib.ticker import FixedLocator, NullLocator

    right = axes.secondary_yaxis("right", functions=(np.exp, lambda value: np.log(np.maximum(value, 1e-30))))
    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high - low < 7 else (1,)
    ticks = [m * 10.0**power for power in range(22) for m in steps]
    right.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= math.log(tick) <= high]))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter("{x:,g}")
    right.set_ylabel("perplexity")
    right.set_color(INK)
