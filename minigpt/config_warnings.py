"""Settings that do not fit the length of the run or the size of its text, though each may be right by itself.

`minigpt plan` and training warn of them before the first step, and the doctor of those that cost the run something.
Settings that cannot work at all are refused in config.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minigpt.config import TrainConfig
from minigpt.intervals import Intervals
from minigpt.text_utils import pluralize

MIN_VAL_TOKENS = 5000
"""The standard error of a loss over this many tokens is at least 3 / sqrt(5,000) = 0.04 nats."""

EVERY = {
    "validate_every": "it adds no validation",
    "save_every": "it adds no checkpoint",
    "log_every": "only the first and last steps are logged",
    "health_every": "only the first and last steps are checked",
}
"""Settings in steps, and what happens in a run shorter than one of them. Defaults are not warned of."""


@dataclass(frozen=True)
class ConfigWarning:
    """A setting that does not fit.

    Attributes:
        name: a short name.
        text: what does not fit and what follows, a sentence.
        options: what to add to the command.
        advice: what to do where no option helps.
    """

    name: str
    text: str
    options: tuple[str, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.advice or 'Try ' + ' '.join(self.options)}"


def config_warnings(intervals: Intervals) -> list[ConfigWarning]:
    """Returns all warnings, the most serious first."""
    checks = (_warmup, _decay, _patience, _every, _batch, _validation)
    return [warning for check in checks for warning in check(intervals)]


def _warmup(intervals: Intervals) -> Iterator[ConfigWarning]:
    warmup, total = intervals.warmup, intervals.total_steps
    if not intervals.config.schedule.warmup_steps or 2 * warmup <= total:
        return
    effect = "never reaches its peak" if warmup >= total else "spends little time at its peak"
    yield ConfigWarning(
        "warm-up",
        f"The warm-up takes {pluralize(warmup, 'step')} of the run's {total:,}: the learning rate {effect}.",
        ("--schedule.warmup-steps", str(total // 10)),
    )


def _decay(intervals: Intervals) -> Iterator[ConfigWarning]:
    schedule, warmup, total = intervals.config.schedule, intervals.warmup, intervals.total_steps
    decay = round(schedule.decay_ratio * total)
    if schedule.name == "wsd" and warmup < total < warmup + decay:
        yield ConfigWarning(
            "decay",
            f"Warm-up ({warmup:,}) and decay ({decay:,}) are longer than the run's {pluralize(total, 'step')}: the "
            f"learning rate decays right after the warm-up, over {total - warmup:,}.",
            ("--schedule.decay-ratio", f"{(1 - warmup / total) / 2:.2g}"),
        )


def _patience(intervals: Intervals) -> Iterator[ConfigWarning]:
    patience, validations = intervals.config.train.patience, intervals.counts["validations"]
    if patience and patience + 1 >= validations:  # the first is the lowest so far, and after the last nothing is saved
        every = max(1, intervals.total_steps // (4 * patience))
        yield ConfigWarning(
            "patience",
            f"The run has {pluralize(validations, 'validation')}: a patience of {patience} cannot stop it early.",
            ("--train.validate-every", str(every)),
        )


def _every(intervals: Intervals) -> Iterator[ConfigWarning]:
    total, defaults = intervals.total_steps, TrainConfig()
    for name, effect in EVERY.items():
        every = getattr(intervals.config.train, name)
        if every and every > total and every != getattr(defaults, name):
            option = f"--train.{name.replace('_', '-')}"
            yield ConfigWarning(
                name.replace("_", " "),
                f"{option} {every:,} is longer than the run's {pluralize(total, 'step')}: {effect}.",
                (option, str(max(1, total // 10))),
            )


def _batch(intervals: Intervals) -> Iterator[ConfigWarning]:
    train, available = intervals.config.train, intervals.sequences
    if train.batch_size > available:
        accumulation = ("--train.grad-accum-steps", "1") if train.grad_accum_steps > 1 else ()
        yield ConfigWarning(
            "batch",
            f"A batch has {train.batch_size:,} rows, and the training text only {pluralize(available, 'sequence')}: "
            f"each step is a whole epoch, and computes {pluralize(train.batch_size - available, 'empty row')}.",
            ("--train.batch-size", str(available), *accumulation),
        )


def _validation(intervals: Intervals) -> Iterator[ConfigWarning]:
    tokens, block = intervals.val_tokens, intervals.config.model.block_size
    if 0 < tokens < max(MIN_VAL_TOKENS, block + 1):
        less = f", less than one sequence of {block:,}" if tokens <= block else ""
        yield ConfigWarning(
            "small validation",
            f"The validation text has only {pluralize(tokens, 'token')}{less}: its loss depends on which passages they "
            "happen to be, and small differences between runs mean nothing.",
            advice="Prepare more text, or a larger share of it for validation (minigpt prepare with --val-fraction).",
        )
