"""Is the loss normal? The answer by the reference curves, if there is one to compare with.

A run is compared with a reference of the same preset; seed and learning rate may differ. On the same text and tokenizer
(identified by the checksum of the training tokens) and with the same schedule: loss against loss at the same number of
tokens. On another text, or in another length, only roughly: in bits per byte, and without a verdict.
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
from minigpt.doctor.references import Reference, differences, nearest_preset, preset_lr
from minigpt.text_utils import pluralize

MIN_BAND = 0.02
"""Share of the loss by which seed, machine and number format change it."""

ERRORS = 4.0
"""Standard errors of the mean difference that count as noise."""

PACE = 1.15
"""A run that needs this many times the tokens for the same loss is normal: on a steep curve, seeds differ by that."""

WINDOW, MAX_LINES = 0.25, 40
"""The last step records are compared: those in this share of the tokens, and so many at most."""

POINTS = 8
"""A record's loss is the mean since the record before; the reference's is taken at so many points in between."""

MAX_NAMED = 4
"""Settings that are named if they differ from a preset's."""

MIN_STEP = 50
"""Before it the loss falls too steeply to be compared."""

Verdict = Literal["normal", "high", "low", "roughly", "unknown"]


@dataclass(frozen=True)
class Normality:
    """The answer.

    Attributes:
        verdict: normal, high or low compared with its reference; "roughly" if only another text is there; else unknown.
        text: a sentence or two.
        loss, expected, band: what was compared, and how far apart is normal.
        tokens: trained on.
        reference: the reference's preset and corpus.
    """

    verdict: Verdict
    text: str
    loss: float | None = None
    expected: float | None = None
    band: float | None = None
    tokens: int | None = None
    reference: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return asdict(self)


def compare(evidence: Evidence, references: Sequence[Reference]) -> Normality:
    """Compares the run's loss with that of a healthy run."""
    if evidence.last_step and not evidence.steps:
        return Normality("unknown", "The run has no records of its loss to compare.")
    preset = nearest_preset(evidence.config)
    if evidence.origin:
        return Normality("unknown", "The run began with another run's weights, so no reference curve applies.")
    if preset is None:
        return Normality("unknown", _not_a_preset(evidence))
    if evidence.last_step < MIN_STEP:
        return Normality(
            "unknown", f"With {pluralize(evidence.last_step, 'step')}, the run is too short to be compared."
        )
    train = evidence.data["splits"]["train"]
    own = [r for r in references if r.preset == preset and r.sha256 == train["sha256"]]
    found = next((n for r in own if _same_schedule(evidence, r) and (n := _compare_with(evidence, r))), None)
    return found or _roughly(evidence, references, preset)


def _not_a_preset(evidence: Evidence) -> str:
    """Says which preset is the nearest, and how the run's settings differ from it."""
    preset, differing = min(((n, differences(evidence.config, n)) for n in preset_names()), key=lambda p: len(p[1]))
    named = [f"{name} (here {own}, there {theirs})" for name, (own, theirs) in list(differing.items())[:MAX_NAMED]]
    more = len(differing) - len(named)
    return (
        f"No reference curve applies: the settings are not a preset's. The nearest, {preset}, differs in "
        f"{', '.join(named)}{f' and {more} more' if more else ''}."
    )


def _same_schedule(evidence: Evidence, reference: Reference) -> bool:
    """Whether the learning rate was the same at each step: it is constant, or both runs have the same length."""
    return evidence.config.schedule.name == "constant" or evidence.total_steps == reference.total_steps


def _compare_with(evidence: Evidence, reference: Reference) -> Normality | None:
    """Compares the last step records with the curve at the same tokens; None if it does not reach there."""
    end = min(evidence.steps[-1]["tokens"], reference.points[-1][0])
    stretches = [
        (earlier, line)
        for earlier, line in pairwise(evidence.steps)
        if (1 - WINDOW) * end <= line["tokens"] <= end and earlier["step"] >= MIN_STEP
    ][-MAX_LINES:]
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
    noise = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 3 else MIN_BAND * expected
    pace = (reference.train_loss(tokens / PACE) or 0.0) - (reference.train_loss(tokens) or 0.0)
    band = max(MIN_BAND * expected, ERRORS * noise, pace)
    verdict: Verdict = "normal"
    if abs(loss - expected) > band:
        verdict = "high" if loss > expected else "low"
    rate = preset_lr(evidence.config)
    other_rate = f" at the preset's learning rate {rate:g}" if rate != evidence.config.train.lr else ""
    name = f"preset {reference.preset} on {reference.corpus}{other_rate}"
    words = {"normal": "normal", "high": "higher than normal", "low": "lower than normal"}[verdict]
    return Normality(
        verdict,
        f"The training loss is {words}: {loss:.3f} around {tokens / 1e6:.2f} M tokens; the reference run ({name}) had "
        f"{expected:.3f}, and differences up to {band:.3f} are noise.",
        loss,
        expected,
        band,
        tokens,
        name,
    )


def _mean_over(reference: Reference, start: int, end: int) -> float | None:
    """Returns the reference's mean loss between two numbers of tokens; None outside its curve."""
    losses = [reference.train_loss(place) for place in np.linspace(start, end, 2 * POINTS + 1)[1::2]]
    known = [loss for loss in losses if loss is not None]
    return fmean(known) if len(known) == POINTS else None


def _roughly(evidence: Evidence, every: Sequence[Reference], preset: str) -> Normality:
    """Compares the newest validation with those of the same preset on other texts, or in another length."""
    references = [reference for reference in every if reference.preset == preset]
    other_length = any(r.sha256 == evidence.data["splits"]["train"]["sha256"] for r in references)
    why = "The reference run on this text has another length" if other_length else _why_none(evidence, every, preset)
    if not evidence.validations:
        return Normality("unknown", f"{why}, and there is no validation to compare.")
    last = evidence.validations[-1]
    others = []
    for reference in references:
        near = min(reference.points[-1][0], last["tokens"])
        loss = reference.val_loss(near) if near > 0.8 * last["tokens"] else None
        if loss is not None:
            bits = loss / math.log(2) / reference.bytes_per_token
            others.append(f"{bits:.2f} on {reference.corpus}")
    if not others:
        return Normality("unknown", f"{why}, and {_range(references, preset, last['tokens'])}.")
    return Normality(
        "roughly",
        f"{why}. This run has {last['val_bits_per_byte']:.2f} bits per byte of validation after "
        f"{last['tokens'] / 1e6:.2f} M tokens; preset {preset} had {', '.join(others)}. "
        + ("Expect only about the same." if other_length else "Texts differ by that much and more."),
        tokens=last["tokens"],
    )


def _why_none(evidence: Evidence, references: Sequence[Reference], preset: str) -> str:
    """Says why no curve is of these tokens: another tokenizer, split or preset on the same text, or another text."""
    splits = evidence.data["splits"]
    size = splits["train"]["text_bytes"] + splits["val"]["text_bytes"]
    there = [reference for reference in references if reference.text_bytes == size]
    own = str(evidence.data["tokenizer"]["spec"])
    for reference in there:
        if reference.preset == preset and reference.tokenizer != own:
            text = f"{reference.corpus}, tokenized with {reference.tokenizer} instead of {own}"
            return f"The reference run was on the same text ({text})"
    if any(reference.preset == preset for reference in there):
        return f"The reference run was on the same text ({there[0].corpus}), but split differently"
    if there:
        others = ", ".join(sorted({reference.preset for reference in there}))
        return f"Only other presets have reference runs on this text, {there[0].corpus} ({others})"
    return "There is no reference run on this text"


def _range(references: Sequence[Reference], preset: str, tokens: int) -> str:
    """Says which numbers of tokens the validations of a preset's curves cover, and that this is not one."""
    places = [point[0] for reference in references for point in reference.points if point[2] is not None]
    if not places:
        return f"preset {preset} has no curve to compare with"
    first, last = min(places) / 1e6, max(places) / 1e6
    return f"the curves of preset {preset} cover {first:.2f} to {last:.2f} M tokens, not {tokens / 1e6:.2f}"
