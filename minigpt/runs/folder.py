"""The run folder: everything about one training, in one place that can be moved to another machine and used there.

    config.toml            every setting, resolved; `--config` reads it back
    tokenizer/             the tokenizer, whole
    data.json              which data set: its report, and the checksum of each split
    environment.json       machine, versions, precision, and why
    origin.json            where the first weights came from, if not from chance: another run, or an imported folder
    metrics.jsonl          one JSON object a line, as it happens
    samples.jsonl          what it said after each epoch (see generation/history.py)
    training_metrics.png   the curves
    evaluation.json        figures that `minigpt report` measured (see report/cache.py)
    checkpoints/step-...   weights, optimizer, position (see checkpoint.py); step 0 only if there is an origin.json
    checkpoints/best.json  which of them has the lowest validation loss

What is trained, and how, is not decided here.
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
"""Settings that may change when a run is resumed; the others decide what it is."""


class RunOrigin(TypedDict):
    """Where a run's first weights came from: what kind of thing, and where that was."""

    kind: str
    folder: str


class Best(TypedDict):
    """The checkpoint with the lowest validation loss, in nats a token."""

    checkpoint: str
    step: Count
    val_loss: NonNegative


class RunFolder:
    """The paths of a run, and what is read from and written to them."""

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
        """Makes a run folder that holds all but metrics and later checkpoints.

        Args:
            path: where it will stand.
            config: the run's settings.
            tokenizer: the run's tokenizer.
            data: what is known of its data set.
            environment: what is known of its machine.
            origin: where its first weights come from, if not from chance: `kind` and `folder`, and what else is known.
            first: they, as the checkpoint of step 0, which is kept as long as the run.

        Raises:
            RunError: if something stands there already, or the folder cannot be made; nothing is left then.
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
                "The run folder cannot be made",
                got=f"{run.path}: {why(error.__cause__ or error)}",
                remedy="Choose another place with --run.",
            ) from error
        return run

    def save_config(self, config: Config) -> None:
        """Writes the run's settings."""
        write_file(self.config_file, config.to_toml())

    def save_environment(self, environment: Mapping[str, Any]) -> None:
        """Writes what is known of the machine."""
        write_file(self.environment_file, json.dumps(dict(environment), indent=1))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training into this run. The system lets go of it when its holder dies.

        Raises:
            RunError: if another process holds it, or the folder cannot be written.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                "Another process is training into this run", got=self.path, remedy="Wait for it, or stop it first."
            ) from None
        except OSError as error:
            raise RunError(
                "The run folder cannot be written",
                got=f"{self.path}: {why(error)}",
                remedy="Check its rights and the disk.",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def check_absent(self) -> None:
        """Raises RunError if something stands at this path already; an empty folder may."""
        if is_file(self.path) or (is_dir(self.path) and any(self.path.iterdir())):
            raise RunError(
                "The run folder exists already, and is left as it is",
                got=self.path,
                remedy="Choose another name with --run, or remove that folder first.",
            )

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Returns a run that exists.

        Raises:
            RunError: if there is none at this path.
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
        """Raises TokenizerError if `other` gives ids that this run's model does not mean."""
        own = self.tokenizer()
        if own.identity != other.identity:
            raise TokenizerError(
                "The data set was made with another tokenizer than the run",
                got=f"{other.spec} ({other.identity[:12]}) instead of {own.spec} ({own.identity[:12]})",
                remedy=f"Prepare the text anew, `{self._preparing()}`, or train a run on this data set.",
            )

    def _place(self) -> str:
        """Returns the run's folder as it is typed."""
        return shell_word(self.path)

    def _preparing(self) -> str:
        """Returns the command that makes a data set of this run's tokenizer."""
        return f"minigpt prepare TEXT --out DATA --tokenizer {self._place()}"

    def open_data(self, place: Path | str | None = None, *, verify: bool = True) -> Dataset:
        """Returns a data set that this run's tokenizer made: the one at `place`, or else the one it was trained on.

        `verify` as in `Dataset.open`.

        Raises:
            DataError: if it is not there or damaged.
            TokenizerError: if another tokenizer made it.
        """
        own = self.data()["folder"]
        if not (place or own):
            raise DataError(
                "An imported run has no data set of its own",
                got=self.path,
                remedy=f"Name one with --data; `{self._preparing()}` makes one.",
            )
        found = Path(place or own)
        if not is_dir(found):
            raise DataError(
                "The run's data set is not there" if not place else "No such data set",
                got=found,
                remedy="If it has moved, name it with --data."
                if not place
                else f"{did_you_mean_folder(found, REPORT)}Check the path given with --data.",
            )
        dataset = Dataset.open(found, verify=verify)
        self.check_tokenizer(dataset.tokenizer)
        return dataset

    def check_data(self, dataset: Dataset) -> None:
        """Raises DataError, naming what differs, unless `dataset` is the one that the run was made with.

        If it is, the run remembers where it is now.
        """
        own, other = self.data(), dataset.fingerprint()
        for split, facts in other["splits"].items():
            known: Mapping[str, object] = own["splits"].get(split) or {}
            for name, found in facts.items():
                if found != (value := known.get(name)):
                    raise DataError(
                        "The data set is not the one that the run was made with",
                        got=f"{split} {name} {found}, not {value}, in {dataset.folder}",
                        remedy="Give the right one with --data, or train a new run.",
                    )
        if own["folder"] != other["folder"]:
            write_file(self.data_file, json.dumps(other, indent=1))

    def check_settings(self, config: Config, made_with: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises CheckpointError, naming what differs, if config.toml is not what a checkpoint was made with.

        Settings that do not decide what the run is, such as its length, may differ.
        """
        own = config.to_dict()
        differing = [
            f"{group}.{name} {own[group].get(name)!r}, the checkpoint {value!r}"
            for group, values in made_with.items()
            for name, value in values.items()
            if f"{group}.{name}" not in FREE_SETTINGS and own[group].get(name) != value
        ]
        if differing:
            raise CheckpointError(
                "The run's config.toml is not what its checkpoint was made with",
                got="; ".join(differing),
                remedy="Put the old values back, or train a new run with the new ones.",
            )

    def data(self) -> Fingerprint:
        """Returns what is known of the data set it was trained on.

        Raises:
            RunError: if that, as all small files of a run, cannot be read, or holds something else.
        """
        found = self._read(Fingerprint, self.data_file)
        if found["splits"] and not {"train", "val"} <= found["splits"].keys():
            raise _unreadable(self.data_file, ValueError("a split is missing"))
        return found

    def origin(self) -> RunOrigin | None:
        """Returns where the run's first weights came from; None if from chance."""
        return self._read(RunOrigin, self.origin_file) if self.origin_file.exists() else None

    def check_trained(self) -> None:
        """Raises RunError if the run was imported: it has weights, but no training to go on with."""
        if not self.data()["splits"]:
            raise RunError(
                "The run was imported, not trained: it has nothing to go on with",
                got=self.path,
                remedy=f"Start a run from its weights: minigpt train --init-from {self._place()} --data DATA --run NEW",
            )

    def environment(self) -> Mapping[str, Any]:
        """Returns what is known of the machine it was trained on: an `Environment`, and more."""
        return self._read(Environment, self.environment_file)

    def _read(self, kind: type[Kind], file: Path) -> Kind:
        try:
            return validate(kind, read_json(file))
        except (OSError, ValueError) as error:
            raise _unreadable(file, error) from None

    def checkpoint_folders(self) -> list[Path]:
        """Returns the checkpoints, oldest first.

        Raises:
            RunError: if nobody can tell which there are.
        """
        try:
            names = os.listdir(self.checkpoints)
        except OSError as error:
            if is_missing(error):
                return []
            raise _unreadable(self.checkpoints, error) from None
        return sorted(self.checkpoints / name for name in names if re.fullmatch(r"step-\d{9,}", name))

    def checkpoint_folder(self, step: int) -> Path:
        """Returns where the checkpoint after `step` steps stands."""
        return self.checkpoints / f"step-{step:09d}"

    @staticmethod
    def checkpoint_step(folder: Path) -> int:
        """Returns how many steps are behind a checkpoint."""
        return int(folder.name.removeprefix("step-"))

    def find_checkpoint(self, which: str = "best") -> Path:
        """Returns the checkpoint that is `best`, `latest`, or of a step number.

        Raises:
            CheckpointError: if there is none such; the message names those there are.
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
                "There is no such checkpoint in the run",
                got=which if len(which) <= 40 else f"{which[:40]}...",
                remedy=f"Give best, latest or a step; steps there: {names}.",
            )
        assert wanted is not None
        return wanted

    def best(self) -> Best | None:
        """Returns the note of the best checkpoint; if it cannot be read, the metrics tell which it is, or None does."""
        try:
            return self._read(Best, self.best_file)
        except RunError:
            told = self._validated_checkpoints()
            return min(told, key=lambda best: best["val_loss"], default=None)

    def _validated_checkpoints(self) -> list[Best]:
        """Returns the checkpoints that are there, with their validation losses as the metrics tell them."""
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
        """Returns the newest checkpoint that is whole, if any, and what is wrong with each newer one.

        Newer ones are set aside as `damaged-step-...`, so that they are not taken for the newest again.

        Raises:
            CheckpointError: if one was written by another version, or may not be read: older ones must not silently
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
        """Notes the checkpoint after `step` steps as the best so far."""
        content: Best = {"checkpoint": self.checkpoint_folder(step).name, "step": step, "val_loss": val_loss}
        write_file(self.best_file, json.dumps(content))

    def remove_old_checkpoints(self, keep: int) -> None:
        """Removes all checkpoints but the newest `keep`, the best, and that of step 0 if there is an origin.json."""
        best = self.best()
        kept = {best and best["checkpoint"], self.checkpoint_folder(0).name if self.origin_file.exists() else None}
        for folder in self.checkpoint_folders()[:-keep]:
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _unreadable(path: Path, error: Exception) -> RunError:
    mine = isinstance(error, PermissionError)
    remedy = "Ask its owner for the right to read it." if mine else "Restore it from a copy."
    return RunError("A file of the run cannot be read", got=f"{path}: {why(error)}", remedy=remedy)


def step_number(text: str) -> int | None:
    """Returns the step that a text names, or None; one of more than 18 digits is none that any run has."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def load_model(config: Config, folder: Path, device: torch.device | str = "cpu") -> GPT:
    """Returns the model of a checkpoint, ready to use (in evaluation mode).

    Raises:
        CheckpointError: if a tensor is missing, surplus, of another shape or not finite; nothing is half-loaded.
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
    """Returns what is wrong with a path that is no run, and what may be meant instead."""
    place, near = shell_word(path), did_you_mean_folder(path, CONFIG)
    what, remedy = "This is no run folder: it holds no config.toml", f"{near}Give a folder that `minigpt train` made."
    if not path.exists():
        what = "There is no run folder at this path"
    elif (path / "config.json").is_file():
        remedy = f"It may be a checkpoint: `minigpt import {place} --run NEW` makes a run of it."
    elif (path / REPORT).is_file():
        remedy = f"It is a data set: `minigpt train --data {place} --run NEW` makes a run of it."
    return RunError(what, got=path, remedy=remedy)
