"""The metrics of an evaluation as tables, for the terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigpt.evaluation.loss import perplexity
from minigpt.evaluation.metrics import Bucket, Estimate, EvalMetrics
from minigpt.tables import Table
from minigpt.text_utils import pluralize

BEGINNING_WIDTH, MIN_BEGINNING_WIDTH = 24, 10
"""Width of the column with a document's first words; below the second, the column is omitted."""

NUMBERS_WIDTH = 42
"""Width of the other columns of that table."""

ESTIMATES = (
    ("loss", "loss", "{:.4f}", "mean surprise per token, in nats"),
    ("perplexity", "perplexity", "{:,.2f}", "as uncertain as a guess among that many tokens"),
    ("bits per byte", "bits_per_byte", "{:.4f}", "comparable across tokenizers"),
    ("accuracy", "accuracy", "{:.2%}", "its first guess is right"),
    ("top-5 accuracy", "top5_accuracy", "{:.2%}", "one of its first five guesses is right"),
)
"""The estimates of `EvalMetrics`: title, attribute, format and meaning."""


def format_interval(estimate: Estimate, form: str) -> str:
    """Returns the ends of an interval, `1.2 to 1.4`; nothing without one."""
    return " to ".join(form.format(end) for end in estimate.interval) if estimate.interval else ""


def estimates_table(found: EvalMetrics) -> Table:
    """Returns each metric with its interval and meaning."""
    estimates = [(title, getattr(found, name), form, meaning) for title, name, form, meaning in ESTIMATES]
    error = ("calibration error", Estimate(found.calibration_error), "{:.2%}", "mean gap of confidence and accuracy")
    rows = [
        (title, form.format(one.value), format_interval(one, form), meaning)
        for title, one, form, meaning in [*estimates, error]
    ]
    return Table(["metric", "value", "95 % interval", "meaning"], rows, (0, 3))


def baselines_table(found: EvalMetrics, model: str, block_size: int) -> Table:
    """Returns the model among the baselines, with what each of them knows."""
    knows = {
        "uniform": "nothing",
        "unigram": "how often each token occurs",
        "bigram": "which token follows which",
        "": f"up to {pluralize(block_size, 'token')} of context",
    }
    bits = 1 / math.log(2) / found.bytes_per_token
    rows = [
        (name or model, f"{loss.value:.4f}", f"{perplexity(loss.value):,.1f}", f"{loss.value * bits:.3f}", knows[name])
        for name, loss in [*found.baselines.items(), ("", found.loss)]
    ]
    header = ["compared with", "loss", "perplexity", "bits per byte", "what it knows"]
    return Table(header, rows, (0, 4), highlighted=[len(rows) - 1])


def bucket_tables(found: EvalMetrics, extremes: int, name_width: int, width: int | None = None) -> list[Table]:
    """Returns the loss by context, by token frequency and by document.

    Args:
        found: the metrics.
        extremes: how many of the easiest documents are listed, and how many of the hardest.
        name_width: characters of a document's name.
        width: characters of the whole table; any number if None.
    """
    ranked = sorted(found.by_document, key=lambda bucket: bucket.loss)
    some = len(ranked) > 2 * extremes
    documents = [*ranked[:extremes], *ranked[-extremes:]] if some else ranked
    groups: list[tuple[str, Sequence[Bucket]]] = [
        ("tokens of context", found.by_context),
        ("count in training", found.by_frequency or ()),
        ("easiest and hardest" if some else "documents", documents if found.documents > 1 else ()),
    ]
    return [_bucket_table(title, buckets, found.tokens, name_width, width) for title, buckets in groups if buckets]


def _bucket_table(title: str, buckets: Sequence[Bucket], tokens: int, name_width: int, width: int | None) -> Table:
    names = [bucket.shortened(name_width) for bucket in buckets]
    room = None if width is None else min(BEGINNING_WIDTH, width - max(map(len, [title, *names])) - NUMBERS_WIDTH)
    begins = any(bucket.beginning for bucket in buckets) and (room is None or room >= MIN_BEGINNING_WIDTH)
    rows = [
        (
            name,
            *([bucket.beginning[:room]] if begins else []),
            f"{bucket.tokens / tokens:.1%}",
            f"{bucket.loss:.3f}",
            "" if bucket.bigram is None else f"{bucket.bigram:.3f}",
            f"{bucket.accuracy:.1%}",
        )
        for name, bucket in zip(names, buckets, strict=True)
    ]
    header = [title, *(["begins"] if begins else []), "share", "loss", "bigram's loss", "accuracy"]
    return Table(header, rows, (0, 1) if begins else (0,))
