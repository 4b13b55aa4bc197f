"""How training went: the curves, the table of epochs, what happened inside, and runs point by point."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigpt.evaluation.evaluate import IN_TRAINING
from minigpt.report import formatting, plots
from minigpt.report.facts import RunFacts, column, comparable, number, same_text
from minigpt.report.html import Child, Html, element, folded, name, table

MOST_ROWS = 40
MOST_POINTS_COMPARED = 12


def curves(runs: Sequence[RunFacts]) -> list[Html]:
    """The curves; nothing if there are none."""
    several = len(runs) > 1
    large = [plots.loss_curve(runs), plots.loss_curve(runs, "seconds") if several else None]
    pictures = [picture for picture in (*large, plots.perplexity_curve(runs)) if picture]
    if not pictures:
        return []
    small = plots.course(runs)
    return [
        element("div", pictures, class_="pictures"),
        element("div", small, class_="pictures small") if small else Html(""),
    ]


def epochs(runs: Sequence[RunFacts]) -> list[Html]:
    """The table of validations of each run."""
    parts: list[Html] = []
    for run in runs:
        if run.validations:
            rows, best = _rows(run)
            head = [
                "epoch",
                "step",
                "tokens seen",
                "training loss",
                "validation loss",
                "training perplexity",
                "validation perplexity",
                "bits per byte",
                "time",
            ]
            caption = f"Validations of {run.label}; the lowest loss is marked" if len(runs) > 1 else None
            parts.append(table(head, rows, words=(), marked=best, caption=caption))
    evaluation = runs[0].evaluation
    other = [note for note in evaluation.notes if note.startswith(IN_TRAINING)] if evaluation else []
    if parts and len(runs) == 1:
        parts.append(
            element(
                "p",
                "The lowest validation loss is marked. The training loss is the mean since the validation before, "
                "as the model was then." + _left_out(runs[0]),
                *(f" {note}" for note in other),
                class_="note",
            )
        )
    return parts


def _left_out(run: RunFacts) -> str:
    count = len(run.validations)
    return f" Of {count:,} validations, evenly spaced ones are shown." if count > MOST_ROWS else ""


def _rows(run: RunFacts) -> tuple[list[list[Child]], list[int]]:
    """Returns the rows of the table, evenly spaced ones if they are many, and which of them is the best."""
    records = run.validations
    every = -(-len(records) // MOST_ROWS)
    kept = [r for place, r in enumerate(records) if (len(records) - 1 - place) % every == 0 or r is run.best]
    rows: list[list[Child]] = [
        [
            formatting.figure(number(record.get("epoch")), "{:.4g}"),
            f"{record['step']:,}",
            formatting.amount(number(record.get("tokens"))),
            formatting.figure(number(record.get("train_loss")), "{:.4f}"),
            formatting.figure(number(record.get("val_loss")), "{:.4f}"),
            formatting.figure(number(record.get("train_perplexity")), "{:,.1f}"),
            formatting.figure(number(record.get("val_perplexity")), "{:,.1f}"),
            formatting.figure(number(record.get("val_bits_per_byte")), "{:.4f}"),
            formatting.duration(number(record.get("seconds"))),
        ]
        for record in kept
    ]
    return rows, [place for place, record in enumerate(kept) if record is run.best]


def point_by_point(runs: Sequence[RunFacts]) -> list[Html]:
    """The validation losses of several runs after the same number of tokens."""
    unit = "loss, nats per token" if comparable(runs) else "bits per byte"
    points = [_points(run, comparable(runs)) for run in runs]
    if sum(map(bool, points)) < 2:
        return []
    if not same_text(runs):
        return [element("p", "The runs were validated on different texts: no point of one says how good another is.")]
    there = [run for run, found in zip(runs, points, strict=True) if found]
    points = [found for found in points if found]
    start, end = max(found[0][0] for found in points), min(found[-1][0] for found in points)
    grid = sorted({tokens for found in points for tokens, _ in found if start <= tokens <= end})
    if not grid:
        return [element("p", "The runs were never validated within the same stretch of tokens.", class_="note")]
    every = -(-len(grid) // MOST_POINTS_COMPARED)
    grid = grid[(len(grid) - 1) % every :: every]
    rows: list[list[Child]] = []
    between = False
    for tokens in grid:
        values = [_at(found, tokens) for found in points]
        between |= any(not exact for _, exact in values)
        first = values[0][0]
        cells = [f"{'' if exact else '≈ '}{value:.4f}" for value, exact in values]
        away = [f"{value - first:+.4f}" for value, _ in values[1:]]
        rows.append([formatting.amount(tokens), *(cell for cell in cells), *away])
    head: list[Child] = ["tokens seen", *(name(run.label) for run in there)]
    head += [["beside ", name(there[0].label), ": ", name(run.label)] for run in there[1:]]
    note = "≈: between two validations, on the straight line through them." if between else ""
    return [
        table(head, rows, words=(), caption=f"Validation {unit}, after as many tokens"),
        element("p", note, " A negative difference is better.", class_="note"),
    ]


def _points(run: RunFacts, in_nats: bool) -> list[tuple[float, float]]:
    """Returns tokens seen and validation loss, by tokens."""
    values = column(run.validations, "val_loss" if in_nats else "val_bits_per_byte")
    found = zip(column(run.validations, "tokens"), values, strict=True)
    return sorted(dict(point for point in found if all(map(math.isfinite, point))).items())


def _at(points: list[tuple[float, float]], tokens: float) -> tuple[float, bool]:
    """Returns the value after so many tokens, and whether it was measured there."""
    before = max(point for point in points if point[0] <= tokens)
    after = min(point for point in points if point[0] >= tokens)
    if before[0] == after[0]:
        return before[1], True
    share = (tokens - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1]), False


def inside(runs: Sequence[RunFacts]) -> list[Html]:
    """Gradients, updates and units of each part of each model, where the run has looked."""
    parts: list[Html] = []
    for place, run in enumerate(runs, start=1):
        if not run.health:
            continue
        if len(runs) > 1:
            parts.append(element("h3", name(run.label)))
        parts.append(element("div", plots.inside(run, f"inside-{place}"), class_="pictures"))
        record = run.health[-1]
        found = [part for part in record["modules"] if isinstance(part, dict)]
        rows: list[list[Child]] = [
            [
                str(part.get("module")),
                *(
                    formatting.figure(number(part.get(which)), "{:.3g}")
                    for which in ("grad_norm", "weight_norm", "update_ratio")
                ),
                *(
                    formatting.figure(number(part.get(which)), "{:.1%}")
                    for which in ("dead_unit_ratio", "saturated_head_ratio")
                ),
            ]
            for part in found
        ]
        head = ["module", "grad_norm", "weights", "update_ratio", "silent units", "saturated heads"]
        parts.append(folded(f"Each part at step {record['step']:,}", table(head, rows)))
    return parts


def notes(runs: Sequence[RunFacts]) -> list[Html]:
    """What the runs noted as they went."""
    found = [
        element(
            "li",
            [name(run.label), ", "] if len(runs) > 1 else None,
            f"step {record['step']:,}: ",
            element("bdi", run.shortened(str(record.get("text", "")))),
        )
        for run in runs
        for record in run.notes[:MOST_ROWS]
    ]
    return [element("ul", found)] if found else []
