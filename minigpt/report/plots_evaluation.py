"""The figures of an evaluation, of one run or of several, as pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from minigpt.evaluation.metrics import Bucket, EvalMetrics
from minigpt.report.facts import RunFacts, one_tokenizer
from minigpt.report.html import Html
from minigpt.report.svg import DASHES, MARKERS, MUTED, SERIES, drawing, engineering, legend

BIGRAM = 1  # the colour of the bigram beside a single run

HINTS = {
    "context": "Loss by the number of tokens in sight: a falling line means that the model reads what stands before.",
    "frequency": "Loss by how often a token occurs in training: the rarest are the hardest to learn.",
    "calibration": "Below the dotted line it is surer than it is right.",
    "document": "Each point is a document of the validation text.",
}

MOST_DOCUMENTS = 1_000
"""Points of a run; of more documents, as many are drawn, evenly spaced by their loss."""

Measured = Sequence[tuple[str, EvalMetrics]]


def evaluation_plots(runs: Sequence[RunFacts]) -> list[Html]:
    """Loss by context, by token frequency and by document, and calibration; between tokenizers only this."""
    there = [run for run in runs if run.evaluation]
    found = [(run.label, run.evaluation.metrics) for run in there if run.evaluation]
    if not found or not one_tokenizer(there):
        return [_calibration(found)] if found else []
    made = [_by_context(found)]
    if any(figures.by_frequency for _, figures in found):
        made.append(_by_frequency(found))
    made.append(_calibration(found))
    if any(figures.documents > 1 for _, figures in found):
        made.append(_by_document(found))
    return made


def _by_context(found: Measured) -> Html:
    groups = [(label, figures.by_context) for label, figures in found]
    told = "; ".join(f"{label} from {g[0].loss:.3f} with {g[0].name} to {g[-1].loss:.3f}" for label, g in groups)
    with drawing("by-context", "Does it use what it sees?", f"{told} tokens in sight.", HINTS["context"]) as made:
        axes = made.figure.subplots()
        _groups(axes, groups, lambda name: _numbers(name)[-1])
        axes.set_xlabel("tokens in sight before the predicted one, up to")
    return made.html


def _by_frequency(found: Measured) -> Html:
    groups = [(label, figures.by_frequency) for label, figures in found if figures.by_frequency]
    told = "; ".join(f"{label} {g[0].loss:.2f} for the rarest to {g[-1].loss:.2f}" for label, g in groups)
    with drawing("by-frequency", "Has it learned the rare words?", f"{told}.", HINTS["frequency"]) as made:
        axes = made.figure.subplots()
        _groups(axes, groups, lambda name: _numbers(name)[0])
        axes.set_xlabel("times the token occurs in training, from")
    return made.html


def _groups(axes: Any, runs: Sequence[tuple[str, tuple[Bucket, ...]]], bound: Any) -> None:
    """Draws the loss of each group; for a single run the bigram's beside it."""
    names = sorted({group.name for _, groups in runs for group in groups}, key=_numbers)
    for place, (label, groups) in enumerate(runs):
        colour = place % len(SERIES)
        _line(axes, names, [(group.name, group.loss) for group in groups], colour, label)
    bigram = [(group.name, group.bigram) for group in runs[0][1] if group.bigram is not None]
    if bigram and len(runs) == 1:
        _line(axes, names, bigram, BIGRAM, "bigram")
    ticks = [bound(name) for name in names]
    axes.set_xticks(range(len(names)), [_short(tick) for tick in ticks])
    axes.set_ylabel("loss, nats per token")
    legend(axes)


def _line(axes: Any, names: list[str], points: Sequence[tuple[str, float]], colour: int, label: str) -> None:
    x, y = [names.index(name) for name, _ in points], [value for _, value in points]
    axes.plot(x, y, color=SERIES[colour], linestyle=DASHES[colour], marker=MARKERS[colour], label=label)


def _calibration(found: Measured) -> Html:
    told = "; ".join(f"{label}: {figures.calibration_error:.1%} off on average" for label, figures in found)
    with drawing("calibration", "Is it as sure as it is right?", f"{told}.", HINTS["calibration"]) as made:
        axes = made.figure.subplots()
        axes.plot([0, 100], [0, 100], ":", color=MUTED, lw=1, label="as sure as it is right")
        for place, (label, figures) in enumerate(found):
            colour, bins = place % len(SERIES), figures.calibration
            x, y = [100 * part.confidence for part in bins], [100 * part.accuracy for part in bins]
            axes.plot(x, y, color=SERIES[colour], linestyle=DASHES[colour], lw=1)
            areas = [8 + 500 * part.tokens / figures.tokens for part in bins]
            axes.scatter(x, y, s=areas, color=SERIES[colour], marker=MARKERS[colour], alpha=0.75, lw=0, label=label)
        axes.set_xlabel("probability of its first guess, % (areas: share of tokens)")
        axes.set_ylabel("first guesses that are right, %")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        legend(axes)
    return made.html


def _by_document(found: Measured) -> Html:
    told = "; ".join(
        f"{label} from {min(g.loss for g in f.by_document):.2f} to {max(g.loss for g in f.by_document):.2f}"
        for label, f in found
    )
    hint = HINTS["document"]
    if any(figures.documents > MOST_DOCUMENTS for _, figures in found):
        hint += f" Of more than {MOST_DOCUMENTS:,}, so many are drawn, from the easiest to the hardest."
    with drawing("by-document", "Do documents differ?", f"{told}.", hint) as made:
        axes = made.figure.subplots()
        for place, (label, figures) in enumerate(found):
            colour, groups = place % len(SERIES), _spread(figures.by_document)
            x, y = [group.tokens for group in groups], [group.loss for group in groups]
            axes.scatter(x, y, s=16, color=SERIES[colour], marker=MARKERS[colour], alpha=0.7, lw=0, label=label)
        if len(found) == 1:
            axes.axhline(found[0][1].loss.value, color=MUTED, linestyle=":", lw=1, label="all tokens together")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(engineering())
        axes.set_xlabel("tokens of the document (log scale)")
        axes.set_ylabel("loss, nats per token")
        legend(axes)
    return made.html


def _spread(documents: Sequence[Bucket]) -> Sequence[Bucket]:
    """Returns at most MOST_DOCUMENTS, evenly spaced by their loss, the easiest and the hardest among them."""
    if len(documents) <= MOST_DOCUMENTS:
        return documents
    ranked = sorted(documents, key=lambda one: one.loss)
    return [ranked[round(place * (len(ranked) - 1) / (MOST_DOCUMENTS - 1))] for place in range(MOST_DOCUMENTS)]


def _numbers(name: str) -> list[int]:
    """Returns the numbers in a group's name, `10 - 99`; `never` is 0."""
    return [int(part.replace(",", "")) for part in re.findall(r"[\d,]+", name)] or [0]


def _short(bound: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if bound >= size and bound % size == 0:
            return f"{bound // size} {letter}"
    return f"{bound:,}" if bound else "never"
