"""One reading of a run, for all who look at runs: the doctor, the report.

Each file of the folder is read once, and each checksum computed once. A file that is missing or damaged does not stop
the reading: its value is then empty, and `errors` says why. Nothing is written. What follows from what was read, such
as findings or figures, is computed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from minigpt.config import Config
from minigpt.data import Dataset
from minigpt.data.dataset import Fingerprint
from minigpt.data.dataset_card import DatasetCard
from minigpt.errors import CheckpointError, CheckpointVersionError, DataError, MiniGPTError, RunError, TokenizerError
from minigpt.intervals import Intervals
from minigpt.records import read_metrics, stopped_early
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder, RunOrigin

Records: TypeAlias = list[dict[str, Any]]
Value = TypeVar("Value")


@dataclass(frozen=True)
class CheckpointStatus:
    """Which checkpoints of a run are whole, by their checksums.

    Attributes:
        newest: the step of the newest whole one; None without any.
        damaged: what is wrong with each newer one, by its step.
        best: what is wrong with the best one; None if nothing is, or none is noted.
    """

    newest: int | None
    damaged: Mapping[int, str]
    best: str | None


@dataclass(frozen=True)
class RunSnapshot:
    """What a run folder holds.

    Attributes:
        folder: the run.
        config: its settings.
        data: its data set's folder, tokenizer and splits; no splits if unknown, or if the run was imported.
        environment: machine and versions; empty if unknown.
        origin: where its first weights came from; None if they were random.
        records: metrics.jsonl, in order.
        data_folder: the data set to use instead of the one named in `data`.
        errors: by attribute, why a file could not be read.
    """

    folder: RunFolder
    config: Config
    data: Fingerprint
    environment: Mapping[str, Any]
    origin: RunOrigin | None
    records: Records = field(default_factory=list)
    data_folder: Path | None = None
    errors: Mapping[str, MiniGPTError] = field(default_factory=dict)
    _datasets: dict[Path | None, tuple[Dataset, bool]] = field(default_factory=dict, repr=False)
    _faults: dict[Path, CheckpointError | None] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, run: Path | str | RunFolder, data: Path | str | None = None) -> RunSnapshot:
        """Reads a run folder.

        Args:
            run: the run folder.
            data: the data set to use instead of the one that the run was trained on.

        Raises:
            RunError: if there is no such run.
            ConfigError: if its settings cannot be read.
        """
        folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
        errors: dict[str, MiniGPTError] = {}

        def tried(name: str, read: Callable[[], Value], otherwise: Value) -> Value:
            try:
                return read()
            except MiniGPTError as error:
                errors[name] = error
                return otherwise

        unknown: Fingerprint = {"folder": "", "tokenizer": {"spec": "", "identity": ""}, "splits": {}}
        nothing: Mapping[str, Any] = {}
        none: Records = []
        return cls(
            folder,
            folder.config(),
            tried("data", folder.data, unknown),
            tried("environment", folder.environment, nothing),
            tried("origin", folder.origin, None),
            tried("records", lambda: read_metrics(folder.metrics_file), none),
            None if data is None else Path(data),
            errors,
        )

    def check(self) -> None:
        """Raises the first error met in reading, or RunError if the run was imported and never trained."""
        for error in self.errors.values():
            raise error
        self.folder.check_trained()

    @cached_property
    def steps(self) -> Records:
        """The `step` records."""
        return self._of_kind("step")

    @cached_property
    def validations(self) -> Records:
        """The `validation` records."""
        return self._of_kind("validation")

    @cached_property
    def health(self) -> Records:
        """The `health` records."""
        return self._of_kind("health")

    @cached_property
    def notes(self) -> Records:
        """The `note` records."""
        return self._of_kind("note")

    def _of_kind(self, kind: str) -> Records:
        return [record for record in self.records if record.get("kind") == kind]

    @property
    def last_step(self) -> int:
        """The last step on record; 0 before the first."""
        return max((record["step"] for record in self.records), default=0)

    @cached_property
    def intervals(self) -> Intervals | None:
        """How long the run is, and what is due when; None if its data set is unknown."""
        splits = self.data["splits"]
        return Intervals(self.config, splits["train"]["tokens"], splits["val"]["tokens"]) if splits else None

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None if unknown."""
        return self.intervals.total_steps if self.intervals else None

    @property
    def ended_early(self) -> bool:
        """Whether early stopping ended it before its last step."""
        return stopped_early(self.validations, self.config.train.patience, self.last_step)

    @cached_property
    def running(self) -> bool:
        """Whether another process is training into the run, or nobody can tell that none is."""
        if not (self.folder.path / ".lock").exists():
            return False
        try:
            with self.folder.lock():
                return False
        except RunError:
            return True

    def dataset(self, *, verify: bool = True) -> Dataset:
        """Returns the data set that was named, or else the one that the run was trained on.

        Args:
            verify: whether to compare the checksums of the tokens, at about 2 GB/s; once is enough.

        Raises:
            DataError: if it is missing or damaged.
            TokenizerError: if another tokenizer made it.
        """
        return self._open(self.data_folder, verify)

    def training_data(self, *, verify: bool = True) -> Dataset:
        """Returns the data set that the run was trained on: the one that was named, if it is that, or else its own.

        Raises:
            DataError, TokenizerError: as `dataset`, or if its folder holds other data now.
        """
        if self.data_folder is not None:
            with suppress(DataError, TokenizerError):
                named = self._open(self.data_folder, verify)
                if named.fingerprint()["splits"] == self.data["splits"]:
                    return named
        own = self._open(None, verify)
        if own.fingerprint()["splits"] != self.data["splits"]:
            raise DataError(
                "The data set is not the one that the run was made with",
                got=own.folder,
                remedy="Name the right one with --data.",
            )
        return own

    def _open(self, place: Path | None, verify: bool) -> Dataset:
        dataset, verified = self._datasets.get(place, (None, False))
        if dataset is None or verify > verified:
            dataset = self.folder.open_data(place, verify=verify)
            self._datasets[place] = dataset, verify
        return dataset

    @cached_property
    def dataset_card(self) -> DatasetCard | None:
        """How the data set that the run was trained on was made; None if that is not at hand."""
        train = self.data["splits"].get("train")
        for place in (self.data_folder, self.data["folder"]):
            with suppress(MiniGPTError):
                card = DatasetCard.load(Path(place)) if place and train else None
                if card and train and card.train.tokens == train["tokens"]:
                    return card
        return None

    def verify(self, place: Path) -> None:
        """Raises CheckpointError unless every file of a checkpoint is the one that was written. Computed once."""
        if place not in self._faults:
            try:
                checkpoint.verify(place)
                self._faults[place] = None
            except CheckpointError as error:
                self._faults[place] = error
        fault = self._faults[place]
        if fault is not None:
            raise fault

    @cached_property
    def checkpoints(self) -> CheckpointStatus:
        """Which checkpoints are whole: looked at from the newest to the first whole one, and the best."""
        folder, there = self.folder, self.folder.checkpoint_folders()
        newest, damaged = None, {}
        for place in reversed(there):
            fault = self._fault(place)
            if fault is None:
                newest = folder.checkpoint_step(place)
                break
            damaged[folder.checkpoint_step(place)] = fault
        noted = folder.best()
        best = None if noted is None else folder.checkpoints / noted["checkpoint"]
        if best is not None and best not in there:
            return CheckpointStatus(newest, damaged, f"{best} not found")
        return CheckpointStatus(newest, damaged, self._fault(best) if best else None)

    def _fault(self, place: Path) -> str | None:
        try:
            self.verify(place)
        except CheckpointVersionError:
            return None  # whole, for another version
        except CheckpointError as error:
            return str(error.got)
        return None
