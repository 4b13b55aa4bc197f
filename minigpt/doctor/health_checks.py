"""What gradients, updates and units tell, from the health records of a run.

Each check is a pure function from the evidence to a finding, or None. The runs behind the thresholds are in
docs/doctor.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, takewhile
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from minigpt.doctor.evidence import EARLY_STEPS, Evidence
from minigpt.doctor.finding import Finding, hint, problem
from minigpt.doctor.references import higher_lr, lower_lr
from minigpt.records import Record
from minigpt.text_utils import pluralize

MAX_WEIGHT_SIZE = 6.0
"""Size of a layer's weights: their root mean square times the square root of the width, near 1 where a matrix keeps the
size of its input. Healthy runs had 0.7 at the most, ten times the rate of preset laptop 4.5 without harm, thirty times
12, and 200 times that of preset seed 7, both with harm. Thirty times those of seed and shakespeare cost 4 % of the
loss and cannot be told by size: only a reference curve shows it."""

MIN_UPDATE = 3e-4
"""Updates of layers relative to their weights, at the peak of the rate: 2e-3 to 1e-2 in healthy runs, 2e-3 at a tenth
of the rate of preset laptop, 1e-4 to 2e-4 at a hundredth of those of laptop, seed and shakespeare."""

RISE, RISE_NATS, RISE_ERRORS = 0.1, 0.1, 4.0
"""A training loss has risen if it is above its lowest by this share, these nats, and these standard errors."""

MEAN_TOKENS = 5000
"""Each of the two losses is a mean over at least so many tokens."""

VANISHED = 1e-4
"""Gradients relative to weights differ 10-fold between the layers of healthy runs, 1,000-fold in overgrown ones."""

EXPLODED = 100.0
"""The norm of the whole gradient falls to a third and varies 3-fold in healthy runs."""

MAX_DEAD = 0.25
"""Share of dead units: 0 to 2 % in healthy runs, 28 to 33 % at thirty times the rate of preset seed."""

MAX_SATURATED, MIN_HEADS = 0.5, 3
"""Share and number of saturated heads: none in healthy runs. One that always attends to the first token, or to the one
before, is common."""

LEARNING = 0.1
"""A layer learns if its gradient relative to its weights is at least this share of the layers' median."""

PROBES = 2
"""Units and heads must be sick in this many health records in a row."""

Module: TypeAlias = Mapping[str, Any]


def _layers(record: Record) -> list[Module]:
    """Returns the modules of a health record that are layers, not the embedding or the head."""
    return [module for module in record["modules"] if module["module"].startswith("h.")]


def _relative_gradient(module: Module) -> float:
    return float(module["grad_norm"] / max(module["weight_norm"], 1e-12))


def lr_too_high(evidence: Evidence) -> Finding | None:
    """Weights grow to many times their initial size, or the loss rises and stays up."""
    overgrown = _overgrown(evidence)
    found = overgrown or _risen(evidence)
    if found is None:
        return None
    observation, record = found
    lr = evidence.config.train.lr
    lower = evidence.train_again("lower-lr", "--train.lr", f"{lower_lr(evidence.config):g}")
    if overgrown and evidence.two_validations and evidence.best_validation is evidence.validations[-1]:
        return hint(
            "learning rate too high",
            f"{observation} But the validation loss fell until the end.",
            f"Weights this large are often a sign of a learning rate that is too high ({lr:g}); here it may be fine.",
            f"Compare it with a run at a lower rate: {lower}",
            record,
        )
    return problem(
        "learning rate too high",
        observation,
        f"The learning rate {lr:g} is too high: each step undoes what earlier ones have learned.",
        f"Train again at a lower rate: {lower}",
        record,
    )


def _overgrown(evidence: Evidence) -> tuple[str, Record] | None:
    model = evidence.config.model
    hidden = model.n_inner * (3 if model.mlp == "swiglu" else 2)
    numel = {"attn": 4 * model.n_embd**2, "mlp": hidden * model.n_embd}
    first = evidence.health[0] if evidence.health else {}
    if evidence.origin and first.get("step") != 1:
        return None
    for record in evidence.health:
        if record["step"] > EARLY_STEPS:
            return None
        sizes = [
            _size_after(module) * math.sqrt(model.n_embd / numel[module["module"].split(".")[-1]])
            for module in _layers(record)
        ]
        before_and_now = zip(_layers(evidence.health[0]), _layers(record), strict=True)
        growth = median(_size_after(now) / max(before["weight_norm"], 1e-12) for before, now in before_and_now)
        judged = [growth] * bool(evidence.origin or record is first) + [median(sizes)] * (not evidence.origin)
        if min(judged) > MAX_WEIGHT_SIZE:
            times = f"{growth:,.0f}" if growth < 1e6 else "more than a million"
            steps = pluralize(record["step"], "step")
            return f"The layers' weights grew to {times} times their initial size within {steps}.", record
    return None


def _size_after(module: Module) -> float:
    """Returns the norm of a module's weights, or the least that the step then taken has left of them."""
    return float(module["weight_norm"] * max(1.0, module["update_ratio"] - 1))


def _risen(evidence: Evidence) -> tuple[str, Record] | None:
    """Compares the mean of the last records with the lowest earlier mean of as many, while the rate did not rise."""
    lines = evidence.steps
    tokens = (lines[-1]["tokens"] - lines[0]["tokens"]) / max(1, len(lines) - 1)  # of a record
    width = max(5, len(lines) // 20, math.ceil(MEAN_TOKENS / max(1, tokens)))
    begun = _lr_rose_again(lines)
    lines = lines[begun + width * (begun > 0) :]  # a rate that has just come back undoes something
    if len(lines) < 3 * width:
        return None
    losses = np.array([line["loss"] for line in lines])
    sums = np.cumsum([0.0, *losses])
    means = (sums[width:] - sums[:-width]) / width  # of records i to i + width
    lowest, now, where = float(means.min()), float(means[-1]), lines[int(means.argmin()) + width - 1]
    # the median of |x - y| is 0.954 standard deviations of x; differences of neighbours do not count a trend as noise
    error = float(np.median(np.abs(np.diff(losses)))) / 0.954 * math.sqrt(2 / width)
    if now - lowest < max(RISE * lowest, RISE_NATS, RISE_ERRORS * error):
        return None
    return f"The training loss was {lowest:.3f} around step {where['step']:,} and has risen to {now:.3f}.", where


def _lr_rose_again(lines: Sequence[Record]) -> int:
    """Returns the last record where the rate rose after it had fallen, as where a run is made longer; else 0."""
    begun, peak = 0, 0.0
    for number, (before, line) in enumerate(pairwise(lines), start=1):
        peak = max(peak, before["lr"])
        if line["lr"] > before["lr"] and before["lr"] < peak:
            begun, peak = number, line["lr"]
    return begun


def lr_too_low(evidence: Evidence) -> Finding | None:
    """Weights hardly change from step to step, at the peak of the learning rate."""
    peaks = [(median(module["update_ratio"] for module in _layers(record)), record) for record in evidence.peak_probes]
    if evidence.origin or not peaks or median(update for update, _ in peaks) >= MIN_UPDATE:
        return None
    update, record = peaks[-1]
    higher = evidence.train_again("higher-lr", "--train.lr", f"{higher_lr(evidence.config):g}")
    return problem(
        "learning rate too low",
        f"At step {record['step']:,}, the update changed the layers' weights by {update:.1e} of their size; 1e-3 to "
        "1e-2 is usual.",
        f"The learning rate {evidence.config.train.lr:g} is too low: the run would need many times as many steps.",
        f"Train again at a higher rate: {higher}",
        peaks[0][1],
    )


def vanishing_gradient(evidence: Evidence) -> Finding | None:
    """A layer's gradient is nothing compared with the others'."""
    shares = {module["module"]: _relative_gradient(module) for module in _layers(evidence.health[-1])}
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    if shares[least] > VANISHED * shares[most] or not shares[most]:
        return None
    return problem(
        "vanishing gradient",
        f"The gradient of {least} is {shares[least]:.1e} of its weights, that of {most} {shares[most]:.1e}.",
        f"{least} does not learn: its output or its input has become zero or far too large.",
        _gentler(evidence),
        next(record for record in evidence.health if _weakest(record) <= VANISHED),
    )


def _weakest(record: Record) -> float:
    """Returns the least relative gradient of a layer, as a share of the largest."""
    shares = [_relative_gradient(module) for module in _layers(record)]
    return min(shares) / max(max(shares), 1e-30)


def exploding_gradient(evidence: Evidence) -> Finding | None:
    """The gradient is many times as large as it was, and stays so."""
    lines = [line for line in evidence.steps if line["step"] > evidence.warmup_steps]
    if len(lines) < 20:
        return None
    before, now = (median(line["grad_norm"] for line in some) for some in (lines[:10], lines[-5:]))
    if now < EXPLODED * before:
        return None
    largest = ""
    if evidence.health:
        module = max(evidence.health[-1]["modules"], key=lambda module: float(module["grad_norm"]))
        largest = f" {module['module']} has the largest ({module['grad_norm']:.3g})."
    return problem(
        "exploding gradient",
        f"The gradient norm was {before:.2g} and is now {now:.3g}.{largest}",
        "Clipping keeps the steps small, but their direction is arbitrary.",
        _gentler(evidence),
        next(line for line in lines if line["grad_norm"] > EXPLODED * before),
    )


def _gentler(evidence: Evidence) -> str:
    warmup = min(max(100, 2 * evidence.warmup_steps), max(1, evidence.total_steps // 3))
    options = ("--train.lr", f"{lower_lr(evidence.config):g}", "--schedule.warmup-steps", str(warmup))
    return f"Try a lower rate and a longer warm-up: {evidence.train_again('gentler', *options)}"


def dead_units(evidence: Evidence) -> Finding | None:
    """Feed-forward layers many of whose units are zero for every token."""
    found = _lasting(evidence, lambda record: _above(evidence, record, "dead_unit_ratio", MAX_DEAD))
    if found is None:
        return None
    since, modules = found
    worst = max(modules, key=lambda module: float(module["dead_unit_ratio"]))
    others = f" More than {MAX_DEAD:.0%} were in {pluralize(len(modules) - 1, 'other layer')}."
    other = "gelu" if evidence.config.model.mlp != "gelu" else "swiglu"
    return problem(
        "dead units",
        f"{worst['dead_unit_ratio']:.0%} of the hidden units of {worst['module']} were zero on every token of the last "
        f"health record.{others if len(modules) > 1 else ''}",
        "Dead units cost time and no longer learn; too high a learning rate early on kills them.",
        f"Try a lower rate: {evidence.train_again('revived', '--train.lr', f'{lower_lr(evidence.config):g}')}"
        + ("" if evidence.origin else f", or --model.mlp {other}"),
        since,
    )


def saturated_heads(evidence: Evidence) -> Finding | None:
    """Layers most of whose heads attend to one token only, whatever the text, and no longer learn."""
    found = _lasting(evidence, lambda record: _stuck(evidence, record))
    if found is None:
        return None
    since, modules = found
    worst = max(modules, key=lambda module: float(module["saturated_head_ratio"]))
    return problem(
        "saturated heads",
        f"{worst['saturated_head_ratio']:.0%} of the heads of {worst['module']} give nearly all their weight "
        "to one token.",
        "Their attention scores are so large that no gradient passes; they will hardly change again.",
        _gentler(evidence),
        since,
    )


def _stuck(evidence: Evidence, record: Record) -> list[Module]:
    """Returns the attention layers with enough saturated heads, and next to no gradient."""
    usual = median(map(_relative_gradient, _layers(record)))
    return [
        module
        for module in _above(evidence, record, "saturated_head_ratio", MAX_SATURATED)
        if round(module["saturated_head_ratio"] * evidence.config.model.n_head) >= MIN_HEADS
        and _relative_gradient(module) < LEARNING * usual
    ]


def _above(evidence: Evidence, record: Record, name: str, limit: float) -> list[Module]:
    """Returns the modules above a limit; of a run that began with another's weights, by what it has added itself."""
    first: dict[str, float] = {}
    if evidence.origin:
        first = {module["module"]: module.get(name, 0.0) for module in evidence.health[0]["modules"]}
    return [module for module in record["modules"] if module.get(name, 0.0) - first.get(module["module"], 0.0) > limit]


def _lasting(evidence: Evidence, sick: Callable[[Record], list[Module]]) -> tuple[Record, list[Module]] | None:
    """Returns the first record of the last unbroken series with sick modules, and these; None if it is too short."""
    records = list(takewhile(lambda record: record["step"] > 1 and sick(record), reversed(evidence.health)))
    if len(records) < PROBES:
        return None
    before = {module["module"] for module in sick(records[1])}
    modules = [module for module in sick(records[0]) if module["module"] in before]
    return (records[-1], modules) if modules else None
