"""The figures of an evaluation as a picture: loss by context, loss by token frequency, and calibration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from minigpt.errors import ConfigError
from minigpt.evaluation.evaluate import Evaluation
from minigpt.evaluation.metrics import Bucket, EvalMetrics
from minigpt.files import is_dir, why
from minigpt.plotting import BLUE, FAINT, VERMILLION, new_figure, save, tidy
from minigpt.text_utils import escape_control, pluralize

SUFFIXES = (".png", ".svg", ".pdf")


def check_picture(file: Path) -> None:
    """Raises ConfigError if no picture can be written to this path: before the long work, not after it."""
    if file.suffix.lower() not in SUFFIXES:
        raise ConfigError("The picture's kind is unknown", got=file, remedy=f"End its name in {', '.join(SUFFIXES)}.")
    if not is_dir(file.absolute().parent):
        raise ConfigError("The picture's folder is not there", got=file.absolute().parent, remedy="Make it first.")


def draw_evaluation(evaluation: Evaluation, file: Path) -> None:
    """Draws three diagrams side by side, and replaces the file when the picture is whole."""
    found = evaluation.metrics
    figure = new_figure(15, 4.6, dpi=120, facecolor="white")
    of = f"{pluralize(found.tokens, 'token')}, loss {found.loss.value:.4f}"
    title = f"{Path(evaluation.run).name}, step {evaluation.step:,}: {of}"
    figure.suptitle(escape_control(title), parse_math=False)
    context, frequency, calibration = figure.subplots(1, 3)
    _losses(context, found.by_context, "tokens of context before the predicted one")
    if found.by_frequency:
        _losses(frequency, found.by_frequency, "times the token occurs in training")
    else:
        frequency.text(0.5, 0.5, "the training data is not at hand", ha="center", transform=frequency.transAxes)
        frequency.set_axis_off()
    _reliability(calibration, found)
    for axes in (context, frequency, calibration):
        tidy(axes)
    try:
        save(figure, file)
    except OSError as error:
        remedy = "Name another file with --plot."
        raise ConfigError("The picture cannot be written", got=f"{file}: {why(error)}", remedy=remedy) from error


def _losses(axes: Any, groups: tuple[Bucket, ...], label: str) -> None:
    """Draws the loss of each group, beside the bigram model's."""
    places = list(range(len(groups)))
    losses, bigrams = [group.loss for group in groups], [group.bigram for group in groups]
    axes.plot(places, losses, "o-", color=BLUE, label="this model")
    if None not in bigrams:
        axes.plot(places, bigrams, "s--", color=VERMILLION, label="bigram")
    total = sum(group.tokens for group in groups)
    names = ["{}\n({:.1%})".format(group.name.replace(" - ", " -\n"), group.tokens / total) for group in groups]
    axes.set_xticks(places, names, fontsize=6.5)
    axes.set_xlabel(f"{label} (share of all tokens)")
    axes.set_ylabel("loss, nats per token")
    axes.set_ylim(0, 1.2 * max(value for value in (*losses, *bigrams) if value is not None))
    axes.legend(frameon=False, loc="upper right", ncols=2)


def _reliability(axes: Any, found: EvalMetrics) -> None:
    """Draws how often the first guess is right against how sure the model was; the areas are the shares of tokens."""
    bins = found.calibration
    axes.plot([0, 1], [0, 1], "--", color=FAINT, lw=1, label="as sure as it is right")
    areas = [20 + 1_000 * part.tokens / found.tokens for part in bins]
    points = [part.confidence for part in bins], [part.accuracy for part in bins]
    axes.plot(*points, color=BLUE, lw=1)
    axes.scatter(*points, s=[math.ceil(area) for area in areas], color=BLUE, alpha=0.7, label="this model")
    axes.set_xlabel("probability of the first guess")
    axes.set_ylabel("share of first guesses that are right")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_title(f"calibration error {found.calibration_error:.1%}", fontsize=10)
    axes.legend(frameon=False, loc="upper left")
