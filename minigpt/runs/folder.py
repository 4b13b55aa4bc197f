"""The run folder: everything about one training run, in one place that can be moved to another machine.

config.toml            every setting, resolved; `--config` reads it back
tokenizer/             the tokenizer, whole
data.json              which data set: its folder, its tokenizer, the size and checksum of each split
environment.json       machine, versions, precision
origin.json            where the initial weights came from, unless random: another run, or an imported folder
metrics.jsonl          one record a line (see records.py)
samples.jsonl          samples after each epoch (see generation/sample_log.py)
training_metrics.png   the loss curves
evaluation.json        figures that `minigpt report` measured (see report/cache.py)
checkpoints/step-...   weights, optimizer, position (see checkpoint.py); step 0 only if there is an origin.json
checkpoints/best.json  which of them has the lowest validation loss
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from filelock import FileLock, Timeout

from minigpt.atomic import replacing, write_file
from minigpt.config import Config, resolve
from minigpt.data import Dataset
from minigpt.data.dataset import Fingerprint
from minigpt.data.dataset_card import FILE as REPORT
from minigpt.errors import (
    CheckpointError,
    CheckpointVersionError,
    DataError,
    RunError,
    TokenizerError,
    UnreadableError,
    did_you_mean_folder,
)
from minigpt.files import is_dir, is_file, is_missing, read_json, why
from minigpt.model import GPT
from minigpt.records import read_metrics
from minigpt.runs import checkpoint
from minigpt.runtime import Environment
from minigpt.schema import Count, NonNegative, validate
from minigpt.state_dict import make_model, misfit
from minigpt.text_utils import shell_word
from minigpt.tokenizers import Tokenizer, load_tokenizer

CONFIG = "config.toml"

Kind = TypeVar("Kind")

MODEL, OPTIMIZER = "model", "optimizer"
"""The parts of a checkpoint."""

FREE_SETTINGS = {
    *(f"train.{name}" for name in ("epochs", "steps", "validate_every", "log_every", "save_every", "save_minutes")),
    *(
        f"train.{name}"
        for name in ("keep_checkpoints", "on_nonfinite", "skip_spikes", "health_every", "sample_prompts", "patience")
    ),
    *(f"machine.{name}" for name in ("device", "precision", "compile", "threads")),
}
"""Settings that may change when a run is resumed; all others define the run."""


class RunOrigin(TypedDict):
    """Where a run's initial weights came from: the kind of folder, and its path."""

    kind: str
    folder: str


class Best(TypedDict):
    """The checkpoint with the lowest validation loss, in nats per token."""

    checkpoint: str
    step: Count
    val_loss: NonNegative


class RunFolder:
    """The paths of a run, and reading and writing them."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.absolute().name
        self.config_file = self.path / CONFIG
        self.tokenizer_folder = self.path / "tokenizer"
        self.data_file = self.path / "data.json"
        self.environment_file = self.path / "environment.json"
        self.origin_file = self.path / "origin.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.samples_file = self.path / "samples.jsonl"
        self.picture_file = self.path / "training_metrics.png"
        self.evaluation_file = self.path / "evaluation.json"
        self.checkpoints = self.path / "checkpoints"
        self.best_file = self.checkpoints / "best.json"

    @classmethod
    def create(
        cls,
        path: Path | str,
        config: Config,
        tokenizer: Tokenizer,
        data: Mapping[str, Any],
        environment: Mapping[str, Any],
        *,
        origin: Mapping[str, Any] | None = None,
        first: checkpoint.Contents | None = None,
    ) -> RunFolder:
        """Creates a run folder with everything but metrics and later checkpoints.

        Args:
            path: where to create it.
            config: the run's settings.
            tokenizer: the run's tokenizer.
            data: the fingerprint of its data set.
            environment: machine and versions.
            origin: where its initial weights come from, unless random: `kind`, `folder`, and more.
            first: the initial weights, as the checkpoint of step 0, which is never removed.

        Raises:
            RunError: if the path is taken, or the folder cannot be created; nothing is left then.
        """
        run = cls(path)
        run.check_absent()
        try:
            run.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            with replacing(run.path.absolute()) as temporary:
                made = cls(temporary)
                made.checkpoints.mkdir(parents=True)
                made.save_config(config)
                tokenizer.save(made.tokenizer_folder)
                made.save_environment(environment)
                write_file(made.data_file, json.dumps(dict(data), indent=1))
                if origin is not None:
                    write_file(made.origin_file, json.dumps(dict(origin), indent=1))
                if first is not None:
                    checkpoint.save(made.checkpoint_folder(0), *first)
                if run.path.is_dir():
                    run.path.rmdir()  # it is empty: check_absent has seen to that
        except (OSError, CheckpointError) as error:
            raise RunError(
                "The run folder cannot be created",
                got=f"{run.path}: {why(error.__cause__ or error)}",
                remedy="Choose another path with --run.",
            ) from error
        return run

    def save_config(self, config: Config) -> None:
        """Writes the run's settings."""
        write_file(self.config_file, config.to_toml())

    def save_environment(self, environment: Mapping[str, Any]) -> None:
        """Writes machine and versions."""
        write_file(self.environment_file, json.dumps(dict(environment), indent=1))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training into this run. The system releases it when its holder dies.

        Raises:
            RunError: if another process holds it, or the folder cannot be written.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                "Another process is training into this run", got=self.path, remedy="Wait until it ends, or stop it."
            ) from None
        except OSError as error:
            raise RunError(
                "The run folder cannot be written",
                got=f"{self.path}: {why(error)}",
                remedy="Check the permissions and the disk.",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def check_absent(self) -> None:
        """Raises RunError if the path is taken; an empty folder is fine."""
        if is_file(self.path) or (is_dir(self.path) and any(self.path.iterdir())):
            raise RunError(
                "The run folder already exists",
                got=self.path,
                remedy="Choose another name with --run, or remove that folder first.",
            )

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Opens an existing run.

        Raises:
            RunError: if there is no run at this path.
        """
        run = cls(path)
        if not is_file(run.config_file):
            raise _no_run(run.path)
        return run

    def config(self) -> Config:
        """Returns the run's settings."""
        return resolve(file=self.config_file)

    def tokenizer(self) -> Tokenizer:
        """Returns the run's tokenizer."""
        return load_tokenizer(self.tokenizer_folder)

    def check_tokenizer(self, other: Tokenizer) -> None:
        """Raises TokenizerError unless `other` is this run's tokenizer."""
        own = self.tokenizer()
        if own.identity != other.identity:
            raise TokenizerError(
                "The data set was prepared with a different tokenizer from the run's",
                got=f"{other.spec} ({other.identity[:12]}) instead of {own.spec} ({own.identity[:12]})",
                remedy=f"Prepare the text again, `{self._preparing()}`, or train a new run on this data set.",
            )

    def _place(self) -> str:
        """Returns the run's folder as it is typed."""
        return shell_word(self.path)

    def _preparing(self) -> str:
        """Returns the command that prepares a data set with this run's tokenizer."""
        return f"minigpt prepare TEXT --out DATA --tokenizer {self._place()}"

    def open_data(self, place: Path | str | None = None, *, verify: bool = True) -> Dataset:
        """Opens a data set prepared with this run's tokenizer: the one at `place`, or else the one it was trained on.

        `verify` as in `Dataset.open`.

        Raises:
            DataError: if it is missing or damaged.
            TokenizerError: if it was prepared with another tokenizer.
        """
        own = self.data()["folder"]
        if not (place or own):
            raise DataError(
                "An imported run has no data set",
                got=self.path,
                remedy=f"Name one with --data; `{self._preparing()}` makes one.",
            )
        found = Path(place or own)
        if not is_dir(found):
            raise DataError(
                "The run's data set was not found" if not place else "No such data set",
                got=found,
                remedy="If it has moved, name its folder with --data."
                if not place
                else f"{did_you_mean_folder(found, REPORT)}Check the path given with --data.",
            )
        dataset = Dataset.open(found, verify=verify)
        self.check_tokenizer(dataset.tokenizer)
        return dataset

    def check_data(self, dataset: Dataset) -> None:
        """Raises DataError, naming the difference, unless `dataset` is the one that the run was trained on.

        If it is, the run remembers its folder.
        """
        own, other = self.data(), dataset.fingerprint()
        for split, facts in other["splits"].items():
            known: Mapping[str, object] = own["splits"].get(split) or {}
            for name, found in facts.items():
                if found != (value := known.get(name)):
                    raise DataError(
                        "The run was not trained on this data set",
                        got=f"{dataset.folder}: {split} {name} {found}, expected {value}",
                        remedy="Name the right one with --data, or train a new run.",
                    )
        if own["folder"] != other["folder"]:
            write_file(self.data_file, json.dumps(other, indent=1))

    def check_settings(self, config: Config, made_with: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises CheckpointError, naming the differences, if config.toml does not match a checkpoint's settings.

        Settings that do not define the run, such as its length, may differ.
        """
        own = config.to_dict()
        differing = [
            f"{group}.{name} {own[group].get(name)!r}, in the checkpoint {value!r}"
            for group, values in made_with.items()
            for name, value in values.items()
            if f"{group}.{name}" not in FREE_SETTINGS and own[group].get(name) != value
        ]
        if differing:
            raise CheckpointError(
                "The run's config.toml does not match its checkpoint",
                got="; ".join(differing),
                remedy="Restore the old values, or train a new run with the new ones.",
            )

    def data(self) -> Fingerprint:
        """Returns the fingerprint of the data set it was trained on.

        Raises:
            RunError: if the file is missing or damaged, as for all small files of a run.
        """
        found = self._read(Fingerprint, self.data_file)
        if found["splits"] and not {"train", "val"} <= found["splits"].keys():
            raise _unreadable(self.data_file, ValueError("a split is missing"))
        return found

    def origin(self) -> RunOrigin | None:
        """Returns where the run's initial weights came from; None if they were random."""
        return self._read(RunOrigin, self.origin_file) if self.origin_file.exists() else None

    def check_trained(self) -> None:
        """Raises RunError if the run was imported: it has weights, but no training to continue."""
        if not self.data()["splits"]:
            raise RunError(
                "The run was imported, so it has no training to continue",
                got=self.path,
                remedy=f"Start a run from its weights: minigpt train --init-from {self._place()} --data DATA --run NEW",
            )

    def environment(self) -> Mapping[str, Any]:
        """Returns the machine and versions it was trained with: an `Environment`, and more."""
        return self._read(Environment, self.environment_file)

    def _read(self, kind: type[Kind], file: Path) -> Kind:
        try:
            return validate(kind, read_json(file))
        except (OSError, ValueError) as error:
            raise _unreadable(file, error) from None

    def checkpoint_folders(self) -> list[Path]:
        """Returns the checkpoints, oldest first.

        Raises:
            RunError: if the folder cannot be read.
        """
        try:
            names = os.listdir(self.checkpoints)
        except OSError as error:
            if is_missing(error):
                return []
            raise _unreadable(self.checkpoints, error) from None
        return sorted(self.checkpoints / name for name in names if re.fullmatch(r"step-\d{9,}", name))

    def checkpoint_folder(self, step: int) -> Path:
        """Returns the path of the checkpoint after `step` steps."""
        return self.checkpoints / f"step-{step:09d}"

    @staticmethod
    def checkpoint_step(folder: Path) -> int:
        """Returns the step of a checkpoint."""
        return int(folder.name.removeprefix("step-"))

    def find_checkpoint(self, which: str = "best") -> Path:
        """Returns the checkpoint named by `best`, `latest` or a step number.

        Raises:
            CheckpointError: if there is no such checkpoint; the message lists those that exist.
        """
        there = self.checkpoint_folders()
        wanted = None
        if which == "best" and (noted := self.best()):
            wanted = self.checkpoints / noted["checkpoint"]
        elif which in ("best", "latest") and there:
            wanted = there[-1]
        elif (step := step_number(which)) is not None:
            wanted = self.checkpoint_folder(step)
        if wanted not in there:
            names = ", ".join(str(self.checkpoint_step(folder)) for folder in there) or "none yet"
            raise CheckpointError(
                "No such checkpoint in the run",
                got=which if len(which) <= 40 else f"{which[:40]}...",
                remedy=f"Use best, latest or a step; available steps: {names}.",
            )
        assert wanted is not None
        return wanted

    def best(self) -> Best | None:
        """Returns the best checkpoint, from best.json or else from the metrics; None if unknown."""
        try:
            return self._read(Best, self.best_file)
        except RunError:
            told = self._validated_checkpoints()
            return min(told, key=lambda best: best["val_loss"], default=None)

    def _validated_checkpoints(self) -> list[Best]:
        """Returns the existing checkpoints with their validation losses, from the metrics."""
        there = {self.checkpoint_step(folder): folder.name for folder in self.checkpoint_folders()}
        try:
            records = read_metrics(self.metrics_file, "validation")
        except RunError:
            return []
        return [
            {"checkpoint": there[record["step"]], "step": record["step"], "val_loss": record["val_loss"]}
            for record in records
            if record["step"] in there and record["val_loss"] is not None
        ]

    def newest_whole_checkpoint(self) -> tuple[Path | None, list[CheckpointError]]:
        """Returns the newest intact checkpoint, if any, and the errors of newer ones.

        Damaged ones are renamed to `damaged-step-...`, so that they are not tried again.

        Raises:
            CheckpointError: if one was written by another version, or may not be read: an older one must not silently
                take its place.
        """
        checkpoint.tidy(self.checkpoints)
        damaged: list[CheckpointError] = []
        for folder in reversed(self.checkpoint_folders()):
            try:
                checkpoint.verify(folder)
                return folder, damaged
            except (CheckpointVersionError, UnreadableError):
                raise
            except CheckpointError as error:
                damaged.append(error)
                folder.rename(checkpoint.cleared(folder.with_name(f"damaged-{folder.name}")))
        return None, damaged

    def mark_best(self, step: int, val_loss: float) -> None:
        """Records the checkpoint after `step` steps as the best so far."""
        content: Best = {"checkpoint": self.checkpoint_folder(step).name, "step": step, "val_loss": val_loss}
        write_file(self.best_file, json.dumps(content))

    def remove_old_checkpoints(self, keep: int) -> None:
        """Removes all checkpoints except the newest `keep`, the best, and that of step 0 if there is an origin.json."""
        best = self.best()
        kept = {best and best["checkpoint"], self.checkpoint_folder(0).name if self.origin_file.exists() else None}
        for folder in self.checkpoint_folders()[:-keep]:
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _unreadable(path: Path, error: Exception) -> RunError:
    mine = isinstance(error, PermissionError)
    remedy = "Ask its owner for read permission." if mine else "Restore it from a copy."
    return RunError("A file of the run cannot be read", got=f"{path}: {why(error)}", remedy=remedy)


def step_number(text: str) -> int | None:
    """Returns the step number that a text is, or None."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def load_model(config: Config, folder: Path, device: torch.device | str = "cpu") -> GPT:
    """Returns the model of a checkpoint, in evaluation mode.

    Raises:
        CheckpointError: if a tensor is missing, unexpected, of another shape or not finite.
    """
    return make_model(config.model, checkpoint.load_tensors(folder, MODEL, device), device)


def load(run: Path | str, checkpoint: str = "best", device: torch.device | str = "cpu") -> tuple[GPT, Tokenizer]:
    """Returns a run's model, in evaluation mode, and its tokenizer.

    Args:
        run: the run folder.
        checkpoint: `best` (lowest validation loss), `latest`, or a step number.
        device: where to put the weights.

    Raises:
        RunError: if there is no such run.
        CheckpointError: if the checkpoint is missing, damaged, or does not fit model or tokenizer.
    """
    folder = RunFolder.open(run)
    config, tokenizer = folder.config(), folder.tokenizer()
    if config.model.vocab_size < tokenizer.vocab_size:
        raise misfit(f"model.vocab_size {config.model.vocab_size}, {tokenizer.vocab_size} ids in the tokenizer")
    return load_model(config, folder.find_checkpoint(str(checkpoint)), device), tokenizer


def _no_run(path: Path) -> RunError:
    """Returns the error for a path that is not a run, with a suggestion."""
    place, near = shell_word(path), did_you_mean_folder(path, CONFIG)
    what, remedy = f"Not a run folder: {CONFIG} not found", f"{near}Name a folder that `minigpt train` made."
    if not path.exists():
        what = "No such run folder"
    elif (path / "config.json").is_file():
        remedy = f"If it is a Hugging Face checkpoint: `minigpt import {place} --run NEW` makes it a run."
    elif (path / REPORT).is_file():
        remedy = f"It is a data set: `minigpt train --data {place} --run NEW` trains a run on it."
    return RunError(what, got=path, remedy=remedy)
