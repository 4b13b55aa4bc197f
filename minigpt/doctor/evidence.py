"""What is known of a run, read from its folder or grown record by record.

Anything may be missing: a run made by an older version has no looks inside, a moved data set no report, an imported
run no metrics. Checks name what they need (examine.py), and those whose needs are not met are left out.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from minigpt.config import Config
from minigpt.data import Dataset, Shard
from minigpt.data.report import Report
from minigpt.doctor.references import total_steps
from minigpt.doctor.saved import Saved, read_saved
from minigpt.errors import DataError, MiniGPTError, RunError
from minigpt.metrics import Record, read_metrics
from minigpt.model.accounting import parameter_table
from minigpt.run import RunFolder

UNIGRAM_TOKENS, BIGRAM_TOKENS = 2**24, 2**19
"""So many tokens of the training split are counted at the most, alone and in pairs: 0.1 s."""

COUNTED_AT_ONCE = 2**20

NEEDED = {
    "step": ("tokens", "loss", "lr", "grad_norm", "seconds"),
    "validation": ("tokens", "train_loss", "val_loss", "val_bits_per_byte"),
    "health": (),
    "note": (),
    "plan": ("steps",),
}
"""The numbers without which nothing can be made of a record, beside `step` and `epoch`."""


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
        bigram: the loss of one that knows the token before, too.
        running: whether it is being trained now.
        saved: how its checkpoints are, if anybody looked.
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
    bigram: float | None = None
    running: bool = False
    saved: Saved | None = None
    steps: list[Record] = field(default_factory=list)
    validations: list[Record] = field(default_factory=list)
    health: list[Record] = field(default_factory=list)
    notes: list[Record] = field(default_factory=list)
    plan: Record | None = None
    absent: dict[str, str] = field(default_factory=dict)
    last_step: int = 0
    epochs: float = 0.0

    def add(self, record: Record) -> None:
        """Takes a record; one that lacks something, or holds a figure that is no finite number, counts for nothing."""
        if not _is_whole(record):
            return
        kinds = {"step": self.steps, "validation": self.validations, "health": self.health, "note": self.notes}
        if record["step"] < self.last_step:  # the run went back to a checkpoint
            for records in kinds.values():
                records[:] = [earlier for earlier in records if earlier["step"] <= record["step"]]
        self.last_step, self.epochs = int(record["step"]), float(record["epoch"])
        kind = record["kind"]
        if kind == "plan":
            self.plan = record
        elif kind in kinds:
            kinds[kind].append(record)

    def has(self, need: str) -> bool:
        """Whether there is any of: steps, health, report, two_validations."""
        return bool(getattr(self, need))

    @property
    def two_validations(self) -> bool:
        """Whether one validation can be compared with another."""
        return len(self.validations) > 1

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
        run = free_folder(self.run.with_name(f"{self.run.name}-{suffix}"))
        words = ["minigpt", "train", "--run", str(run), "--config", str(self.run / "config.toml")]
        words += ["--init", self.origin] if self.origin else []
        words += ["--data", str(self.data["folder"]), *options]
        if epochs is not None and self.config.train.steps:  # they would win
            words += ["--steps", str(epochs * self.steps_per_epoch)]
        elif epochs is not None:
            words += ["--epochs", str(epochs)]
        return shlex.join(words)

    def resumed(self, *options: str) -> str:
        """Returns the command that goes on with the run."""
        return shlex.join(["minigpt", "resume", str(self.run), *options])


def free_folder(path: Path) -> Path:
    """Returns the path, or with the first number behind it that is not taken yet."""
    paths = (path.with_name(f"{path.name}{number if number > 1 else ''}") for number in count(1))
    return next(one for one in paths if not one.exists())


def _is_whole(record: Record) -> bool:
    """Whether a record holds all that checks need of its kind; others pass if they tell where the run stands."""
    kind = record.get("kind")
    if not all(_finite(record.get(name)) for name in ("step", "epoch", *NEEDED.get(str(kind), ()))):
        return False
    if kind == "health":
        parts = record.get("parts")
        return isinstance(parts, list) and any(_is_part(part, "h.") for part in parts) and all(map(_is_part, parts))
    return kind != "note" or isinstance(record.get("text"), str)


def _is_part(part: Any, prefix: str = "") -> bool:
    if not isinstance(part, Mapping) or not str(part.get("part")).startswith(prefix):
        return False
    told = [value for name, value in part.items() if name != "part"]
    return all(map(_finite, [part.get("gradient"), part.get("weight"), part.get("update"), *told]))


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
        evidence.report = dataset.report
        evidence.unigram, evidence.bigram = unigram_loss(dataset.train), bigram_loss(dataset.train)
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
    evidence.running, evidence.saved = _is_locked(folder), read_saved(folder)
    newest = evidence.saved.newest or 0
    if newest > evidence.last_step:  # it was saved between two lines, or these are lost
        evidence.last_step = newest
        evidence.epochs = evidence.last_step / evidence.steps_per_epoch
    none_told = "has no steps yet" if not evidence.last_step else "has no records of its steps"
    few = "it has one validation" if evidence.validations else "it has no validations yet"
    evidence.absent |= {
        "steps": f"it {none_told}",
        "two_validations": few if evidence.steps or evidence.validations else f"it {none_told}",
        "health": "it was trained without looks inside (--train.health-every)" if evidence.steps else f"it {none_told}",
    }
    return evidence


def unigram_loss(train: Shard) -> float:
    """Returns the entropy, in nats, of how often each token occurs in the training split, or in its beginning."""
    counts = np.zeros(train.vocab_size, np.int64)
    end = min(train.n_tokens, UNIGRAM_TOKENS)
    for start in range(0, end, COUNTED_AT_ONCE):  # bincount widens what it counts
        counts += np.bincount(train.read(start, min(end, start + COUNTED_AT_ONCE)), minlength=train.vocab_size)
    return _entropy(counts)


def bigram_loss(train: Shard) -> float:
    """Returns the entropy, in nats, of a token where the one before is known, in the training split's beginning.

    Each kind of pair that was seen adds 1 / (2 * tokens): few look more orderly than their source (Miller 1955).
    """
    ids = train.read(0, BIGRAM_TOKENS).astype(np.int64)
    pairs = np.unique(ids[:-1] * train.vocab_size + ids[1:], return_counts=True)[1]
    firsts = np.unique(ids[:-1], return_counts=True)[1]
    return _entropy(pairs) - _entropy(firsts) + (len(pairs) - len(firsts)) / (2 * max(1, len(ids) - 1))


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
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
