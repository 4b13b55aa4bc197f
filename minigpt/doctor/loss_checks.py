"""What the losses tell: a wrong start, no progress, overfitting, an end that came too early or not at all.

Each check is a pure function from the evidence to a finding, or None. Thresholds carry the reason for their value; the
runs behind them are in docs/doctor.md.
"""

from __future__ import annotations

import math
from statistics import fmean, stdev

from minigpt.doctor.evidence import LONG_CONTEXT_GAIN, Evidence
from minigpt.doctor.finding import Finding, hint, problem
from minigpt.doctor.references import higher_lr, lower_lr
from minigpt.records import REWOUND, SKIPPED_STEP, Record
from minigpt.text_utils import pluralize

INITIAL_SHARE = 0.1
"""The initial loss may differ from ln(vocabulary) by this share: wide models begin up to 7 % above it."""

INITIAL_NATS, NATS_BY_WIDTH = 0.3, 2e-4
"""Or by these nats, and these for each dimension of the width: small vocabularies have a small logarithm."""

PLATEAU_STEPS, PLATEAU_FALL = 100, 0.02
"""Steps after the warm-up by which the loss must have fallen, and by which share of the initial one: healthy runs fell
by 29 % and more, one at a hundredth of its rate by 3 %."""

UNIGRAM_STEPS, UNIGRAM_NOISE = 500, 0.005
"""Steps after which a model must have learned more than token frequencies, healthy ones do within 60; and how far below
their loss, as a share of it, that begins."""

OVERFIT, SUDDEN_OVERFIT = 0.01, 0.03
"""A validation loss has risen if the last three are on average this share above the best, or the one or two after it
are; all by half of that at least. Twice that while the rate is high, where losses vary by 2 %."""

MAX_DROPOUT = 0.3

STEEP, STEEP_DECAYED = 0.03, 0.06
"""Loss falls clearly if doubling the tokens lowers it by this share (a finished run of preset laptop had 2 %), and if
the learning rate has come down, which itself lowers the loss."""

GAIN, MIN_EPOCHS, MIN_EPOCH_SHARE = 0.002, 3, 0.2
"""Epochs do not pay if they are so many, and this share of all, and all together lower the validation loss by less than
the first of these, as a share of it."""

GOOD_EPOCHS = 4
"""Up to so many epochs are nearly as good as new text (Muennighoff et al. 2023)."""

MAX_NONFINITE = 5
"""So many non-finite steps in a row end a run (minigpt/training/step_guard.py)."""


def initial_loss(evidence: Evidence) -> Finding | None:
    """An untrained model gives every token of the vocabulary the same probability: ln(vocabulary) nats."""
    first = evidence.steps[0]
    expected = math.log(evidence.config.model.vocab_size)
    allowed = max(INITIAL_SHARE * expected, INITIAL_NATS + NATS_BY_WIDTH * evidence.config.model.n_embd)
    if evidence.origin or first["step"] != 1 or abs(first["loss"] - expected) <= allowed:
        return None
    return problem(
        "initial loss",
        f"The loss of the first step was {first['loss']:.3f}; an untrained model has ln(vocabulary) = {expected:.3f}.",
        "The initial weights are too large, or the targets are not what the model predicts."
        if first["loss"] > expected
        else "The model knows before it has learned: it can see its targets, or its weights are not new.",
        "Check what was changed in the initialization (minigpt/model/gpt.py) and the targets "
        f"(minigpt/data/batch_loader.py), then start again: {evidence.train_again('again')}",
        first,
    )


def plateau(evidence: Evidence) -> Finding | None:
    """The loss stays where it began, or where token frequencies alone bring it."""
    last, steps = evidence.last_step, evidence.last_step - evidence.warmup_steps
    recent = evidence.loss(last - max(20, last // 10))
    first, lr = evidence.steps[0], evidence.config.train.lr
    if evidence.origin or first["step"] != 1 or recent is None or steps < PLATEAU_STEPS:
        return None
    unigram = evidence.unigram_entropy
    learned = unigram is not None and recent < 1.01 * unigram  # of few letters that is little
    if first["loss"] - recent < PLATEAU_FALL * first["loss"] and not learned:
        higher = evidence.train_again("higher-lr", "--train.lr", f"{higher_lr(evidence.config):g}")
        return problem(
            "loss plateau",
            f"The loss was {first['loss']:.3f} at the first step and is {recent:.3f} after {last:,}.",
            "The model does not learn: its weights hardly change, or the targets have nothing to do with the text.",
            f"If you meant the learning rate {lr:g} to be higher: {higher}",
            first,
        )
    bigram, middle = evidence.bigram_entropy, evidence.loss(0.4 * last, 0.6 * last)
    if unigram is None or bigram is None or bigram >= (1 - LONG_CONTEXT_GAIN) * unigram:
        return None
    if middle is None or steps < UNIGRAM_STEPS or middle > 1.02 * recent:
        return None
    losses = [line["loss"] for line in evidence.steps if line["step"] >= last - max(20, last // 10)]
    error = stdev(losses) / math.sqrt(len(losses)) if len(losses) > 2 else 0.0
    if recent < unigram - max(UNIGRAM_NOISE * unigram, 2 * error):
        return None
    lower = evidence.train_again("lower-lr", "--train.lr", f"{lower_lr(evidence.config):g}")
    return problem(
        "loss plateau",
        f"The loss stays at {recent:.3f}; knowing only how often each token occurs gives {unigram:.3f}.",
        "The model has learned token frequencies and nothing about their order, often because the learning rate is "
        "too high.",
        f"Train again at a lower rate: {lower}",
        {"step": int(0.4 * last)},
    )


def worse_than_bigram(evidence: Evidence) -> Finding | None:
    """The model predicts worse than a bigram model of the training text."""
    if not evidence.finished or evidence.bigram_loss is None or not evidence.validations:
        return None
    best = evidence.best_validation["val_loss"]
    if best < evidence.bigram_loss:
        return None
    memorized = evidence.validations[-1]["train_loss"] < evidence.bigram_loss
    return problem(
        "worse than bigram",
        f"The lowest validation loss is {best:.3f}; that of a bigram model is {evidence.bigram_loss:.3f}.",
        "A table of token pairs predicts this text better: the model has not learned to use its context yet.",
        "It memorizes the training text instead: more text helps." if memorized else _longer(evidence, 4),
    )


def overfitting(evidence: Evidence) -> Finding | None:
    """Validation loss rises while training loss falls."""
    best = evidence.best_validation
    after = evidence.validations[evidence.validations.index(best) + 1 :][-3:]
    if not after:
        return None
    last = after[-1]
    high_lr = not evidence.steps or evidence.steps[-1]["lr"] > 0.5 * evidence.config.train.lr
    allowed = (OVERFIT if len(after) > 2 else SUDDEN_OVERFIT) * (2 if high_lr else 1) * best["val_loss"]
    rises = [record["val_loss"] - best["val_loss"] for record in after]
    clear = fmean(rises) > allowed and min(rises) > allowed / 2
    if not clear or last["epoch"] < 1.5 or last["train_loss"] >= best["train_loss"]:
        return None  # text that was seen once cannot be memorized
    fixes = ["The best checkpoint is saved and used by default. More text helps most"]
    if (dropout := evidence.config.model.dropout) < MAX_DROPOUT:
        more = f"{min(MAX_DROPOUT, dropout + 0.1):g}"
        fixes.append(f"more dropout: {evidence.train_again('dropout', '--model.dropout', more)}")
    epochs = max(1, round(best["epoch"]))
    if epochs < evidence.total_steps / evidence.steps_per_epoch:
        fixes.append(f"{pluralize(epochs, 'epoch')} only: {evidence.train_again('shorter', epochs=epochs)}")
    return problem(
        "overfitting",
        f"Validation loss was {best['val_loss']:.3f} at epoch {best['epoch']:g} and is {last['val_loss']:.3f} at "
        f"{last['epoch']:g}; training loss went from {best['train_loss']:.3f} to {last['train_loss']:.3f}.",
        f"Since epoch {best['epoch']:g} the model has been memorizing the training text, which cost {rises[-1]:.3f} "
        "nats.",
        "; ".join(fixes),
        best,
    )


def diminishing_returns(evidence: Evidence) -> Finding | None:
    """Epochs that bring next to nothing, though they do no harm either."""
    ends = [record for record in evidence.validations if float(record["epoch"]).is_integer()]
    lowest = min((record["val_loss"] for record in ends), default=0.0)
    paid = next((record for record in ends if record["val_loss"] * (1 - GAIN) < lowest), None)
    if paid is None or ends[-1]["epoch"] <= GOOD_EPOCHS:
        return None
    epochs, gained = ends[-1]["epoch"] - paid["epoch"], paid["val_loss"] - ends[-1]["val_loss"]
    if epochs < max(MIN_EPOCHS, MIN_EPOCH_SHARE * ends[-1]["epoch"]) or gained < 0:
        return None  # a loss that rises is overfitting, or chance
    return hint(
        "diminishing returns",
        f"The {round(epochs)} epochs since epoch {paid['epoch']:g} lowered the validation loss by {gained:.3f}, from "
        f"{paid['val_loss']:.3f}.",
        "The model has learned what it can from this text: beyond about 4 epochs repetition teaches little, beyond 16 "
        "next to nothing (Muennighoff et al. 2023).",
        f"More text helps. The same result sooner: {evidence.train_again('shorter', epochs=round(paid['epoch']))}",
        paid,
    )


def ended_too_early(evidence: Evidence) -> Finding | None:
    """Validation loss still falls when the run ends."""
    if evidence.last_step < evidence.total_steps:
        return None
    last, earlier = evidence.validations[-1], evidence.validations[::-1]
    before = next((record for record in earlier if last["tokens"] > 1.2 * record["tokens"]), None)
    if before is None:
        return None
    fall, decayed = _fall(before, last), evidence.decayed
    if fall < (STEEP_DECAYED if decayed else STEEP) * last["val_loss"]:
        return None
    half = next((record for record in earlier if last["tokens"] >= 2 * record["tokens"]), before)
    promise = min(fall, _fall(half, last))  # the end of a schedule falls more steeply than what comes after it
    return hint(
        "ended too early",
        f"Validation loss was still falling at the end: from {before['val_loss']:.3f} at epoch {before['epoch']:g} to "
        f"{last['val_loss']:.3f} at {last['epoch']:g}.",
        f"Twice as many steps may lower it by up to {promise:.2f}"
        + ("; the learning rate has already decayed, so that takes a new run." if decayed else "."),
        _longer(evidence, 2),
        last,
    )


def _longer(evidence: Evidence, times: int) -> str:
    """Returns how to train for so many times the steps: on, or anew where the rate has decayed."""
    train = evidence.config.train
    length = ("--steps", str(times * evidence.total_steps)) if train.steps else ("--epochs", str(times * train.epochs))
    if evidence.decayed:
        return f"Train a longer run: {evidence.train_again('longer', *length)}"
    return f"Continue it: {evidence.resume(*length)}"


def _fall(before: Record, last: Record) -> float:
    """Returns by how much the validation loss fell from one record to another, for each doubling of the tokens."""
    return float((before["val_loss"] - last["val_loss"]) / math.log2(last["tokens"] / before["tokens"]))


def stopped(evidence: Evidence) -> Finding | None:
    """The run did not reach its end, and nobody is training it."""
    if evidence.running or evidence.finished:
        return None
    return hint(
        "stopped",
        f"The run has taken {evidence.last_step:,} of {pluralize(evidence.total_steps, 'step')}.",
        "It was stopped before its end and can be resumed.",
        f"Continue it: {evidence.resume()}",
        {"step": evidence.last_step, "epoch": evidence.epochs},
    )


def diverged(evidence: Evidence) -> Finding | None:
    """Non-finite steps in a row have ended the run."""
    bad = {note["step"]: note for note in evidence.notes if SKIPPED_STEP in note["text"]}
    first = bad.get(evidence.last_step - MAX_NONFINITE + 1)
    if evidence.running or first is None or not bad.keys() >= set(range(first["step"], evidence.last_step + 1)):
        return None
    return problem(
        "diverged",
        f"The last {MAX_NONFINITE} steps had no finite loss or gradient, which ended the run.",
        f"{_overflow(evidence)} Resuming would take the same steps again.",
        _finite_again(evidence),
        first,
    )


def nonfinite_steps(evidence: Evidence) -> Finding | None:
    """Steps without a finite loss or gradient. (A few in a row end the run by themselves.)"""
    rewinds = [note for note in evidence.notes if note["text"].startswith(REWOUND)]
    bad = [note for note in evidence.notes if SKIPPED_STEP in note["text"]]
    if not (bad or rewinds):
        return None
    if bad:
        observation = f"{pluralize(len(bad), 'step')} had no finite loss or gradient, first step {bad[0]['step']:,}."
    else:  # a rewind drops the records of what it was for
        observation = f"Several steps in a row had no finite loss or gradient, {pluralize(len(rewinds), 'time')}: the "
        observation += f"run {rewinds[0]['text'].split(',')[0]}."
    return problem("non-finite steps", observation, _overflow(evidence), _finite_again(evidence), (bad or rewinds)[0])


def _is_half(evidence: Evidence) -> bool:
    return evidence.environment.get("precision") == "float16"


def _overflow(evidence: Evidence) -> str:
    if _is_half(evidence):
        return "Numbers grew too large for float16."
    return "Numbers grew too large: the learning rate is too high, or a weight is broken."


def _finite_again(evidence: Evidence) -> str:
    if _is_half(evidence):
        return f"Train again in float32: {evidence.train_again('float32', '--machine.precision', 'float32')}"
    lower = evidence.train_again("lower-lr", "--train.lr", f"{lower_lr(evidence.config):g}")
    return f"Train again at a lower rate: {lower}"
