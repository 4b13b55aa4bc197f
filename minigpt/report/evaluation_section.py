"""The figures of the evaluation: pictures, and the tables beneath them."""

from __future__ import annotations

from collections.abc import Sequence

from minigpt.evaluation import Evaluation
from minigpt.evaluation.eval_tables import baselines_table, bucket_tables, estimates_table
from minigpt.evaluation.metrics import RESAMPLES
from minigpt.report.cache import EXTREMES
from minigpt.report.facts import RunFacts, one_tokenizer
from minigpt.report.html import Html, element, folded, name, table
from minigpt.report.plots_evaluation import evaluation_plots
from minigpt.tables import Table
from minigpt.text_utils import pluralize

NAME_LENGTH = 80
"""Characters of a document's name, or of its first words where it has none."""


def evaluation(runs: Sequence[RunFacts]) -> list[Html]:
    """Returns the section; nothing if no run was measured."""
    there = [(run, run.evaluation) for run in runs if run.evaluation]
    if not there:
        return []
    parts: list[Html] = []
    for run, found in there:
        if len(runs) > 1:
            parts.append(element("h3", name(run.label)))
        parts.append(element("p", _how(found), class_="note"))
        if len(runs) == 1:
            parts.append(_shown(estimates_table(found.metrics)))
        parts.append(_shown(baselines_table(found.metrics, run.label, found.block_size)))
        notes = (run.shortened(note) for note in found.notes)
        parts += [element("p", note, class_="note") for note in notes]
    parts.append(element("div", evaluation_plots(runs), class_="pictures"))
    if not one_tokenizer([run for run, _ in there]):
        parts.append(element("p", "Losses by context, frequency and document are of different tokens: no picture shows "
                             "them together.", class_="note"))  # fmt: skip
    parts += [
        folded(
            ["The figures behind the pictures: ", name(run.label)],
            map(_shown, bucket_tables(found.metrics, EXTREMES, NAME_LENGTH)),
        )
        for run, found in there
    ]
    return parts


def _how(found: Evaluation) -> str:
    figures = found.metrics
    documents = pluralize(figures.documents, "document")
    windows = f"in windows of {found.block_size:,}, {found.stride:,} apart, in {found.precision}"
    source = f" Intervals: {RESAMPLES:,} resamplings of {figures.interval_from}." if figures.interval_from else ""
    return f"Step {found.step:,}; {pluralize(figures.tokens, 'token')} of {documents}, {windows}.{source}"


def _shown(made: Table) -> Html:
    return table(made.header, made.rows, words=tuple(made.text_columns), marked=made.highlighted)
