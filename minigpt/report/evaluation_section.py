"""The metrics of the evaluation, as plots and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigpt.evaluation import Evaluation
from minigpt.evaluation.eval_tables import baselines_table, bucket_tables, estimates_table
from minigpt.evaluation.metrics import RESAMPLES
from minigpt.report.cache import EXTREMES
from minigpt.report.facts import RunFacts, one_tokenizer
from minigpt.report.plots import evaluation_plots
from minigpt.text_utils import pluralize

NAME_LENGTH = 80
"""Characters of a document's name, or of its first words where it has none."""


def evaluation(runs: Sequence[RunFacts]) -> dict[str, Any] | None:
    """Returns method, tables and notes of each run, and plots of all; None if no run was measured."""
    measured = [(run, run.evaluation) for run in runs if run.evaluation]
    if not measured:
        return None
    return {
        "runs": [
            {
                "label": run.label,
                "method": _method(found),
                "tables": [
                    *([estimates_table(found.metrics)] if len(runs) == 1 else []),
                    baselines_table(found.metrics, run.label, found.block_size),
                ],
                "notes": [run.shortened(note) for note in found.notes],
                "data": bucket_tables(found.metrics, EXTREMES, NAME_LENGTH),
            }
            for run, found in measured
        ],
        "plots": evaluation_plots(runs),
        "one_tokenizer": one_tokenizer([run for run, _ in measured]),
    }


def _method(found: Evaluation) -> str:
    metrics = found.metrics
    documents = pluralize(metrics.documents, "document")
    windows = f"windows of {found.block_size:,} tokens with a stride of {found.stride:,}, in {found.precision}"
    source = (
        f" Intervals: {RESAMPLES:,} bootstrap resamples of {metrics.interval_from}." if metrics.interval_from else ""
    )
    return f"Step {found.step:,}; {pluralize(metrics.tokens, 'token')} of {documents}; {windows}.{source}"
