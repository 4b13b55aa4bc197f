"""What is known of a run, read from its folder or grown record by record, and the form of what is found in it.

Anything may be missing: a run made by an older version has no looks inside, a moved data set no report, an imported
run no metrics. Checks name what they need (examine.py), and those whose needs are not met are left out.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from minigpt.config import Config
from minigpt.data import Dataset, Shard
from minigpt.data.report import Report
from minigpt.doctor.references import total_steps
from minigpt.errors import DataError, MiniGPTError, RunError
from minigpt.metrics import Record, read_metrics
from minigpt.model.cost import parameter_table
from minigpt.run import RunFolder

UNIGRAM_TOKENS = 2**24
"""So many tokens of the training split are counted at the most: 0.1 s."""


@dataclass(frozen=True)
class Finding:
    """Something about a run that should be mended, or known.

    Attributes:
        check: the check's short name.
        severity: a problem spoils the run; a hint could make it better.
        seen: what was seen, with its figure.
        means: what that means.
        remedy: what to do; commands between backticks run as they stand.
        step, epoch: since when, where it has a beginning.
    """

    check: str
    severity: Literal["problem", "hint"]
    seen: str
    means: str
    remedy: str
    step: int | None = None
    epoch: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return asdict(self)


@dataclass
class Evidence:
    """What is known of a run.

    Attributes:
        run: its folder.
        config: its settings.
        data: what its data.json tells.
        environment: what its environment.json tells.
        origin: the run whose weights it began with, or None.
        report: how its data set was made, if that is at hand.
        unigram: the loss of a model that knows only how often each token occurs in training, if that is at hand.
        running: whether it is being trained now.
        steps, validations, health, notes: its records, in order.
        plan: what it was expected to cost.
        absent: why something is not known, by the name that checks give it.
        last_step, epochs: how far it went.
    """

    run: Path
    config: Config
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    origin: str | None = None
    report: Report | None = None
    unigram: float | None = None
    running: bool = False
    steps: list[Record] = field(default_factory=list)
    validations: list[Record] = field(default_factory=list)
    health: list[Record] = field(default_factory=list)
    notes: list[Record] = field(default_factory=list)
    plan: Record | None = None
    absent: dict[str, str] = field(default_factory=dict)
    last_step: int = 0
    epochs: float = 0.0

    def add(self, record: Record) -> None:
        """Takes a record; one with a loss or a norm that is not a finite number counts for nothing."""
        kinds = {"step": self.steps, "validation": self.validations, "health": self.health, "note": self.notes}
        kind = record["kind"]
        if record["step"] < self.last_step:  # the run went back to a checkpoint
            for records in kinds.values():
                records[:] = [earlier for earlier in records if earlier["step"] <= record["step"]]
        self.last_step, self.epochs = int(record["step"]), float(record["epoch"])
        if kind == "plan":
            self.plan = record
        elif kind in kinds and all(map(_finite, _figures(record))):
            kinds[kind].append(record)

    def has(self, need: str) -> bool:
        """Whether there is any of: steps, validations, health, report."""
        return bool(getattr(self, need))

    @property
    def train_tokens(self) -> int:
        """Tokens of the training split."""
        return int(self.data["splits"]["train"]["tokens"])

    @property
    def total_steps(self) -> int:
        """Steps that the run has in all."""
        return total_steps(self.config, self.train_tokens)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training split."""
        model, train = self.config.model, self.config.train
        return math.ceil(math.ceil((self.train_tokens - 1) / model.block_size) / train.batch_size)

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises."""
        schedule = self.config.schedule
        whole = 0.3 * self.total_steps if schedule.name == "one-cycle" else 0  # its own, where none is given
        return schedule.warmup_steps or round(whole)

    @property
    def parameters(self) -> tuple[int, int]:
        """Trained parameters of the embeddings (and of an output projection of its own), and of the body."""
        table = parameter_table(self.config.model)
        outer = sum(count for part, count in table.items() if "embedding" in part or "output" in part)
        return outer, sum(table.values()) - outer

    def loss(self, first: float, last: float = math.inf) -> float | None:
        """Returns the mean training loss over lines of metrics from one step to another; None without any."""
        losses = [record["loss"] for record in self.steps if first <= record["step"] <= last]
        return fmean(losses) if losses else None

    def again(self, suffix: str, *options: str, epochs: int | None = None) -> str:
        """Returns the command that trains such a run anew with changed options, in a folder that is free."""
        run = next(
            path
            for number in range(1, 1000)
            if not (path := self.run.with_name(f"{self.run.name}-{suffix}{number if number > 1 else ''}")).exists()
        )
        words = ["minigpt", "train", "--run", str(run), "--config", str(self.run / "config.toml")]
        words += ["--init", self.origin] if self.origin else []
        words += ["--data", str(self.data["folder"]), *options]
        if epochs is not None:
            words += ["--epochs", str(epochs)]
        return shlex.join(words)

    def resumed(self, *options: str) -> str:
        """Returns the command that goes on with the run."""
        return shlex.join(["minigpt", "resume", str(self.run), *options])


def _figures(record: Record) -> list[Any]:
    """Returns the figures of a record without which nothing can be made of it."""
    losses = [record[name] for name in ("loss", "val_loss", "train_loss") if name in record]
    return [*losses, *(value for part in record.get("parts", ()) for name, value in part.items() if name != "part")]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def new_evidence(folder: RunFolder, dataset: Dataset | None = None) -> Evidence:
    """Returns what is known of a run before its first record.

    Args:
        folder: the run, never imported.
        dataset: its data set, if it is open already.
    """
    origin = folder.origin()
    evidence = Evidence(
        folder.path, folder.config(), folder.data(), folder.environment(), str(origin["folder"]) if origin else None
    )
    try:
        dataset = dataset or Dataset.open(evidence.data["folder"], verify=False)
        if dataset.identity()["splits"] != evidence.data["splits"]:
            raise DataError("another data set is there now", remedy="Name the right one with --data.")
        evidence.report, evidence.unigram = dataset.report, unigram_loss(dataset.train)
    except MiniGPTError as error:
        evidence.absent["report"] = f"its data set is not at hand ({error.what}); --data names it"
    return evidence


def read_evidence(run: Path | str, data: Path | str | None = None) -> Evidence:
    """Returns what a run's folder tells, and its data set, where that is at hand. Writes nothing.

    Args:
        run: the run folder.
        data: where its data set is now, if it has moved.

    Raises:
        RunError: if there is no such run, or it was imported and never trained.
        DataError, TokenizerError: if a data set is named that is not its own.
    """
    folder = RunFolder.open(run)
    folder.check_trained()
    dataset = folder.open_data(data) if data is not None else None
    if dataset and dataset.identity()["splits"] != folder.data()["splits"]:
        raise DataError(
            "The data set is not the one that the run was made with",
            seen=data,
            remedy="Give the right one, or leave --data out.",
        )
    evidence = new_evidence(folder, dataset)
    if dataset:
        evidence.data = {**evidence.data, "folder": str(data)}
    for record in read_metrics(folder.metrics_file):
        evidence.add(record)
    evidence.running = _is_locked(folder)
    if not evidence.health:
        evidence.absent["health"] = "it was trained without looks inside (--train.health-every)"
    evidence.absent |= {kind: f"it has no {kind} yet" for kind in ("steps", "validations") if not evidence.has(kind)}
    return evidence


def unigram_loss(train: Shard) -> float:
    """Returns the entropy, in nats, of how often each token occurs in the training split, or in its beginning."""
    counts = np.bincount(train.read(0, UNIGRAM_TOKENS))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _is_locked(folder: RunFolder) -> bool:
    """Whether another process is training into the run, or at least nobody can tell that none is."""
    if not (folder.path / ".lock").exists():
        return False
    try:
        with folder.lock():
            return False
    except RunError:
        return True
