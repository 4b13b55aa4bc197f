"""What is known of a run, read from its folder or grown record by record.

Anything may be missing: a run made by an older version has no looks inside, a moved data set no report, an imported
run no metrics. Checks name what they need (diagnose.py), and those whose needs are not met are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from minigpt.atomic import unused_path
from minigpt.config import Config
from minigpt.data import Dataset, TokenFile
from minigpt.data.dataset_card import DatasetCard
from minigpt.errors import DataError, MiniGPTError
from minigpt.evaluation.baselines import baselines
from minigpt.files import read_json
from minigpt.intervals import Intervals
from minigpt.model.accounting import parameter_table
from minigpt.records import Record, stopped_early
from minigpt.runs.folder import RunFolder
from minigpt.runs.snapshot import CheckpointStatus, RunSnapshot
from minigpt.text_utils import shell_line

UNIGRAM_TOKENS, NGRAM_TOKENS = 2**24, 2**19
"""So many tokens of the training split are counted at the most, alone and with those before them: 0.1 s."""

PAIRS_TOKENS, VALIDATED_TOKENS = 2**23, 2**20
"""So many tokens of training are counted, and of validation predicted, for the loss of counting pairs: 1 s."""

COUNTED_AT_ONCE = 2**20

ORDERLY = 0.02
"""Knowing one token more must lower the loss by this share, or there is nothing more to learn than what lies before."""

EARLY_STEPS = 1000
"""Weights and updates are judged so long; in long runs weights grow, and updates beside them shrink, without harm."""

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
        pairs: the validation loss of counting which token follows which; known only where the text's order tells more.
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
    report: DatasetCard | None = None
    unigram: float | None = None
    bigram: float | None = None
    pairs: float | None = None
    running: bool = False
    saved: CheckpointStatus | None = None
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
        """Whether there is any of: steps, health, two_looks, peak_looks, report, two_validations, pairs."""
        return bool(getattr(self, need))

    @property
    def two_looks(self) -> bool:
        """Whether there are looks inside, behind the first step, that can be compared."""
        return sum(record["step"] > 1 for record in self.health) > 1

    @property
    def peak_looks(self) -> list[Record]:
        """The early looks inside at steps whose rate was near its peak."""
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
        """Whether one validation can be compared with another."""
        return len(self.validations) > 1

    @property
    def train_tokens(self) -> int:
        """Tokens of the training split."""
        return int(self.data["splits"]["train"]["tokens"])

    @property
    def calendar(self) -> Intervals:
        """How long the run is."""
        return Intervals(self.config, self.train_tokens, int(self.data["splits"]["val"]["tokens"]))

    @property
    def total_steps(self) -> int:
        """Steps that the run has in all."""
        return self.calendar.total_steps

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training split."""
        return self.calendar.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises."""
        return self.calendar.warmup

    @property
    def ended_early(self) -> bool:
        """Whether the run's patience has ended it before its last step."""
        patience = self.config.train.patience
        return self.last_step < self.total_steps and stopped_early(self.validations, patience, self.last_step)

    @property
    def finished(self) -> bool:
        """Whether nothing is left of the run."""
        return self.last_step >= self.total_steps or self.ended_early

    @property
    def decayed(self) -> bool:
        """Whether the learning rate has come down from its peak."""
        return self.last_step > self.warmup_steps and self.steps[-1]["lr"] < 0.5 * self.config.train.lr

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
        run = unused_path(self.run.with_name(f"{self.run.name}-{suffix}"))
        words = ["minigpt", "train", "--run", str(run), "--config", str(self.run / "config.toml")]
        words += ["--init-from", self.origin] if self.origin else []
        words += ["--data", str(self.data["folder"]), *options]
        if epochs is not None and self.config.train.steps:  # they would win
            words += ["--steps", str(epochs * self.steps_per_epoch)]
        elif epochs is not None:
            words += ["--epochs", str(epochs)]
        return shell_line(words)

    def resumed(self, *options: str) -> str:
        """Returns the command that goes on with the run."""
        return shell_line(["minigpt", "resume", str(self.run), *options])


def _is_whole(record: Record) -> bool:
    """Whether a record holds all that checks need of its kind; others pass if they tell where the run stands."""
    kind = record.get("kind")
    if not all(_finite(record.get(name)) for name in ("step", "epoch", *NEEDED.get(str(kind), ()))):
        return False
    if kind == "health":
        parts = record.get("modules")
        return isinstance(parts, list) and any(_is_part(part, "h.") for part in parts) and all(map(_is_part, parts))
    return kind != "note" or isinstance(record.get("text"), str)


def _is_part(part: Any, prefix: str = "") -> bool:
    if not isinstance(part, Mapping) or not str(part.get("module")).startswith(prefix):
        return False
    told = [value for name, value in part.items() if name != "module"]
    return all(map(_finite, [part.get("grad_norm"), part.get("weight_norm"), part.get("update_ratio"), *told]))


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def new_evidence(folder: RunFolder, dataset: Dataset) -> Evidence:
    """Returns what is known of a run before its first record.

    Args:
        folder: the run, never imported.
        dataset: its data set.
    """
    snapshot = RunSnapshot(folder, folder.config(), folder.data(), folder.environment(), folder.origin())
    evidence = _evidence(snapshot)
    _add_data(evidence, dataset)
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
    snapshot = RunSnapshot.read(run, data)
    snapshot.check()
    if data is not None and snapshot.dataset().fingerprint()["splits"] != snapshot.data["splits"]:
        raise DataError(
            "The data set is not the one that the run was made with",
            got=data,
            remedy="Give the right one, or leave --data out.",
        )
    return evidence_of(snapshot)


def evidence_of(snapshot: RunSnapshot) -> Evidence:
    """Returns what a snapshot of a trained run tells the checks. Errors as `RunSnapshot.check`."""
    snapshot.check()
    evidence = _evidence(snapshot)
    try:
        dataset = snapshot.training_data(verify=False)
        evidence.data = {**evidence.data, "folder": str(dataset.folder)}
        _add_data(evidence, dataset)
        assert evidence.bigram is not None
        orderly = ngram_loss(dataset.train, 3) < (1 - ORDERLY) * evidence.bigram
        measured = _measured_pairs(snapshot.folder, evidence) if orderly else math.inf
        evidence.pairs = pairs_loss(dataset) if measured is None else measured
    except MiniGPTError as error:
        away = f"its data set is not at hand ({error.what}); --data names it"
        evidence.absent |= {"report": away, "pairs": away}
    for record in snapshot.records:
        evidence.add(record)
    evidence.running, evidence.saved = snapshot.running, snapshot.checkpoints
    newest = evidence.saved.newest or 0
    if newest > evidence.last_step:  # it was saved between two lines, or these are lost
        evidence.last_step = newest
        evidence.epochs = evidence.last_step / evidence.steps_per_epoch
    every = " (--train.health-every)"
    none_told = "has no steps yet" if not evidence.last_step else "has no records of its steps"
    few = "it has one validation" if evidence.validations else "it has no validations yet"
    evidence.absent |= {
        "steps": f"it {none_told}",
        "two_validations": few if evidence.steps or evidence.validations else f"it {none_told}",
        "two_looks": f"it has fewer than two looks inside behind its first step{every}",
        "peak_looks": f"no look inside was at the peak of its learning rate{every}",
        "health": f"it was trained without looks inside{every}" if evidence.steps else f"it {none_told}",
    }
    return evidence


def _evidence(snapshot: RunSnapshot) -> Evidence:
    origin = snapshot.origin
    return Evidence(
        snapshot.folder.path,
        snapshot.config,
        snapshot.data,
        snapshot.environment,
        str(origin["folder"]) if origin else None,
    )


def _add_data(evidence: Evidence, dataset: Dataset) -> None:
    evidence.report = dataset.card
    evidence.unigram, evidence.bigram = unigram_loss(dataset.train), ngram_loss(dataset.train, 2)


def unigram_loss(train: TokenFile) -> float:
    """Returns the entropy, in nats, of how often each token occurs in the training split, or in its beginning."""
    counts = np.zeros(train.vocab_size, np.int64)
    end = min(train.n_tokens, UNIGRAM_TOKENS)
    for start in range(0, end, COUNTED_AT_ONCE):  # bincount widens what it counts
        counts += np.bincount(train.read(start, min(end, start + COUNTED_AT_ONCE)), minlength=train.vocab_size)
    return _entropy(counts)


def ngram_loss(train: TokenFile, length: int) -> float:
    """Returns the entropy of a token where the `length` - 1 before it are known, in the training split's beginning.

    Each kind that was seen adds 1 / (2 * tokens): few look more orderly than their source (Miller 1955).
    """
    ids = train.read(0, NGRAM_TOKENS).astype(np.int64)
    places = max(0, len(ids) - length + 1)

    def counts(some: int) -> npt.NDArray[np.int64]:
        keys = np.zeros(places, np.int64)
        for place in range(some):
            keys = keys * train.vocab_size + ids[place : place + places]
        return np.unique(keys, return_counts=True)[1]

    whole, before = counts(length), counts(length - 1)
    return _entropy(whole) - _entropy(before) + (len(whole) - len(before)) / (2 * max(1, places))


def _measured_pairs(folder: RunFolder, evidence: Evidence) -> float | None:
    """Returns the loss of counting pairs as a report of this run has measured it on all its tokens, if one has."""
    try:
        content = read_json(folder.evaluation_file)
        found = float(content["evaluation"]["metrics"]["baselines"]["bigram"]["value"])
        text = [content["made_of"][split] for split in ("train", "val")]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    own = [evidence.data["splits"][split]["sha256"] for split in ("train", "val")]
    return found if text == own and 0 < found < math.inf else None


def pairs_loss(dataset: Dataset) -> float:
    """Returns the validation loss of a bigram model of the training split, both cut where they are long."""
    train = replace(dataset.train, tokens=dataset.train.tokens[:PAIRS_TOKENS])
    ids = dataset.val.read(0, VALIDATED_TOKENS).astype(np.int64)
    fair = np.arange(1, len(ids)) % (dataset.val.segment_length or len(ids) + 1) != 0
    return float(baselines(train, ids[:-1][fair], ids[1:][fair]).bigram.mean(dtype=np.float64))


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum())
