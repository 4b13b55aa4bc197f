"""What the run folder tells: checkpoints that are gone or damaged, records that are lost.

Each check is a pure function from the evidence to a finding, or None. A run in training is not judged: it writes and
removes checkpoints itself.
"""

from __future__ import annotations

from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding, hint, problem
from minigpt.runs.snapshot import CheckpointStatus
from minigpt.text_utils import pluralize


def _status(evidence: Evidence) -> CheckpointStatus | None:
    """Returns which checkpoints are whole; None if that is unknown, or about to change."""
    return None if evidence.running else evidence.checkpoints


def nothing_saved(evidence: Evidence) -> Finding | None:
    """A run that nobody is training, and that has no checkpoint yet, perhaps not even a step."""
    status = _status(evidence)
    if status is None or status.newest or _has_saved(evidence, status):
        return None
    taken = f"took {pluralize(evidence.last_step, 'step')} and saved none of them"
    return problem(
        "nothing saved",
        f"The run {taken if evidence.last_step else f'took none of its {evidence.total_steps:,} steps'}, and nobody "
        "is training it.",
        "It was stopped or failed before its first checkpoint: there is no model to use.",
        f"Start again: {_start_again(evidence, status)}",
    )


def _has_saved(evidence: Evidence, status: CheckpointStatus) -> bool:
    """Whether there must have been a checkpoint: by its remains, or by the steps and the time that the run took."""
    train = evidence.config.train
    seconds = evidence.steps[-1]["seconds"] if evidence.steps else 0.0
    return bool(
        (status.damaged and evidence.last_step)
        or evidence.validations
        or (train.save_every and evidence.last_step >= train.save_every)
        or (train.save_minutes and seconds > 60 * train.save_minutes)
    )


def _start_again(evidence: Evidence, status: CheckpointStatus) -> str:
    """Returns the command that starts a run again of which nothing is left."""
    gone = evidence.origin and status.newest is None  # its initial weights are gone too: resume refuses
    return evidence.train_again("again") if gone else evidence.resume()


def no_checkpoint(evidence: Evidence) -> Finding | None:
    """Steps that were taken and of which nothing is left."""
    status = _status(evidence)
    if status is None or status.newest or not _has_saved(evidence, status):
        return None
    damage = f": {next(iter(status.damaged.values()))}" if status.damaged else ""
    return problem(
        "no checkpoint",
        f"The run took {pluralize(evidence.last_step, 'step')}, and none of its checkpoints is intact{damage}.",
        "What it has learned is lost: there is no model to use or to resume from.",
        f"Restore its checkpoints folder from a copy. Without one, start again: {_start_again(evidence, status)}",
    )


def damaged_checkpoint(evidence: Evidence) -> Finding | None:
    """A newest or best checkpoint that cannot be read, while another can."""
    status = _status(evidence)
    if status is None or not status.newest or not (status.damaged or status.best):
        return None
    which, damage = ("newest", next(iter(status.damaged.values()))) if status.damaged else ("best", status.best)
    others = f"continue from step {status.newest:,}: {evidence.resume()}"
    return problem(
        "damaged checkpoint",
        f"The {which} checkpoint is damaged: {damage}.",
        f"Commands that ask for it fail; the one of step {status.newest:,} is intact.",
        f"Restore it from a copy. Without one, {others if status.damaged else 'use --checkpoint latest.'}",
    )


def no_metrics(evidence: Evidence) -> Finding | None:
    """Records that are gone, of a run that has taken steps."""
    status = _status(evidence)
    if status is None or not status.newest or evidence.steps:
        return None
    return hint(
        "no metrics",
        f"metrics.jsonl has no record of a step, but the newest checkpoint is of step {status.newest:,}.",
        "Its losses and its speed cannot be judged. The weights are intact.",
        "Restore metrics.jsonl from a copy. If the run is resumed, it writes new records.",
    )
