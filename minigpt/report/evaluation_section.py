"""The figures of the evaluation: pictures, and the tables beneath them."""

from __future__ import annotations

from collections.abc import Sequence

from minigpt.evaluation import Evaluation
from minigpt.evaluation.metrics import RESAMPLES, Bucket, EvalMetrics, compared, described
from minigpt.report import formatting
from minigpt.report.cache import EXTREMES
from minigpt.report.facts import RunFacts, one_tokenizer
from minigpt.report.html import Child, Html, element, folded, name, table
from minigpt.report.plots_evaluation import evaluation_plots
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
            parts.append(_estimates(found.metrics))
        parts.append(_yardsticks(run, found))
        notes = (run.shortened(note) for note in found.notes)
        parts += [element("p", note, class_="note") for note in notes]
    parts.append(element("div", evaluation_plots(runs), class_="pictures"))
    if not one_tokenizer([run for run, _ in there]):
        parts.append(element("p", "Losses by context, frequency and document are of different tokens: no picture shows "
                             "them together.", class_="note"))  # fmt: skip
    parts += [
        folded(["The figures behind the pictures: ", name(run.label)], _groups(found.metrics)) for run, found in there
    ]
    return parts


def _how(found: Evaluation) -> str:
    figures = found.metrics
    documents = pluralize(figures.documents, "document")
    windows = f"in windows of {found.block_size:,}, {found.stride:,} apart, in {found.precision}"
    source = f" Intervals: {RESAMPLES:,} resamplings of {figures.interval_from}." if figures.interval_from else ""
    return f"Step {found.step:,}; {pluralize(figures.tokens, 'token')} of {documents}, {windows}.{source}"


def _estimates(found: EvalMetrics) -> Html:
    rows: list[list[Child]] = [
        [title, formatting.figure(estimate.value, form), formatting.interval(estimate, form), meaning]
        for title, estimate, form, meaning in described(found)
    ]
    return table(["figure", "value", "95 % interval", "what it means"], rows, words=(0, 3))


def _yardsticks(run: RunFacts, measured: Evaluation) -> Html:
    found = compared(measured.metrics, run.label, measured.block_size)
    rows: list[list[Child]] = [[name(who), *figures] for who, *figures in found]
    head = ["compared with", "loss", "perplexity", "bits per byte", "what it knows"]
    return table(head, rows, words=(0, 4), marked=[len(rows) - 1])


def _groups(found: EvalMetrics) -> list[Html]:
    parts = [_group_table("tokens in sight", found.by_context, found.tokens)]
    if found.by_frequency:
        parts.append(_group_table("times in training", found.by_frequency, found.tokens))
    if found.documents > 1:
        ranked = sorted(found.by_document, key=lambda group: group.loss)
        few = ranked if len(ranked) <= 2 * EXTREMES else [*ranked[:EXTREMES], *ranked[-EXTREMES:]]
        which = "documents" if len(few) == len(ranked) else "easiest and hardest documents"
        parts.append(_group_table(which, few, found.tokens))
    return parts


def _group_table(title: str, groups: Sequence[Bucket], tokens: int) -> Html:
    beginnings = any(group.beginning for group in groups)
    rows: list[list[Child]] = [
        [
            name(group.shortened(NAME_LENGTH)),
            *([name(group.beginning)] if beginnings else []),
            f"{group.tokens / tokens:.1%}",
            f"{group.loss:.3f}",
            "" if group.bigram is None else f"{group.bigram:.3f}",
            f"{group.accuracy:.1%}",
        ]
        for group in groups
    ]
    head = [title, *(["begins"] if beginnings else []), "share", "loss", "bigram's loss", "accuracy"]
    return table(head, rows, words=(0, 1) if beginnings else (0,))
