"""What a run reports, and who listens.

The loop tells of everything as a record: a plain mapping with a `kind`. A watcher is a function that takes one:
`MetricsFile` writes metrics.jsonl, the command line draws its live view, `tensorboard` feeds TensorBoard. The loop
knows none of them.

Kinds that are kept in metrics.jsonl:
    plan         steps, planned_seconds, planned_bytes, step_seconds, how, matmul_flops: what the run, and each step,
    was
                 expected to cost before the first one, and this machine's FLOP/s in matrix products
    step         step, epoch, tokens, loss (mean since the last such record), lr, grad_norm, tokens_per_second,
                 seconds, data_wait_ratio (share of time), memory (bytes), device_util (share of the device)
    validation   step, epoch, tokens, train_loss (token mean since the last validation: the epoch's), val_loss,
                 train_perplexity, val_perplexity, val_bits_per_byte, best (whether it is the lowest so far), waited
                 (validations in a row that were not, for train.patience), seconds
    health       step, epoch, modules: of the embedding, each layer's attention and feed-forward, and the head, its name
                 (module), the Euclidean norms of its gradient (before clipping) and weights (grad_norm, weight_norm),
                 the size
                 of this step's change beside the weights' (update_ratio), the share of feed-forward units that are
                 silent on
                 a probe (dead_unit_ratio), the share of heads that look at one token only (saturated_head_ratio)
    note         step, text: something a person should know
Kinds that pass by: start, progress (each step), validating (done, total), samples (samples: what was just kept of what
the model says, see minigpt.generation.sample_log.py), message (text), finding (finding: see
minigpt/doctor/finding.py), end (stopped, early, peak_bytes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from minigpt.atomic import write_file
from minigpt.errors import MissingExtraError, RunError
from minigpt.files import parse_json, read_lines, why
from minigpt.schema import Count, NonNegative, validate

Record: TypeAlias = Mapping[str, Any]
Callback: TypeAlias = Callable[[Record], None]

REMEDY = "Restore it from a copy, or remove it: the run goes on without."

KEPT = ("plan", "step", "validation", "health", "note")


class _Told(TypedDict):
    kind: str
    step: Count
    epoch: NonNegative


class _Step(_Told):
    tokens: Count
    loss: NonNegative | None
    lr: NonNegative | None
    grad_norm: NonNegative | None
    seconds: NonNegative | None


class _Validation(_Told):
    tokens: Count
    train_loss: NonNegative | None
    val_loss: NonNegative | None
    train_perplexity: NonNegative | None
    val_perplexity: NonNegative | None
    val_bits_per_byte: NonNegative | None
    best: bool


class _Health(_Told):
    modules: list[Any]


class _Note(_Told):
    text: str


class _Plan(_Told):
    steps: Count
    planned_seconds: NonNegative | None
    planned_bytes: NonNegative | None
    how: str


RECORDS: dict[str, type] = {
    "step": _Step,
    "validation": _Validation,
    "health": _Health,
    "note": _Note,
    "plan": _Plan,
}
"""What is made use of in the records that are kept; None stands for what was not finite, or not known."""


class MetricsFile:
    """Appends the records that are kept to a file, a line each, at once."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, record: Record) -> None:
        """Writes the record if its kind is kept."""
        if record["kind"] in KEPT:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(_json_value(record)) + "\n")


def _json_value(value: Any) -> Any:
    """Returns the value, with None where JSON has no word: for infinity and not-a-number."""
    if isinstance(value, Mapping):
        return {name: _json_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(file: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl, of one kind or all.

    Passed over are a last line cut short by a crash, and records that lack what their kind has, or hold something else
    in its place, or a figure that cannot be: nothing is made of them anywhere.

    Raises:
        RunError: if a line in the middle is no record.
    """
    records = [record for _, record in _lines(file)]
    return [record for record in records if kind in (None, record.get("kind")) and _is_whole(record)]


def number(value: Any) -> float:
    """Returns a value of a record as a number; NaN if it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def column(records: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Returns one value of each record, NaN where it is no number."""
    return [number(record.get(name)) for record in records]


def _is_whole(record: dict[str, Any]) -> bool:
    try:
        validate(RECORDS.get(str(record.get("kind")), _Told), record)
    except ValueError:
        return False
    return True


def _lines(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields each line with the record that it is."""
    try:
        *lines, last = read_lines(file)
    except (OSError, ValueError) as error:
        raise RunError("The metrics cannot be read", got=f"{file}: {why(error)}", remedy=REMEDY) from None
    lines += [last] if last else []
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line)
            validate(int, record["step"])
        except (ValueError, KeyError) as error:
            if number < len(lines):
                raise RunError(
                    "A line of the metrics is no record",
                    got=f"{file}, line {number}: {error}",
                    remedy="Remove that line.",
                ) from None
        else:
            yield line, record


def ran_out(validations: Sequence[Record], patience: int, last_step: int) -> bool:
    """Whether a run ends with a validation that came no lower as often as its patience waits."""
    last = validations[-1] if validations else {"step": 0, "waited": 0}
    return last["step"] == last_step and isinstance(waited := last.get("waited"), int) and 0 < patience <= waited


def truncate_after(file: Path, step: int) -> None:
    """Drops the records behind a step from metrics.jsonl, so that going on from there writes no step twice."""
    write_file(file, b"".join(line + b"\n" for line, record in list(_lines(file)) if record["step"] <= step))


def tensorboard(folder: Path, complain: Callable[[str], None]) -> Callback:
    """Returns a watcher that writes each number for TensorBoard. If that fails, it complains once and writes no more.

    Raises:
        MissingExtraError: if the extra `tensorboard` is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("TensorBoard", "tensorboard") from None
    writers: list[SummaryWriter] = []  # made at the first record: the run's folder must not exist before
    well = True

    def watch(record: Record) -> None:
        nonlocal well
        try:
            if well:
                write(record)
        except Exception as error:  # of the disk, of the path, of TensorBoard: no run ends for it
            well = False
            complain(f"TensorBoard gets nothing from here on: {type(error).__name__}: {error}")

    def write(record: Record) -> None:
        writer = writers[0] if writers else SummaryWriter(str(folder))
        writers[:] = [writer]
        if record["kind"] in ("step", "validation"):
            for name, value in record.items():
                if isinstance(value, (int, float)) and name not in ("step", "epoch"):
                    writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])
            writer.flush()

    return watch
