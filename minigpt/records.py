"""What a run reports as it trains, and metrics.jsonl.

A record is a plain mapping with a `kind`. The trainer gives each to its callbacks (minigpt/training/callbacks/).

Every record has kind, step, epoch and seconds (training time so far). Kinds that metrics.jsonl keeps:
    plan         steps, planned_seconds, planned_bytes, step_seconds, how: what the run, and each step, is estimated to
                 cost; matmul_flops: this machine's FLOP/s in matrix products
    step         tokens, loss (mean since the last such record), lr, grad_norm, tokens_per_second, data_wait_ratio (of
                 the steps' time), memory (bytes), device_util (fraction of the device), mfu (model FLOPs utilization:
                 the model's FLOP/s, forward and backward, as a fraction of the machine's in matrix products)
    validation   tokens, train_loss (mean per token since the last validation), val_loss, train_perplexity,
                 val_perplexity, val_bits_per_byte, best (whether val_loss is the lowest so far), patience_counter
                 (validations since the last improvement, for early stopping)
    health       modules: for the embedding, each layer's attention and feed-forward, and the head: its name (module);
                 the Euclidean norms of its gradient, before clipping, and of its weights (grad_norm, weight_norm); the
                 size of this step's update relative to the weights (update_ratio); the fraction of feed-forward units
                 that are never active on a probe (dead_unit_ratio); the fraction of heads that attend to a single token
                 (saturated_head_ratio)
    note         text: something a person should know
Kinds that are not kept: start, progress (every step), validating (done, total), samples (samples, see
minigpt/generation/sample_log.py), message (text), finding (finding, see minigpt/doctor/finding.py), end (stopped,
stopped_early, peak_bytes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from minigpt.atomic import write_file
from minigpt.errors import RunError
from minigpt.files import parse_json, read_lines, why
from minigpt.schema import Count, NonNegative, validate

Record: TypeAlias = Mapping[str, Any]
Callback: TypeAlias = Callable[[Record], None]


SKIPPED_STEP, REWOUND = "the step was skipped", "went back from step"
OTHER_ENVIRONMENT = "resumed in another environment"
"""What the doctor looks for in notes."""


class _Where(TypedDict):
    kind: str
    step: Count
    epoch: NonNegative


class _Step(_Where):
    tokens: Count
    loss: NonNegative | None
    lr: NonNegative | None
    grad_norm: NonNegative | None
    seconds: NonNegative | None


class _Validation(_Where):
    tokens: Count
    train_loss: NonNegative | None
    val_loss: NonNegative | None
    train_perplexity: NonNegative | None
    val_perplexity: NonNegative | None
    val_bits_per_byte: NonNegative | None
    best: bool


class _Module(TypedDict):
    module: str
    grad_norm: NonNegative | None
    weight_norm: NonNegative | None
    update_ratio: NonNegative | None


class _Health(_Where):
    modules: list[_Module]


class _Note(_Where):
    text: str


class _Plan(_Where):
    steps: Count
    planned_seconds: NonNegative | None
    planned_bytes: NonNegative | None
    how: str


KEPT: dict[str, type] = {"plan": _Plan, "step": _Step, "validation": _Validation, "health": _Health, "note": _Note}
"""The kinds that metrics.jsonl keeps, and what readers use of them; None is a number not finite or not known."""


class MetricsFile:
    """Appends the records that are kept to a file, one per line, at once."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, record: Record) -> None:
        """Writes the record if its kind is kept."""
        if record["kind"] in KEPT:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(_json_value(record)) + "\n")


def _json_value(value: Any) -> Any:
    """Returns the value with None for infinity and NaN, which JSON lacks."""
    if isinstance(value, Mapping):
        return {name: _json_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(file: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl, of one kind or all.

    Skips a last line that a crash cut short, and records that lack a field of their kind or have an impossible value.

    Raises:
        RunError: if a line before the last is not a record.
    """
    records = [record for _, record in _lines(file)]
    return [record for record in records if kind in (None, record.get("kind")) and _is_complete(record)]


def number(value: Any) -> float:
    """Returns a value of a record as a number; NaN if it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def column(records: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Returns one value of each record, NaN where it is no number."""
    return [number(record.get(name)) for record in records]


def _is_complete(record: dict[str, Any]) -> bool:
    try:
        validate(KEPT.get(str(record.get("kind")), _Where), record)
    except ValueError:
        return False
    return True


def _lines(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields each line and the record on it."""
    try:
        *lines, last = read_lines(file)
    except (OSError, ValueError) as error:
        raise RunError(
            "The metrics cannot be read",
            got=f"{file}: {why(error)}",
            remedy="Restore the file from a copy, or delete it: training can continue without it.",
        ) from None
    lines += [last] if last else []
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line)
            validate(int, record["step"])
        except (ValueError, KeyError) as error:
            if number < len(lines):
                raise RunError(
                    "A line of the metrics is not a record",
                    got=f"{file}, line {number}: {error}",
                    remedy="Delete that line.",
                ) from None
        else:
            yield line, record


def stopped_early(validations: Sequence[Record], patience: int, last_step: int) -> bool:
    """Whether early stopping ended a run: whether its last step is a validation that exhausted its patience."""
    last = validations[-1] if validations else {"step": 0}
    counter = last.get("patience_counter", 0)
    return last["step"] == last_step and isinstance(counter, int) and 0 < patience <= counter


def truncate_after(file: Path, step: int) -> None:
    """Deletes the records after a step from metrics.jsonl, so that resuming from there writes no step twice."""
    write_file(file, b"".join(line + b"\n" for line, record in list(_lines(file)) if record["step"] <= step))
