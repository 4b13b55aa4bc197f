"""Settings against the length of the run and the size of its text: each may be right by itself, and not fit them.

Said before the run begins, by `minigpt plan` and the training, and by the doctor of those that cost it something.
What cannot work at all is refused elsewhere (config.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minigpt.config import TrainConfig
from minigpt.intervals import Intervals
from minigpt.text_utils import pluralize

FEWEST_VALIDATED = 5000
"""Tokens: the loss over so many wavers by some 3 / sqrt(5,000) = 0.04 nats, and by more as neighbours are alike."""

EVERY = {
    "validate_every": "it adds no validation",
    "save_every": "it adds no checkpoint",
    "log_every": "only the first step and the last are logged",
    "health_every": "only the first step and the last are looked at",
}
"""Settings that count steps, and what becomes of a run shorter than one of them. What you did not set is not told."""


@dataclass(frozen=True)
class ConfigWarning:
    """Something in the settings that does not fit.

    Attributes:
        name: a short name.
        text: what does not fit and what comes of it, a sentence.
        options: what to add to the command.
        advice: what to do where no option helps.
    """

    name: str
    text: str
    options: tuple[str, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.advice or 'Try ' + ' '.join(self.options)}"


def config_warnings(calendar: Intervals) -> list[ConfigWarning]:
    """Returns what does not fit, the worst first."""
    found = (_warmup, _decay, _patience, _every, _batch, _validation)
    return [misfit for look in found for misfit in look(calendar)]


def _warmup(calendar: Intervals) -> Iterator[ConfigWarning]:
    warmup, total = calendar.warmup, calendar.total_steps
    if not calendar.config.schedule.warmup_steps or 2 * warmup <= total:
        return
    comes = "the learning rate never gets to its peak" if warmup >= total else "little is left to learn at its peak"
    yield ConfigWarning(
        "warm-up",
        f"The warm-up takes {pluralize(warmup, 'step')} and the run has {total:,}: {comes}.",
        ("--schedule.warmup-steps", str(total // 10)),
    )


def _decay(calendar: Intervals) -> Iterator[ConfigWarning]:
    schedule, warmup, total = calendar.config.schedule, calendar.warmup, calendar.total_steps
    decay = round(schedule.decay_ratio * total)
    if schedule.name == "wsd" and warmup < total < warmup + decay:
        yield ConfigWarning(
            "decay",
            f"Warm-up ({warmup:,}) and decay ({decay:,}) take more than the run's {pluralize(total, 'step')}: the rate "
            f"falls from the warm-up's end, over {total - warmup:,}.",
            ("--schedule.decay-ratio", f"{(1 - warmup / total) / 2:.2g}"),
        )


def _patience(calendar: Intervals) -> Iterator[ConfigWarning]:
    patience, validations = calendar.config.train.patience, calendar.counts["validations"]
    if patience and patience + 1 >= validations:  # the first is the lowest so far, and after the last nothing is saved
        every = max(1, calendar.total_steps // (4 * patience))
        yield ConfigWarning(
            "patience",
            f"The run has {pluralize(validations, 'validation')}: a patience of {patience} cannot end it early.",
            ("--train.validate-every", str(every)),
        )


def _every(calendar: Intervals) -> Iterator[ConfigWarning]:
    total, usual = calendar.total_steps, TrainConfig()
    for name, comes in EVERY.items():
        every = getattr(calendar.config.train, name)
        if every and every > total and every != getattr(usual, name):
            option = f"--train.{name.replace('_', '-')}"
            yield ConfigWarning(
                name.replace("_", " "),
                f"{option} {every:,} is more than the run's {pluralize(total, 'step')}: {comes}.",
                (option, str(max(1, total // 10))),
            )


def _batch(calendar: Intervals) -> Iterator[ConfigWarning]:
    rows, there = calendar.config.train.batch_size, calendar.sequences
    if rows > there:
        yield ConfigWarning(
            "batch",
            f"A batch has {rows:,} rows, and the training text is {pluralize(there, 'sequence')}: each step is a whole "
            f"epoch, and computes {pluralize(rows - there, 'empty row')}.",
            (
                "--train.batch-size",
                str(there),
                *(("--train.grad-accum-steps", "1") * (calendar.config.train.grad_accum_steps > 1)),
            ),
        )


def _validation(calendar: Intervals) -> Iterator[ConfigWarning]:
    tokens, block = calendar.val_tokens, calendar.config.model.block_size
    if 0 < tokens < max(FEWEST_VALIDATED, block + 1):
        less = f", less than one sequence of {block:,}" if tokens <= block else ""
        yield ConfigWarning(
            "small validation",
            f"The validation text has {pluralize(tokens, 'token')}{less}: its loss depends on which few passages they "
            "are, and small differences between runs mean nothing.",
            advice="More text helps, or a larger share of it (minigpt prepare with --val-fraction).",
        )
