"""What the losses tell: a wrong beginning, standing still, overfitting, an end that came too early or not at all.

Each check is a pure function from the evidence to a finding, or None. Thresholds carry the reason for their value; the
runs behind them are in docs/doctor.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from minigpt.doctor.evidence import ORDERLY, Evidence
from minigpt.doctor.finding import Finding
from minigpt.doctor.references import higher_rate, lower_rate
from minigpt.records import REWOUND, SKIPPED_STEP, Record
from minigpt.text_utils import pluralize

FIRST_LOSS = 0.1
"""The first loss may differ from ln(vocabulary) by this share: wide models begin up to 7 % above it."""

FIRST_NATS, FIRST_BY_WIDTH = 0.3, 2e-4
"""Or by so many nats, and so many for each number of the width: small vocabularies have a small logarithm."""

STILL_STEPS = 100
"""Steps behind the warm-up after which a loss must have moved."""

STILL_FALL = 0.02
"""By this share of the first loss: healthy runs fell by 29 % and more, one at a hundredth of its rate by 3 %."""

PLATEAU_STEPS = 500
"""Steps after which a model must have learned more than how often each token occurs: healthy ones do within 60."""

PLATEAU_NOISE = 0.005
"""So little below the loss of counting tokens, as a share of it, nothing else has been learned."""

RISE, SUDDEN_RISE = 0.01, 0.03
"""A validation loss has risen if the last three are on average this share above the best, or the one or two behind it
are; all by half of that at least. Twice that while the rate is high, where it wavers by 2 %."""

MOST_DROPOUT = 0.3

STEEP = 0.03
"""Loss falls clearly if doubling the tokens lowers it by this share; a finished run of preset laptop had 2 %."""

STEEP_AT_REST = 0.06
"""The same where the learning rate has come down to its end, which itself lowers the loss."""

PAYS, LEAST_EPOCHS, LEAST_SHARE = 0.002, 3, 0.2
"""Epochs do not pay if they are so many, and this share of all, and lower the validation loss by less than the first of
these, as a share of it, all together."""

REPEATED = 4
"""Up to so many epochs are nearly as good as new text (Muennighoff et al. 2023)."""

BAD_IN_A_ROW = 5
"""So many bad steps end a run (minigpt/training/step_guard.py)."""


def first_loss(evidence: Evidence) -> Finding | None:
    """A model that knows nothing gives every token of the vocabulary the same chance: ln(vocabulary) nats."""
    first = evidence.steps[0]
    expected = math.log(evidence.config.model.vocab_size)
    allowed = max(FIRST_LOSS * expected, FIRST_NATS + FIRST_BY_WIDTH * evidence.config.model.n_embd)
    if evidence.origin or first["step"] != 1 or abs(first["loss"] - expected) <= allowed:
        return None
    high = first["loss"] > expected
    return Finding(
        "first loss",
        "problem",
        f"The first loss was {first['loss']:.3f}; a model that knows nothing has ln(vocabulary) = {expected:.3f}.",
        "The first weights are too large, or targets are not what the model predicts."
        if high
        else "The model knows before it has learned: it can see its targets, or its weights are not new.",
        "Look at what was changed in the initial weights (minigpt/model/gpt.py) and the targets "
        f"(minigpt/data/batch_loader.py), and begin again: `{evidence.again('again')}`",
        step=1,
        epoch=first["epoch"],
    )


def not_moving(evidence: Evidence) -> Finding | None:
    """A loss that stands where it began, or where counting tokens alone would bring it."""
    last, steps = evidence.last_step, evidence.last_step - evidence.warmup_steps
    recent = evidence.loss(last - max(20, last // 10))
    first = evidence.steps[0]
    if evidence.origin or first["step"] != 1 or recent is None or steps < STILL_STEPS:
        return None
    learned = evidence.unigram is not None and recent < 1.01 * evidence.unigram  # of few letters that is little
    if first["loss"] - recent < STILL_FALL * first["loss"] and not learned:
        return Finding(
            "not moving",
            "problem",
            f"The loss was {first['loss']:.3f} at the first step and is {recent:.3f} after {last:,}.",
            "The model does not learn: its weights hardly change, or the targets have nothing to do with the text.",
            f"If the rate {evidence.config.train.lr:g} was meant to be higher: "
            f"`{evidence.again('faster', '--train.lr', f'{higher_rate(evidence.config):g}')}`",
            step=1,
            epoch=first["epoch"],
        )
    middle = evidence.loss(0.4 * last, 0.6 * last)
    counted = _worth_beating(evidence)
    if counted is None or middle is None or steps < PLATEAU_STEPS or middle > 1.02 * recent:
        return None
    lines = [line["loss"] for line in evidence.steps if line["step"] >= last - max(20, last // 10)]
    error = stdev(lines) / math.sqrt(len(lines)) if len(lines) > 2 else 0.0
    if recent < counted - max(PLATEAU_NOISE * counted, 2 * error):
        return None
    lower = lower_rate(evidence.config)
    return Finding(
        "not moving",
        "problem",
        f"The loss stands at {recent:.3f}; knowing how often each token occurs gives {counted:.3f}.",
        "The model has learned to count tokens and nothing of their order. A learning rate that is too high does that.",
        f"Train anew at a lower rate: `{evidence.again('slower', '--train.lr', f'{lower:g}')}`",
        step=int(0.4 * last),
    )


def _worth_beating(evidence: Evidence) -> float | None:
    """Returns the loss of counting tokens, where the text's order tells more than that."""
    counted, ordered = evidence.unigram, evidence.bigram
    return counted if counted and ordered is not None and ordered < (1 - ORDERLY) * counted else None


def bigram(evidence: Evidence) -> Finding | None:
    """A model that predicts worse than counting which token follows which."""
    if not evidence.finished or evidence.pairs is None or not evidence.validations:
        return None
    best = min(evidence.validations, key=lambda record: record["val_loss"])
    if best["val_loss"] < evidence.pairs:
        return None
    by_heart = evidence.validations[-1]["train_loss"] < evidence.pairs
    return Finding(
        "bigram",
        "problem",
        f"The lowest validation loss is {best['val_loss']:.3f}; counting which token follows which in training "
        f"gives {evidence.pairs:.3f}.",
        "A table of counts predicts this text better than the model: it has not learned to read context yet.",
        "It learns this text by heart instead: more text helps." if by_heart else _longer(evidence, 4),
    )


def overfitting(evidence: Evidence) -> Finding | None:
    """Validation loss rises while training loss falls."""
    validations = evidence.validations
    best = min(validations, key=lambda record: record["val_loss"])
    behind = validations[validations.index(best) + 1 :][-3:]
    if not behind:
        return None
    last = behind[-1]
    high = not evidence.steps or evidence.steps[-1]["lr"] > 0.5 * evidence.config.train.lr
    allowed = (RISE if len(behind) > 2 else SUDDEN_RISE) * (2 if high else 1) * best["val_loss"]
    rises = [record["val_loss"] - best["val_loss"] for record in behind]
    clearly = fmean(rises) > allowed and min(rises) > allowed / 2
    if not clearly or last["epoch"] < 1.5 or last["train_loss"] >= best["train_loss"]:
        return None  # nothing is learned by heart that was seen once
    epochs = max(1, round(best["epoch"]))
    dropout = evidence.config.model.dropout
    remedies = []
    if dropout < MOST_DROPOUT:
        more = f"{min(MOST_DROPOUT, dropout + 0.1):g}"
        remedies.append(f"more dropout: `{evidence.again('dropout', '--model.dropout', more)}`")
    if epochs < evidence.total_steps / evidence.steps_per_epoch:
        remedies.append(f"{pluralize(epochs, 'epoch')}, which is shorter: `{evidence.again('shorter', epochs=epochs)}`")
    return Finding(
        "overfitting",
        "problem",
        f"Validation loss was {best['val_loss']:.3f} at epoch {best['epoch']:g} and is {last['val_loss']:.3f} at "
        f"{last['epoch']:g}; training loss went from {best['train_loss']:.3f} to {last['train_loss']:.3f}.",
        f"Since epoch {best['epoch']:g} the model learns the training text by heart: {rises[-1]:.3f} nats were lost.",
        "; ".join(["The best checkpoint is kept, and used by itself. More text helps most", *remedies]),
        step=best["step"],
        epoch=best["epoch"],
    )


def repetition(evidence: Evidence) -> Finding | None:
    """Epochs that bring next to nothing, though nothing is lost by them either."""
    ends = [record for record in evidence.validations if float(record["epoch"]).is_integer()]
    paying = _last_that_paid(ends)
    if paying is None or ends[-1]["epoch"] <= REPEATED:
        return None
    if ends[-1]["epoch"] - paying["epoch"] < max(LEAST_EPOCHS, LEAST_SHARE * ends[-1]["epoch"]):
        return None
    last, since = ends[-1], round(ends[-1]["epoch"] - paying["epoch"])
    gained = paying["val_loss"] - last["val_loss"]
    if gained < 0:
        return None  # that is overfitting, or chance
    return Finding(
        "repetition",
        "hint",
        f"The {since} epochs since epoch {paying['epoch']:g} lowered the validation loss by {gained:.3f}, from "
        f"{paying['val_loss']:.3f}.",
        "The text has given what this model can take from it: beyond some 4 epochs repetition teaches little, beyond "
        "16 next to nothing (Muennighoff et al. 2023).",
        f"More text helps. The same sooner: `{evidence.again('shorter', epochs=round(paying['epoch']))}`",
        step=paying["step"],
        epoch=paying["epoch"],
    )


def _last_that_paid(ends: Sequence[Record]) -> Record | None:
    """Returns the first epoch behind which all that was gained, together, is next to nothing."""
    lowest = min((record["val_loss"] for record in ends), default=0.0)
    return next((record for record in ends if record["val_loss"] * (1 - PAYS) < lowest), None)


def too_early(evidence: Evidence) -> Finding | None:
    """Validation loss still falls when the run ends."""
    if evidence.last_step < evidence.total_steps:
        return None
    last = evidence.validations[-1]
    before = next((r for r in reversed(evidence.validations) if last["tokens"] > 1.2 * r["tokens"]), None)
    if before is None:
        return None
    fall = _fall(before, last)
    decayed = evidence.decayed
    if fall < (STEEP_AT_REST if decayed else STEEP) * last["val_loss"]:
        return None
    half = next((r for r in reversed(evidence.validations) if last["tokens"] >= 2 * r["tokens"]), before)
    promise = min(fall, _fall(half, last))  # the end of a schedule falls steeper than what comes after it
    return Finding(
        "ended too early",
        "hint",
        f"Validation loss was still falling at the end: from {before['val_loss']:.3f} at epoch {before['epoch']:g} to "
        f"{last['val_loss']:.3f} at {last['epoch']:g}.",
        f"As many steps again may bring up to {promise:.2f}"
        + ("; the learning rate has come to its end, so it takes a new run." if decayed else "."),
        _longer(evidence, 2),
        step=last["step"],
        epoch=last["epoch"],
    )


def _longer(evidence: Evidence, times: int) -> str:
    """Returns how to train for so many times the steps: on, or anew where the rate has come to its end."""
    train = evidence.config.train
    length = ("--steps", str(times * evidence.total_steps)) if train.steps else ("--epochs", str(times * train.epochs))
    if evidence.decayed:
        return f"Train anew, longer: `{evidence.again('longer', *length)}`"
    return f"Go on with it: `{evidence.resumed(*length)}`"


def _fall(before: Record, last: Record) -> float:
    """Returns by how much the validation loss fell from one to another, for each doubling of the tokens."""
    return float((before["val_loss"] - last["val_loss"]) / math.log2(last["tokens"] / before["tokens"]))


def stopped(evidence: Evidence) -> Finding | None:
    """A run that did not come to its end, and that nobody is training."""
    if evidence.running or evidence.finished:
        return None
    return Finding(
        "stopped",
        "hint",
        f"The run has taken {evidence.last_step:,} of {pluralize(evidence.total_steps, 'step')}.",
        "It was stopped before its end, and can go on from where it stands.",
        f"Go on with it: `{evidence.resumed()}`",
        step=evidence.last_step,
        epoch=evidence.epochs,
    )


def diverged(evidence: Evidence) -> Finding | None:
    """Bad steps in a row that have ended the run."""
    bad = {note["step"]: note for note in evidence.notes if SKIPPED_STEP in note["text"]}
    first = bad.get(evidence.last_step - BAD_IN_A_ROW + 1)
    if evidence.running or first is None or not bad.keys() >= set(range(first["step"], evidence.last_step + 1)):
        return None
    return Finding(
        "diverged",
        "problem",
        f"The last {BAD_IN_A_ROW} steps had no finite loss or gradient, and the run ended itself.",
        _grown_too_large(evidence) + " To go on would take the same steps again.",
        _finite_again(evidence),
        step=first["step"],
        epoch=first["epoch"],
    )


def bad_steps(evidence: Evidence) -> Finding | None:
    """Steps without a finite loss or gradient. (A few in a row end the run by themselves.)"""
    gone = [note for note in evidence.notes if note["text"].startswith(REWOUND)]  # and what it was for
    bad = [note for note in evidence.notes if SKIPPED_STEP in note["text"]] or gone
    if not bad:
        return None
    return Finding(
        "bad steps",
        "problem",
        f"{pluralize(len(bad), 'step')} had no finite loss or gradient, the first one {bad[0]['step']:,}."
        if bad is not gone
        else f"Several steps in a row had no finite loss or gradient, {pluralize(len(gone), 'time')}: the run "
        f"{gone[0]['text'].split(',')[0]}.",
        _grown_too_large(evidence),
        _finite_again(evidence),
        step=bad[0]["step"],
        epoch=bad[0]["epoch"],
    )


def _in_half(evidence: Evidence) -> bool:
    return evidence.environment.get("precision") == "float16"


def _grown_too_large(evidence: Evidence) -> str:
    why = " for float16." if _in_half(evidence) else ": the learning rate is too high, or a weight is broken."
    return f"Numbers grew too large{why}"


def _finite_again(evidence: Evidence) -> str:
    if _in_half(evidence):
        return f"Train anew in float32: `{evidence.again('again', '--machine.precision', 'float32')}`"
    lower = lower_rate(evidence.config)
    return f"Train anew at a lower rate: `{evidence.again('again', '--train.lr', f'{lower:g}')}`"
