"""Plots of an evaluation, for `minigpt evaluate` and the report: loss by context, frequency and document; calibration.

Each `draw_*` function takes the axes and the metrics of one run or of several, by the runs' names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt.errors import ConfigError
from minigpt.evaluation.evaluate import Evaluation
from minigpt.evaluation.metrics import Bucket, EvalMetrics
from minigpt.files import is_dir, why
from minigpt.plotting import MARKERS, MUTED, SERIES, engineering, new_figure, plot_style, save, series_style
from minigpt.text_utils import pluralize

SUFFIXES = (".png", ".svg", ".pdf")

MAX_DOCUMENTS = 1_000
"""Points of a run; of more documents, that many are drawn, evenly spaced by their loss."""

Runs = Sequence[tuple[str, EvalMetrics]]


def check_picture(file: Path) -> None:
    """Raises ConfigError if no plot can be written to this path: before the long work, not after it."""
    if file.suffix.lower() not in SUFFIXES:
        remedy = f"Use a name that ends in {', '.join(SUFFIXES)}."
        raise ConfigError("Unknown format for the plot", got=file, remedy=remedy)
    if not is_dir(file.absolute().parent):
        remedy = "Create it, or name another file."
        raise ConfigError("The plot's folder does not exist", got=file.absolute().parent, remedy=remedy)


def draw_evaluation(evaluation: Evaluation, file: Path) -> None:
    """Draws loss by context, loss by frequency and calibration next to each other; replaces the file by a whole one."""
    found = evaluation.metrics
    runs = [("this model", found)]
    with plot_style():
        figure = new_figure(15, 4.6, dpi=120)
        size = f"{pluralize(found.tokens, 'token')}, loss {found.loss.value:.4f}"
        figure.suptitle(f"{Path(evaluation.run).name}, step {evaluation.step:,}: {size}")
        context, frequency, calibration = figure.subplots(1, 3)
        draw_by_context(context, runs)
        draw_calibration(calibration, runs)
        calibration.set_title(f"calibration error {found.calibration_error:.1%}")
        for axes in (context, calibration):
            axes.legend()
        if found.by_frequency:
            draw_by_frequency(frequency, runs)
            frequency.legend()
        else:
            missing = "the training data is not available"
            frequency.text(0.5, 0.5, missing, ha="center", transform=frequency.transAxes)
            frequency.set_axis_off()
        try:
            save(figure, file)
        except OSError as error:
            remedy = "Name another file with --plot."
            raise ConfigError("Cannot write the plot", got=f"{file}: {why(error)}", remedy=remedy) from error


def draw_by_context(axes: Any, runs: Runs) -> None:
    """Draws the loss by the number of tokens before the predicted one."""
    _draw_buckets(axes, [(label, found.by_context) for label, found in runs], last=True)
    axes.set_xlabel("tokens of context, up to")


def draw_by_frequency(axes: Any, runs: Runs) -> None:
    """Draws the loss by how often the token occurs in training; runs without these metrics are skipped."""
    _draw_buckets(axes, [(label, found.by_frequency) for label, found in runs if found.by_frequency], last=False)
    axes.set_xlabel("count of the token in training, from")


def draw_calibration(axes: Any, runs: Runs) -> None:
    """Draws how often the first guess is right against the probability it was given."""
    axes.plot([0, 100], [0, 100], ":", color=MUTED, lw=1, label="perfectly calibrated")
    for number, (label, found) in enumerate(runs):
        x, y = [100 * one.confidence for one in found.calibration], [100 * one.accuracy for one in found.calibration]
        axes.plot(x, y, **{**series_style(number), "marker": None}, lw=1)
        areas = [8 + 500 * one.tokens / found.tokens for one in found.calibration]
        _scatter(axes, x, y, number, label, s=areas, alpha=0.75)
    axes.set_xlabel("probability of the first guess, % (areas: share of tokens)")
    axes.set_ylabel("first guesses that are right, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)


def draw_by_document(axes: Any, runs: Runs) -> None:
    """Draws the loss of each document against its length."""
    for number, (label, found) in enumerate(runs):
        documents = _evenly_spaced(found.by_document)
        x, y = [one.tokens for one in documents], [one.loss for one in documents]
        _scatter(axes, x, y, number, label, s=16, alpha=0.7)
    if len(runs) == 1:
        axes.axhline(runs[0][1].loss.value, color=MUTED, linestyle=":", lw=1, label="all tokens")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(engineering())
    axes.set_xlabel("tokens in the document (log scale)")
    axes.set_ylabel("loss, nats per token")


def _scatter(axes: Any, x: Sequence[float], y: Sequence[float], number: int, label: str, **settings: Any) -> None:
    number %= len(SERIES)
    axes.scatter(x, y, color=SERIES[number], marker=MARKERS[number], lw=0, label=label, **settings)


def _draw_buckets(axes: Any, runs: Sequence[tuple[str, Sequence[Bucket]]], *, last: bool) -> None:
    """Draws the loss of each bucket, for a single run also the bigram's. Ticks: their first or last numbers."""
    names = sorted({bucket.name for _, buckets in runs for bucket in buckets}, key=_numbers)
    curves = [(label, [(bucket.name, bucket.loss) for bucket in buckets]) for label, buckets in runs]
    bigram = [(bucket.name, bucket.bigram) for bucket in runs[0][1] if bucket.bigram is not None]
    if bigram and len(runs) == 1:
        curves.append(("bigram", bigram))
    for number, (label, points) in enumerate(curves):
        x, y = [names.index(name) for name, _ in points], [loss for _, loss in points]
        axes.plot(x, y, **series_style(number), label=label)
    axes.set_xticks(range(len(names)), [_tick(_numbers(name)[-1 if last else 0]) for name in names])
    axes.set_ylabel("loss, nats per token")


def _evenly_spaced(documents: Sequence[Bucket]) -> Sequence[Bucket]:
    """Returns at most MAX_DOCUMENTS, evenly spaced by their loss, with the easiest and the hardest."""
    if len(documents) <= MAX_DOCUMENTS:
        return documents
    ranked = sorted(documents, key=lambda one: one.loss)
    return [ranked[round(index * (len(ranked) - 1) / (MAX_DOCUMENTS - 1))] for index in range(MAX_DOCUMENTS)]


def _numbers(name: str) -> list[int]:
    """Returns the numbers in a bucket's name, `10 - 99`; `never` is 0."""
    return [int(part.replace(",", "")) for part in re.findall(r"[\d,]+", name)] or [0]


def _tick(bound: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if bound >= size and bound % size == 0:
            return f"{bound // size} {letter}"
    return f"{bound:,}" if bound else "never"
