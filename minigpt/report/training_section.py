"""How training went: the curves, the table of validations, the health of each module, and runs at equal tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigpt.evaluation.evaluate import IN_TRAINING
from minigpt.records import column, number
from minigpt.report import plots
from minigpt.report.facts import RunFacts, comparable, same_text
from minigpt.report.formatting import amount, duration, format_number
from minigpt.report.table_section import TableSection
from minigpt.tables import Table

MAX_ROWS = 40
MAX_POINTS_COMPARED = 12


def training(runs: Sequence[RunFacts]) -> dict[str, Any] | None:
    """Returns the curves; None if there are none."""
    large = plots.loss_plots(runs)
    return {"plots": large, "small_plots": plots.step_plots(runs)} if large else None


def validations(runs: Sequence[RunFacts]) -> TableSection | None:
    """Returns the table of validations of each run; None if there are none."""
    tables = [_validation_table(run, several=len(runs) > 1) for run in runs if run.validations]
    return TableSection(tables=tables) if tables else None


def _validation_table(run: RunFacts, *, several: bool) -> Table:
    records = run.validations
    every = -(-len(records) // MAX_ROWS)
    kept = [r for place, r in enumerate(records) if (len(records) - 1 - place) % every == 0 or r is run.best]
    columns: list[tuple[str, str, Any]] = [
        ("epoch", "epoch", "{:.4g}"),
        ("step", "step", "{:,.0f}"),
        ("tokens seen", "tokens", amount),
        ("training loss", "train_loss", "{:.4f}"),
        ("validation loss", "val_loss", "{:.4f}"),
        ("training perplexity", "train_perplexity", "{:,.1f}"),
        ("validation perplexity", "val_perplexity", "{:,.1f}"),
        ("bits per byte", "val_bits_per_byte", "{:.4f}"),
        ("time", "seconds", duration),
    ]
    rows = [[format_number(number(record.get(name)), form) for _, name, form in columns] for record in kept]
    best = [place for place, record in enumerate(kept) if record is run.best]
    header = [title for title, _, _ in columns]
    if several:
        return Table(header, rows, (), f"Validations of {run.label}; the lowest loss is highlighted", best)
    note = "Highlighted: the lowest validation loss. The training loss is the mean since the previous validation, as "
    note += "measured during training."
    note += f" {MAX_ROWS} of {len(records):,} validations are shown, evenly spaced." if len(records) > MAX_ROWS else ""
    for line in run.evaluation.notes if run.evaluation else ():
        note += f" {line}" if line.startswith(IN_TRAINING) else ""
    return Table(header, rows, (), "", best, note)


def comparison(runs: Sequence[RunFacts]) -> TableSection | None:
    """Returns the validation losses after the same number of tokens; None if fewer than two runs have any."""
    unit = "loss, nats per token" if comparable(runs) else "bits per byte"
    found = [(run.label, points) for run in runs if (points := _points(run, comparable(runs)))]
    if len(found) < 2:
        return None
    if not same_text(runs):
        return TableSection("The runs were validated on different texts, so their losses cannot be compared.")
    start, end = max(points[0][0] for _, points in found), min(points[-1][0] for _, points in found)
    grid = sorted({tokens for _, points in found for tokens, _ in points if start <= tokens <= end})
    if not grid:
        return TableSection("The runs have no range of tokens seen in common within which both were validated.")
    every = -(-len(grid) // MAX_POINTS_COMPARED)
    rows, interpolated = [], False
    for tokens in grid[(len(grid) - 1) % every :: every]:
        values = [float(np.interp(tokens, list(dict(points)), list(dict(points).values()))) for _, points in found]
        exact = [tokens in dict(points) for _, points in found]
        interpolated |= not all(exact)
        cells = [f"{'' if measured else '≈ '}{value:.4f}" for value, measured in zip(values, exact, strict=True)]
        differences = [f"{value - values[0]:+.4f}" for value in values[1:]]
        rows.append([amount(tokens), *cells, *differences])
    labels = [label for label, _ in found]
    header = ["tokens seen", *labels, *(f"{label} minus {labels[0]}" for label in labels[1:])]
    note = "≈: interpolated between two validations. " if interpolated else ""
    note += "A negative difference is better than the first run."
    caption = f"Validation {unit}, after the same number of tokens"
    return TableSection(tables=[Table(header, rows, (), caption, note=note)])


def _points(run: RunFacts, in_nats: bool) -> list[tuple[float, float]]:
    """Returns tokens seen and validation loss, by tokens."""
    values = column(run.validations, "val_loss" if in_nats else "val_bits_per_byte")
    found = zip(column(run.validations, "tokens"), values, strict=True)
    return sorted(dict(point for point in found if all(map(math.isfinite, point))).items())


def health(runs: Sequence[RunFacts]) -> dict[str, Any] | None:
    """Returns gradients, updates and activity of each module; None if no run has recorded any."""
    shown = [
        {
            "label": run.label,
            "plots": plots.health_plots(run, f"health-{place}"),
            "step": f"{run.health[-1]['step']:,}",
            "table": _health_table(run.health[-1]["modules"]),
        }
        for place, run in enumerate(runs, start=1)
        if run.health
    ]
    return {"runs": shown} if shown else None


def _health_table(modules: Sequence[Any]) -> Table:
    columns = [
        ("gradient norm", "grad_norm", "{:.3g}"),
        ("weight norm", "weight_norm", "{:.3g}"),
        ("update ratio", "update_ratio", "{:.3g}"),
        ("dead units", "dead_unit_ratio", "{:.1%}"),
        ("saturated heads", "saturated_head_ratio", "{:.1%}"),
    ]
    rows = [
        [str(module.get("module")), *(format_number(number(module.get(name)), form) for _, name, form in columns)]
        for module in modules
        if isinstance(module, dict)
    ]
    return Table(["module", *(title for title, _, _ in columns)], rows)


def notes(runs: Sequence[RunFacts]) -> TableSection | None:
    """Returns what the runs noted during training."""
    found = [
        (run.label, run.shortened(f"step {record['step']:,}: {record.get('text', '')}"))
        for run in runs
        for record in run.notes[:MAX_ROWS]
    ]
    return TableSection(notes=found) if found else None
