"""What the run folder tells: checkpoints that are gone or damaged, records that are lost.

Each check is a pure function from the evidence to a finding, or None. A run in training is not judged: it writes and
removes checkpoints itself.
"""

from __future__ import annotations

from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding
from minigpt.text_utils import pluralize


def nothing_saved(evidence: Evidence) -> Finding | None:
    """A run that nobody is training, and that has no checkpoint yet, perhaps no step either."""
    saved = evidence.saved
    if saved is None or evidence.running or saved.newest or _has_saved(evidence):
        return None
    taken = (
        f"has taken {pluralize(evidence.last_step, 'step')} and saved none of them"
        if evidence.last_step
        else f"never took a step of its {evidence.total_steps:,}"
    )
    return Finding(
        "nothing saved",
        "problem",
        f"The run {taken}; nobody is training it.",
        "It was stopped, or failed, before its first checkpoint: there is no model to use.",
        f"Begin again: `{_begun_again(evidence)}`",
    )


def _has_saved(evidence: Evidence) -> bool:
    """Whether there must have been a checkpoint: by what is left of it, or by the steps and the time that it took."""
    train = evidence.config.train
    seconds = evidence.steps[-1]["seconds"] if evidence.steps else 0.0
    return bool(
        (evidence.saved and evidence.saved.damaged and evidence.last_step)
        or evidence.validations
        or (train.save_every and evidence.last_step >= train.save_every)
        or (train.save_minutes and seconds > 60 * train.save_minutes)
    )


def _begun_again(evidence: Evidence) -> str:
    """Returns the command that begins a run again of which nothing is left."""
    assert evidence.saved
    gone = evidence.origin and evidence.saved.newest is None  # what it began with is gone too: resume refuses
    return evidence.again("again") if gone else evidence.resumed()


def no_checkpoint(evidence: Evidence) -> Finding | None:
    """Steps that were taken and of which nothing is left."""
    saved = evidence.saved
    if saved is None or evidence.running or saved.newest or not _has_saved(evidence):
        return None
    return Finding(
        "no checkpoint",
        "problem",
        f"The run has taken {pluralize(evidence.last_step, 'step')}, and no whole checkpoint of them is there"
        + (f": {next(iter(saved.damaged.values()))}." if saved.damaged else "."),
        "What it has learned is lost: there is no model to use or to go on with.",
        "Restore its checkpoints folder from a copy. Without one, begin again: " + f"`{_begun_again(evidence)}`",
    )


def damaged_checkpoint(evidence: Evidence) -> Finding | None:
    """A newest or best checkpoint that cannot be read, where another can."""
    saved = evidence.saved
    if saved is None or evidence.running or not saved.newest or not (saved.damaged or saved.best):
        return None
    what = "newest" if saved.damaged else "best"
    others = (
        f"Without one, go on from step {saved.newest:,}: `{evidence.resumed()}`"
        if saved.damaged
        else "Without one, name another: --checkpoint latest."
    )
    return Finding(
        "damaged checkpoint",
        "problem",
        f"The {what} checkpoint is damaged: {next(iter(saved.damaged.values()), saved.best)}.",
        f"Whatever asks for it is refused; that of step {saved.newest:,} is whole.",
        f"Restore it from a copy. {others}",
    )


def no_metrics(evidence: Evidence) -> Finding | None:
    """Records that are gone, of a run that has taken steps."""
    saved = evidence.saved
    if saved is None or evidence.running or not saved.newest or evidence.steps:
        return None
    return Finding(
        "no metrics",
        "hint",
        f"metrics.jsonl tells of no step, and the newest checkpoint is of step {saved.newest:,}.",
        "Its losses and its speed cannot be judged. The weights are whole.",
        "Restore metrics.jsonl from a copy. A run that goes on writes new lines.",
    )
