"""Is my loss normal? The answer by the reference curves, where there is one to compare with.

A run is compared with a reference of the same preset; seed and learning rate may differ. On the same text and tokenizer
(the checksum of the training tokens tells) and with the same schedule: loss against loss at the same number of tokens.
On another text, or in another length, only roughly: in bits per byte, and without a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np

from minigpt.config import preset_names
from minigpt.doctor.evidence import Evidence
from minigpt.doctor.references import Reference, differences, nearest_preset, usual_rate
from minigpt.text_utils import pluralize

LEAST_BAND = 0.02
"""Of the loss: what seed, machine and number format change."""

ERRORS = 4.0
"""So many standard errors of the mean difference are noise."""

LATER = 1.15
"""A run that needs so many times the tokens for the same loss is normal: seeds differ by that where it is steep."""

WINDOW = 0.25
"""The last lines of metrics are compared: those over this share of the tokens, 40 at the most."""

PLACES = 8
"""A line's loss is the mean since the line before; the reference's is taken at so many places of that stretch."""

MOST_NAMED = 4
"""So many settings are named in which a run differs from a preset."""

EARLIEST_STEP = 50
"""Before it the loss falls too steeply to be compared."""


@dataclass(frozen=True)
class Normality:
    """The answer.

    Attributes:
        verdict: normal, high or low beside its reference; "roughly" if only another text is there; else unknown.
        text: a sentence or two.
        loss, expected, band: what was compared, and how far apart is normal.
        tokens: trained on.
        reference: the reference's preset and corpus.
    """

    verdict: Literal["normal", "high", "low", "roughly", "unknown"]
    text: str
    loss: float | None = None
    expected: float | None = None
    band: float | None = None
    tokens: int | None = None
    reference: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return asdict(self)


def is_normal(evidence: Evidence, references: Sequence[Reference]) -> Normality:
    """Returns how the run's loss stands to that of a healthy one."""
    if evidence.last_step and not evidence.steps:
        return Normality("unknown", "There are no records of the loss to compare.")
    preset = nearest_preset(evidence.config)
    if evidence.origin:
        return Normality("unknown", "The run began with another's weights, so no reference curve fits it.")
    if preset is None:
        return Normality("unknown", _no_presets(evidence))
    if evidence.last_step < EARLIEST_STEP:
        return Normality("unknown", f"The run is too short to be compared: {pluralize(evidence.last_step, 'step')}.")
    train = evidence.data["splits"]["train"]
    own = [r for r in references if r.preset == preset and r.sha256 == train["sha256"]]
    found = next((n for r in own if _same_schedule(evidence, r) and (n := _compare(evidence, r))), None)
    return found or _roughly(evidence, references, preset)


def _no_presets(evidence: Evidence) -> str:
    """Returns which preset's settings are the nearest, and in what the run's are others."""
    preset, differing = min(((n, differences(evidence.config, n)) for n in preset_names()), key=lambda p: len(p[1]))
    named = [f"{name} {own}, not {theirs}" for name, (own, theirs) in list(differing.items())[:MOST_NAMED]]
    more = len(differing) - len(named)
    return (
        f"No reference curve fits: the settings are no preset's. The nearest, {preset}, has other values of "
        f"{'; '.join(named)}{f'; and {more} more' if more else ''}."
    )


def _same_schedule(evidence: Evidence, reference: Reference) -> bool:
    """Whether the rate was the same at each step: it never changes, or both are of the same length."""
    return evidence.config.schedule.name == "constant" or evidence.total_steps == reference.total_steps


def _compare(evidence: Evidence, reference: Reference) -> Normality | None:
    """Compares the last lines with the curve at the same tokens; None if it does not reach there."""
    end = min(evidence.steps[-1]["tokens"], reference.points[-1][0])
    stretches = [
        (earlier, line)
        for earlier, line in pairwise(evidence.steps)
        if (1 - WINDOW) * end <= line["tokens"] <= end and earlier["step"] >= EARLIEST_STEP
    ][-40:]
    pairs = [
        (line["loss"], expected)
        for earlier, line in stretches
        if (expected := _mean_over(reference, earlier["tokens"], line["tokens"]))
    ]
    if not pairs:
        return None
    tokens = round(fmean(line["tokens"] for _, line in stretches))
    loss, expected = fmean(pair[0] for pair in pairs), fmean(pair[1] for pair in pairs)
    differences = [ours - theirs for ours, theirs in pairs]
    noise = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 3 else LEAST_BAND * expected
    pace = (reference.train_loss(tokens / LATER) or 0.0) - (reference.train_loss(tokens) or 0.0)
    band = max(LEAST_BAND * expected, ERRORS * noise, pace)
    verdict: Literal["normal", "high", "low"] = "normal"
    if abs(loss - expected) > band:
        verdict = "high" if loss > expected else "low"
    rate = usual_rate(evidence.config)
    other_rate = f" at its rate {rate:g}" if rate != evidence.config.train.lr else ""
    name = f"preset {reference.preset} on {reference.corpus}{other_rate}"
    words = {"normal": "normal", "high": "higher than normal", "low": "lower than normal"}[verdict]
    return Normality(
        verdict,
        f"The training loss is {words}: {loss:.3f} around {tokens / 1e6:.2f} M tokens; the reference run ({name}) had "
        f"{expected:.3f}, and {band:.3f} more or less is noise.",
        loss,
        expected,
        band,
        tokens,
        name,
    )


def _mean_over(reference: Reference, start: int, end: int) -> float | None:
    """Returns the reference's mean loss between two numbers of tokens, as a line has it; None outside of it."""
    losses = [reference.train_loss(place) for place in np.linspace(start, end, 2 * PLACES + 1)[1::2]]
    known = [loss for loss in losses if loss is not None]
    return fmean(known) if len(known) == PLACES else None


def _roughly(evidence: Evidence, every: Sequence[Reference], preset: str) -> Normality:
    """Sets the newest validation beside those of the same preset, elsewhere or in another length, at its tokens."""
    references = [reference for reference in every if reference.preset == preset]
    other_length = any(r.sha256 == evidence.data["splits"]["train"]["sha256"] for r in references)
    why = "The reference run on this text is of another length" if other_length else _why_none(evidence, every, preset)
    if not evidence.validations:
        return Normality("unknown", f"{why}, and there is no validation to compare.")
    last = evidence.validations[-1]
    beside = []
    for reference in references:
        near = min(reference.points[-1][0], last["tokens"])
        loss = reference.val_loss(near) if near > 0.8 * last["tokens"] else None
        if loss is not None:
            bits = loss / math.log(2) / reference.bytes_per_token
            beside.append(f"{bits:.2f} on {reference.corpus}")
    if not beside:
        return Normality("unknown", f"{why}, and {_range(references, preset, last['tokens'])}.")
    return Normality(
        "roughly",
        f"{why}. It takes {last['val_bits_per_byte']:.2f} bits per byte of validation after "
        f"{last['tokens'] / 1e6:.2f} M tokens; preset {preset} took {', '.join(beside)}. "
        + ("Only about the same is to be expected." if other_length else "Texts differ that much and more."),
        tokens=last["tokens"],
    )


def _why_none(evidence: Evidence, references: Sequence[Reference], preset: str) -> str:
    """Returns why no curve is of these tokens: another tokenizer, split or preset on the same text, or another text."""
    splits = evidence.data["splits"]
    size = splits["train"]["text_bytes"] + splits["val"]["text_bytes"]
    there = [reference for reference in references if reference.text_bytes == size]
    own = str(evidence.data["tokenizer"]["spec"])
    for reference in there:
        if reference.preset == preset and reference.tokenizer != own:
            text = f"{reference.corpus}, tokenized with {reference.tokenizer} and not with {own}"
            return f"The reference run was on the same text ({text})"
    if any(reference.preset == preset for reference in there):
        return f"The reference run was on the same text ({there[0].corpus}), split in another way"
    if there:
        others = ", ".join(sorted({reference.preset for reference in there}))
        return f"On this text ({there[0].corpus}) only other presets have reference runs ({others})"
    return "No reference run was on this text"


def _range(references: Sequence[Reference], preset: str, tokens: int) -> str:
    """Returns in words which numbers of tokens the curves of a preset cover with validations, and that not this."""
    places = [point[0] for reference in references for point in reference.points if point[2] is not None]
    if not places:
        return f"there is none of preset {preset} to compare with"
    first, last = min(places) / 1e6, max(places) / 1e6
    return f"those of preset {preset} cover {first:.2f} to {last:.2f} M tokens, not {tokens / 1e6:.2f}"
