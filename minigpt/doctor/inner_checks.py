"""What gradients, updates and units tell, from the looks inside that a run takes (`health` records).

Each check is a pure function from the evidence to a finding, or None. The runs behind the thresholds are in
docs/doctor.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise, takewhile
from statistics import median
from typing import Any

import numpy as np

from minigpt.doctor.evidence import EARLY_STEPS, Evidence
from minigpt.doctor.finding import Finding
from minigpt.doctor.references import higher_rate, lower_rate
from minigpt.records import Record
from minigpt.text_utils import pluralize

SWOLLEN = 6.0
"""Size of a layer's weights: their root mean square times the square root of the width, near 1 where a matrix keeps the
size of what it reads. Healthy runs had 0.7 at the most, ten times the rate of preset laptop 4.5 without harm, thirty
times 12, and 200 times that of preset seed 7, both with harm. Thirty times those of seed and shakespeare cost 4 % of
the loss, and cannot be told apart so: only a reference curve can."""

SMALL_UPDATE = 3e-4
"""Updates of layers beside their weights, at the peak of the rate: 2e-3 to 1e-2 in healthy runs, 2e-3 at a tenth of the
rate of preset laptop, 1e-4 to 2e-4 at a hundredth of those of laptop, seed and shakespeare."""

RISEN, RISEN_NATS, RISEN_ERRORS = 0.1, 0.1, 4.0
"""A training loss has risen that stands this share above its lowest, so many nats, and standard errors of the two."""

COMPARED_TOKENS = 5000
"""Each of the two is a mean over so many tokens at least."""

VANISHED = 1e-4
"""Gradients beside weights differ 10-fold between the layers of healthy runs, 1,000-fold in swollen ones."""

EXPLODED = 100.0
"""The norm of the whole gradient falls to a third and wavers 3-fold in healthy runs."""

DEAD = 0.25
"""Share of silent units: 0 to 2 % in healthy runs, 28 to 33 % at thirty times the rate of preset seed."""

SATURATED, LEAST_HEADS = 0.5, 3
"""Share and number of saturated heads: none in healthy runs. One that always looks at the first token, or at the one
before, is common."""

ORDINARY = 0.1
"""A layer learns whose gradient beside its weights is not under this share of the layers' median."""

LOOKS = 2
"""Units and heads must be amiss in so many looks in a row."""

Part = Mapping[str, Any]


def _layers(record: Record) -> list[Part]:
    """Returns the figures of a look that belong to layers, not to the embedding or the head."""
    return [part for part in record["modules"] if part["module"].startswith("h.")]


def rate_too_high(evidence: Evidence) -> Finding | None:
    """Weights swell to many times their first size, or the loss rises and stays up."""
    what = _swollen(evidence) or _risen(evidence)
    if what is None:
        return None
    seen, record = what
    lower = lower_rate(evidence.config)
    return Finding(
        "learning rate too high",
        "problem",
        seen,
        f"The learning rate {evidence.config.train.lr:g} is too high: each step undoes what the ones before have "
        "learned.",
        f"Train anew at a lower rate: `{evidence.again('slower', '--train.lr', f'{lower:g}')}`",
        step=record["step"],
        epoch=record["epoch"],
    )


def _swollen(evidence: Evidence) -> tuple[str, Record] | None:
    model = evidence.config.model
    hidden = model.n_inner * (3 if model.mlp == "swiglu" else 2)
    numbers = {"attn": 4 * model.n_embd**2, "mlp": hidden * model.n_embd}
    first = evidence.health[0] if evidence.health else {}
    if evidence.origin and first.get("step") != 1:
        return None
    for record in evidence.health:
        if record["step"] > EARLY_STEPS:
            return None
        sizes = [
            _grown(part) * math.sqrt(model.n_embd / numbers[part["module"].split(".")[-1]]) for part in _layers(record)
        ]
        growth = median(_grown(now) / max(then["weight_norm"], 1e-12) for then, now in _pairs(evidence, record))
        judged = [growth] * bool(evidence.origin or record is first) + [median(sizes)] * (not evidence.origin)
        if min(judged) > SWOLLEN:
            times = f"{growth:,.0f}" if growth < 1e6 else "more than a million"
            steps = pluralize(record["step"], "step")
            return f"The layers' weights were {times} times their first size after {steps}.", record
    return None


def _grown(part: Part) -> float:
    """Returns the size of a part's weights at a look, or the least that the step then taken has left of them."""
    return float(part["weight_norm"] * max(1.0, part["update_ratio"] - 1))


def _pairs(evidence: Evidence, record: Record) -> Iterable[tuple[Part, Part]]:
    """Returns the figures of each layer in the first look and in this one."""
    return zip(_layers(evidence.health[0]), _layers(record), strict=True)


def _risen(evidence: Evidence) -> tuple[str, Record] | None:
    """The mean of the last lines against the lowest mean of as many lines side by side before, while the rate fell."""
    lines = evidence.steps
    tokens = (lines[-1]["tokens"] - lines[0]["tokens"]) / max(1, len(lines) - 1)  # of a line
    width = max(5, len(lines) // 20, math.ceil(COMPARED_TOKENS / max(1, tokens)))
    begun = _rate_rose_anew(lines)
    lines = lines[begun + width * (begun > 0) :]  # a rate that has just come back undoes something
    if len(lines) < 3 * width:
        return None
    losses = np.array([line["loss"] for line in lines])
    sums = np.cumsum([0.0, *losses])
    means = (sums[width:] - sums[:-width]) / width  # of lines i to i + width
    lowest, now, where = float(means.min()), float(means[-1]), lines[int(means.argmin()) + width - 1]
    # the median of |x - y| is 0.954 standard deviations of x; steps from line to line do not count a trend as noise
    error = float(np.median(np.abs(np.diff(losses)))) / 0.954 * math.sqrt(2 / width)
    if now - lowest < max(RISEN * lowest, RISEN_NATS, RISEN_ERRORS * error):
        return None
    return f"The training loss was {lowest:.3f} around step {where['step']:,} and has risen to {now:.3f}.", where


def _rate_rose_anew(lines: Sequence[Record]) -> int:
    """Returns the last line where the rate rose after it had fallen, as where a run is made longer; else 0."""
    begun, peak = 0, 0.0
    for number, (before, line) in enumerate(pairwise(lines), start=1):
        peak = max(peak, before["lr"])
        if line["lr"] > before["lr"] and before["lr"] < peak:
            begun, peak = number, line["lr"]
    return begun


def rate_too_low(evidence: Evidence) -> Finding | None:
    """Weights that hardly change from step to step, while the loss is far from anything learned."""
    lr, higher = evidence.config.train.lr, higher_rate(evidence.config)
    peaks = [(median(part["update_ratio"] for part in _layers(record)), record) for record in evidence.peak_looks]
    if evidence.origin or not peaks or median(update for update, _ in peaks) >= SMALL_UPDATE:
        return None
    update, record = peaks[-1]
    return Finding(
        "learning rate too low",
        "problem",
        f"A step changed the layers' weights by {update:.1e} of their size at step {record['step']:,}; "
        "about 1e-3 to 1e-2 is usual.",
        f"The learning rate {lr:g} is too low: the run would take many times the steps that it needs.",
        f"Train anew at a higher rate: `{evidence.again('faster', '--train.lr', f'{higher:g}')}`",
        step=peaks[0][1]["step"],
        epoch=peaks[0][1]["epoch"],
    )


def vanishing(evidence: Evidence) -> Finding | None:
    """A layer whose gradient is nothing beside the others'."""
    record = evidence.health[-1]
    layers = _layers(record)
    shares = {part["module"]: part["grad_norm"] / max(part["weight_norm"], 1e-12) for part in layers}
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    if shares[least] > VANISHED * shares[most] or not shares[most]:
        return None
    earlier = next(look for look in evidence.health if _weakest(look) <= VANISHED)
    return Finding(
        "vanishing gradient",
        "problem",
        f"The gradient of {least} is {shares[least]:.1e} of its weights, that of {most} {shares[most]:.1e}.",
        f"{least} does not learn: its output, or what it reads, has become nothing or far too large.",
        f"A lower rate and a longer warm-up: `{_gentler(evidence)}`",
        step=earlier["step"],
        epoch=earlier["epoch"],
    )


def _weakest(record: Record) -> float:
    """Returns the least gradient of a layer beside its weights, as a share of the largest."""
    shares = [part["grad_norm"] / max(part["weight_norm"], 1e-12) for part in _layers(record)]
    return min(shares) / max(max(shares), 1e-30)


def exploding(evidence: Evidence) -> Finding | None:
    """A gradient many times as large as it was, for good."""
    lines = [line for line in evidence.steps if line["step"] > evidence.warmup_steps]
    if len(lines) < 20:
        return None
    before, now = (median(line["grad_norm"] for line in some) for some in (lines[:10], lines[-5:]))
    if now < EXPLODED * before:
        return None
    where = next(line for line in lines if line["grad_norm"] > EXPLODED * before)
    largest = ""
    if evidence.health:
        part = max(evidence.health[-1]["modules"], key=lambda part: float(part["grad_norm"]))
        largest = f" Most of it is that of {part['module']} ({part['grad_norm']:.3g})."
    return Finding(
        "exploding gradient",
        "problem",
        f"The gradient's norm was {before:.2g} and is {now:.3g}.{largest}",
        "Steps go by the clipped remains of a gradient that points anywhere.",
        f"A lower rate and a longer warm-up: `{_gentler(evidence)}`",
        step=where["step"],
        epoch=where["epoch"],
    )


def _gentler(evidence: Evidence) -> str:
    warmup = min(max(100, 2 * evidence.warmup_steps), max(1, evidence.total_steps // 3))
    lower = lower_rate(evidence.config)
    return evidence.again("gentler", "--train.lr", f"{lower:g}", "--schedule.warmup-steps", str(warmup))


def dead_units(evidence: Evidence) -> Finding | None:
    """Feed-forward layers many of whose units answer to nothing."""
    found = _lasting(evidence, lambda record: _above(evidence, record, "dead_unit_ratio", DEAD))
    if found is None:
        return None
    since, parts = found
    worst = max(parts, key=lambda part: float(part["dead_unit_ratio"]))
    other = "gelu" if evidence.config.model.mlp != "gelu" else "swiglu"
    return Finding(
        "dead units",
        "problem",
        f"{worst['dead_unit_ratio']:.0%} of the hidden units of {worst['module']} were silent on every token of the "
        "last look"
        + (f", and more than {DEAD:.0%} in {pluralize(len(parts) - 1, 'other layer')}." if len(parts) > 1 else "."),
        "They take time and learn nothing any more; a learning rate too high early on kills units.",
        f"A lower rate: `{evidence.again('revived', '--train.lr', f'{lower_rate(evidence.config):g}')}`"
        + ("" if evidence.origin else f", or --model.mlp {other}"),
        step=since["step"],
        epoch=since["epoch"],
    )


def saturated_heads(evidence: Evidence) -> Finding | None:
    """Layers most of whose heads look at one token only, whatever the text, and that learn nothing any more."""
    found = _lasting(evidence, lambda record: _stuck(evidence, record))
    if found is None:
        return None
    since, parts = found
    worst = max(parts, key=lambda part: float(part["saturated_head_ratio"]))
    return Finding(
        "saturated heads",
        "problem",
        f"{worst['saturated_head_ratio']:.0%} of the heads of {worst['module']} give nearly all their weight "
        "to one token.",
        "Their scores have grown so large that no gradient passes; they will hardly change again.",
        f"A lower rate and a longer warm-up: `{_gentler(evidence)}`",
        step=since["step"],
        epoch=since["epoch"],
    )


def _stuck(evidence: Evidence, record: Record) -> list[Part]:
    """Returns the attention layers with enough saturated heads, and next to no gradient."""
    usual = median(part["grad_norm"] / max(part["weight_norm"], 1e-12) for part in _layers(record))
    return [
        part
        for part in _above(evidence, record, "saturated_head_ratio", SATURATED)
        if round(part["saturated_head_ratio"] * evidence.config.model.n_head) >= LEAST_HEADS
        and part["grad_norm"] < ORDINARY * usual * part["weight_norm"]
    ]


def _above(evidence: Evidence, record: Record, name: str, limit: float) -> list[Part]:
    """Returns the parts above a limit; of a run that began with another's weights, those that came to be so in it."""
    first: dict[str, float] = {}
    if evidence.origin:
        first = {part["module"]: part.get(name, 0.0) for part in evidence.health[0]["modules"]}
    return [part for part in record["modules"] if part.get(name, 0.0) - first.get(part["module"], 0.0) > limit]


def _lasting(evidence: Evidence, amiss: Callable[[Record], list[Part]]) -> tuple[Record, list[Part]] | None:
    """Returns the look since which parts are amiss without a break, and these; None if it is not so for long enough."""
    looks = list(takewhile(lambda record: record["step"] > 1 and amiss(record), reversed(evidence.health)))
    if len(looks) < LOOKS:
        return None
    before = {part["module"] for part in amiss(looks[1])}
    parts = [part for part in amiss(looks[0]) if part["module"] in before]
    return (looks[-1], parts) if parts else None
