"""What the checks need to know of a run: read from a snapshot of its folder, or grown record by record.

Anything may be missing: health records if a run was trained without them, the data set if it has moved. Checks name
what they need (diagnose.py), and are skipped without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from minigpt.atomic import unused_path
from minigpt.config import Config
from minigpt.data import Dataset
from minigpt.data.dataset_card import DatasetCard
from minigpt.doctor.entropy import bigram_val_loss, conditional_entropy, unigram_entropy
from minigpt.errors import DataError, MiniGPTError
from minigpt.files import read_json
from minigpt.intervals import Intervals
from minigpt.model.accounting import parameter_table
from minigpt.records import Record, stopped_early
from minigpt.runs.folder import RunFolder
from minigpt.runs.snapshot import CheckpointStatus, RunSnapshot
from minigpt.text_utils import shell_line

LONG_CONTEXT_GAIN = 0.02
"""Knowing one more token must lower the entropy by this share, or there is no more to learn from a longer context."""

EARLY_STEPS = 1000
"""Weights and updates are judged up to this step: in long runs weights grow, and updates shrink, without harm."""

FIGURES = {
    "step": ("tokens", "loss", "lr", "grad_norm", "seconds"),
    "validation": ("tokens", "train_loss", "val_loss", "val_bits_per_byte"),
    "plan": ("steps",),
}
"""What checks use of each kind of record; health records: every number."""


@dataclass
class Evidence:
    """What is known of a run.

    Attributes:
        run: its folder.
        config: its settings.
        data: its data set's folder, tokenizer and splits.
        environment: machine and versions.
        origin: the run whose weights it began with, or None.
        card: how its data set was made, if that is at hand.
        unigram_entropy: the loss of knowing only how often each token occurs in training, if known.
        bigram_entropy: the loss of knowing the token before, too.
        bigram_loss: the validation loss of a bigram model; infinite where a longer context tells no more.
        running: whether it is being trained now.
        checkpoints: which checkpoints are whole, if that was read.
        steps, validations, health, notes: its records, in order.
        plan: what it was expected to cost.
        missing: why something is unknown, by attribute.
        last_step, epochs: how far it got.
    """

    run: Path
    config: Config
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    origin: str | None = None
    card: DatasetCard | None = None
    unigram_entropy: float | None = None
    bigram_entropy: float | None = None
    bigram_loss: float | None = None
    running: bool = False
    checkpoints: CheckpointStatus | None = None
    steps: list[Record] = field(default_factory=list)
    validations: list[Record] = field(default_factory=list)
    health: list[Record] = field(default_factory=list)
    notes: list[Record] = field(default_factory=list)
    plan: Record | None = None
    missing: dict[str, str] = field(default_factory=dict)
    last_step: int = 0
    epochs: float = 0.0

    def add(self, record: Record) -> None:
        """Takes a record; one with a figure that is missing or not finite is ignored."""
        if not _is_complete(record):
            return
        kinds = {"step": self.steps, "validation": self.validations, "health": self.health, "note": self.notes}
        if record["step"] < self.last_step:  # the run went back to a checkpoint
            for records in kinds.values():
                records[:] = [earlier for earlier in records if earlier["step"] <= record["step"]]
        self.last_step, self.epochs = int(record["step"]), float(record["epoch"])
        if record["kind"] == "plan":
            self.plan = record
        elif record["kind"] in kinds:
            kinds[record["kind"]].append(record)

    def has(self, need: str) -> bool:
        """Whether there is any of: steps, health, two_probes, peak_probes, card, two_validations, bigram_loss."""
        return bool(getattr(self, need))

    @property
    def two_probes(self) -> bool:
        """Whether there are two health records after the first step, to compare."""
        return sum(record["step"] > 1 for record in self.health) > 1

    @property
    def peak_probes(self) -> list[Record]:
        """The early health records at steps whose learning rate was near its peak."""
        rates = {line["step"]: line["lr"] for line in self.steps if line["step"] <= EARLY_STEPS}
        return [
            record
            for record in self.health
            if rates
            and max(1, self.warmup_steps) < record["step"] <= EARLY_STEPS
            and rates[min(rates, key=lambda step: abs(step - record["step"]))] > 0.5 * self.config.train.lr
        ]

    @property
    def two_validations(self) -> bool:
        """Whether there are two validations to compare."""
        return len(self.validations) > 1

    @property
    def best_validation(self) -> Record:
        """The validation with the lowest loss."""
        return min(self.validations, key=lambda record: float(record["val_loss"]))

    @property
    def train_tokens(self) -> int:
        """Tokens of the training split."""
        return int(self.data["splits"]["train"]["tokens"])

    @property
    def intervals(self) -> Intervals:
        """How long the run is, and what is due when."""
        return Intervals(self.config, self.train_tokens, int(self.data["splits"]["val"]["tokens"]))

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.intervals.total_steps

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training split."""
        return self.intervals.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Steps in which the learning rate rises."""
        return self.intervals.warmup

    @property
    def ended_early(self) -> bool:
        """Whether early stopping ended the run before its last step."""
        patience = self.config.train.patience
        return self.last_step < self.total_steps and stopped_early(self.validations, patience, self.last_step)

    @property
    def finished(self) -> bool:
        """Whether the run has reached its end."""
        return self.last_step >= self.total_steps or self.ended_early

    @property
    def decayed(self) -> bool:
        """Whether the learning rate has come down from its peak."""
        return self.last_step > self.warmup_steps and self.steps[-1]["lr"] < 0.5 * self.config.train.lr

    @property
    def on_gpu(self) -> bool:
        """Whether it was trained on a CUDA GPU."""
        return str(self.environment.get("device", "")).startswith("cuda")

    @property
    def parameters(self) -> tuple[int, int]:
        """Trained parameters of the embeddings (and an untied output projection), and of the layers."""
        table = parameter_table(self.config.model)
        outer = sum(count for part, count in table.items() if "embedding" in part or "output" in part)
        return outer, sum(table.values()) - outer

    def loss(self, first: float, last: float = math.inf) -> float | None:
        """Returns the mean training loss over the step records from one step to another; None without any."""
        losses = [record["loss"] for record in self.steps if first <= record["step"] <= last]
        return fmean(losses) if losses else None

    def train_again(self, suffix: str, *options: str, epochs: int | None = None) -> str:
        """Returns the command, in backticks, that trains the run anew with changed options, in a new folder."""
        run = unused_path(self.run.with_name(f"{self.run.name}-{suffix}"))
        words = ["minigpt", "train", "--run", str(run), "--config", str(self.run / "config.toml")]
        words += ["--init-from", self.origin] if self.origin else []
        words += ["--data", str(self.data["folder"]), *options]
        if epochs is not None and self.config.train.steps:  # --steps would override --epochs
            words += ["--steps", str(epochs * self.steps_per_epoch)]
        elif epochs is not None:
            words += ["--epochs", str(epochs)]
        return f"`{shell_line(words)}`"

    def resume(self, *options: str) -> str:
        """Returns the command, in backticks, that continues the run."""
        return f"`{shell_line(['minigpt', 'resume', str(self.run), *options])}`"


def _is_complete(record: Record) -> bool:
    """Whether the figures that checks use are finite numbers; those of a bad step are not."""
    figures = [record.get(name) for name in FIGURES.get(record["kind"], ())]
    for module in record.get("modules", ()):
        figures += [value for name, value in module.items() if name != "module"]
    return all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures)


def new_evidence(folder: RunFolder, dataset: Dataset) -> Evidence:
    """Returns what is known of a run before its first record.

    Args:
        folder: the run, never imported.
        dataset: its data set.
    """
    snapshot = RunSnapshot(folder, folder.config(), folder.data(), folder.environment(), folder.origin())
    evidence = _of_settings(snapshot)
    _add_data(evidence, dataset)
    return evidence


def read_evidence(run: Path | str, data: Path | str | None = None) -> Evidence:
    """Returns what a run's folder tells, and its data set, if that is at hand. Writes nothing.

    Args:
        run: the run folder.
        data: where its data set is now, if it has moved.

    Raises:
        RunError: if there is no such run, or it was imported and never trained.
        DataError, TokenizerError: if a data set is named that the run was not trained on.
    """
    snapshot = RunSnapshot.read(run, data)
    snapshot.check()
    if data is not None and snapshot.dataset().fingerprint()["splits"] != snapshot.data["splits"]:
        raise DataError(
            "The run was not trained on this data set",
            got=data,
            remedy="Name the right one with --data, or leave --data out.",
        )
    return evidence_of(snapshot)


def evidence_of(snapshot: RunSnapshot) -> Evidence:
    """Returns what a snapshot of a trained run tells the checks. Errors as `RunSnapshot.check`."""
    snapshot.check()
    evidence = _of_settings(snapshot)
    try:
        dataset = snapshot.training_data(verify=False)
        evidence.data = {**evidence.data, "folder": str(dataset.folder)}
        _add_data(evidence, dataset)
        evidence.bigram_loss = _bigram_loss(snapshot, dataset, evidence.bigram_entropy or 0.0)
    except MiniGPTError as error:
        away = f"the data set is not available ({error.what}); name it with --data"
        evidence.missing |= {"card": away, "bigram_loss": away}
    for record in snapshot.records:
        evidence.add(record)
    evidence.running, evidence.checkpoints = snapshot.running, snapshot.checkpoints
    newest = evidence.checkpoints.newest or 0
    if newest > evidence.last_step:  # saved between two records, or the records are lost
        evidence.last_step, evidence.epochs = newest, newest / evidence.steps_per_epoch
    no_steps = "the run has no records of its steps" if evidence.last_step else "the run has no steps yet"
    one = "the run has one validation" if evidence.validations else "the run has no validations yet"
    probes = "; --train.health-every sets how often it is probed"
    evidence.missing |= {
        "steps": no_steps,
        "two_validations": one if evidence.steps or evidence.validations else no_steps,
        "two_probes": f"the run has fewer than two health records after its first step{probes}",
        "peak_probes": f"the run has no health record from around the peak of its learning rate{probes}",
        "health": f"the run has no health records{probes}" if evidence.steps else no_steps,
    }
    return evidence


def _of_settings(snapshot: RunSnapshot) -> Evidence:
    # "." has no name to derive another from
    run = snapshot.folder.path if snapshot.folder.path.name not in ("", "..") else snapshot.folder.path.absolute()
    origin = str(snapshot.origin["folder"]) if snapshot.origin else None
    return Evidence(run, snapshot.config, snapshot.data, snapshot.environment, origin)


def _add_data(evidence: Evidence, dataset: Dataset) -> None:
    evidence.card = dataset.card
    evidence.unigram_entropy = unigram_entropy(dataset.train)
    evidence.bigram_entropy = conditional_entropy(dataset.train, 2)


def _bigram_loss(snapshot: RunSnapshot, dataset: Dataset, bigram_entropy: float) -> float:
    """Returns the bigram loss that a report has measured on all tokens, or that of a part; see `Evidence`."""
    if conditional_entropy(dataset.train, 3) >= (1 - LONG_CONTEXT_GAIN) * bigram_entropy:
        return math.inf
    try:
        content = read_json(snapshot.folder.evaluation_file)
        measured = float(content["evaluation"]["metrics"]["baselines"]["bigram"]["value"])
        made_of = [content["made_of"][name] for name in ("train", "val")]
    except (OSError, ValueError, KeyError, TypeError):
        return bigram_val_loss(dataset)
    own = [dataset.train.sha256, dataset.val.sha256]
    return measured if made_of == own and 0 < measured < math.inf else bigram_val_loss(dataset)
