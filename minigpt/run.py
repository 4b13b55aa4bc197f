"""The run folder: everything about one training, in one place that can be moved to another machine and used there.

    config.toml            every setting, resolved; `--config` reads it back
    tokenizer/             the tokenizer, whole
    data.json              which data set: its report, and the checksum of each split
    environment.json       machine, versions, precision, and why
    metrics.jsonl          one JSON object a line, as it happens
    training_metrics.png   the curves
    checkpoints/step-...   weights, optimizer, position (see checkpoint.py)
    checkpoints/best.json  which of them has the lowest validation loss

What is trained, and how, is not decided here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt import checkpoint
from minigpt.config import Config, resolve
from minigpt.errors import CheckpointError, RunError, TokenizerError
from minigpt.model import GPT
from minigpt.tokenizers import Tokenizer, load_tokenizer

MODEL = "model"
"""The part of a checkpoint that holds the weights."""


class RunFolder:
    """The paths of a run, and what is read from and written to them."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.tokenizer_folder = self.path / "tokenizer"
        self.data_file = self.path / "data.json"
        self.environment_file = self.path / "environment.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.picture_file = self.path / "training_metrics.png"
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
    ) -> RunFolder:
        """Makes a run folder that holds all but metrics and checkpoints.

        Raises:
            RunError: if something stands there already, or the folder cannot be made.
        """
        run = cls(path)
        run.check_absent()
        try:
            run.checkpoints.mkdir(parents=True)
            run.config_file.write_text(config.to_toml(), encoding="utf-8")
            tokenizer.save(run.tokenizer_folder)
            run.data_file.write_text(json.dumps(dict(data), indent=1), encoding="utf-8")
            run.environment_file.write_text(json.dumps(dict(environment), indent=1), encoding="utf-8")
        except OSError as error:
            raise RunError(
                "The run folder cannot be made",
                seen=f"{run.path}: {error}",
                remedy="Choose another place with --run.",
            ) from error
        return run

    def check_absent(self) -> None:
        """Raises RunError if something stands at this path already; an empty folder may."""
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise RunError(
                "The run folder exists already, and is left as it is",
                seen=self.path,
                remedy="Choose another name with --run, or remove that folder first.",
            )

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Returns a run that exists.

        Raises:
            RunError: if there is none at this path.
        """
        run = cls(path)
        if not run.config_file.is_file():
            raise RunError(
                "This is no run folder: it holds no config.toml",
                seen=path,
                remedy="Give the folder that `minigpt train --run` named.",
            )
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
                seen=f"{other.spec} ({other.identity[:12]}) instead of {own.spec} ({own.identity[:12]})",
                remedy="Prepare the text with the run's tokenizer, or train a run on this data set.",
            )

    def data(self) -> dict[str, Any]:
        """Returns what is known of the data set it was trained on."""
        return self._read_json(self.data_file)

    def environment(self) -> dict[str, Any]:
        """Returns what is known of the machine it was trained on."""
        return self._read_json(self.environment_file)

    def _read_json(self, file: Path) -> dict[str, Any]:
        try:
            content = json.loads(file.read_text("utf-8"))
            if not isinstance(content, dict):
                raise ValueError("not a JSON object")
            return content
        except (OSError, ValueError) as error:
            raise RunError(
                "A file of the run cannot be read", seen=f"{file}: {error}", remedy="Restore it from a copy."
            ) from None

    def checkpoint_folders(self) -> list[Path]:
        """Returns the checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("step-*"))

    def checkpoint_folder(self, step: int) -> Path:
        """Returns where the checkpoint after `step` steps stands."""
        return self.checkpoints / f"step-{step:09d}"

    def find_checkpoint(self, which: str = "best") -> Path:
        """Returns the checkpoint that is `best`, `latest`, or of a step number.

        Raises:
            CheckpointError: if there is none such; the message names those there are.
        """
        there = self.checkpoint_folders()
        wanted = None
        if which == "best" and self.best_file.is_file():
            wanted = self.checkpoints / str(self._read_json(self.best_file).get("checkpoint"))
        elif which in ("best", "latest") and there:
            wanted = there[-1]
        elif which.isdecimal():
            wanted = self.checkpoint_folder(int(which))
        if wanted not in there:
            names = ", ".join(str(int(folder.name.removeprefix("step-"))) for folder in there) or "none yet"
            raise CheckpointError(
                "There is no such checkpoint in the run",
                seen=which,
                remedy=f"Give best, latest or a step; steps there: {names}.",
            )
        assert wanted is not None
        return wanted

    def mark_best(self, step: int, val_loss: float) -> None:
        """Notes the checkpoint after `step` steps as the best so far."""
        temporary = self.best_file.with_suffix(".partial")
        content = {"checkpoint": self.checkpoint_folder(step).name, "step": step, "val_loss": val_loss}
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, self.best_file)

    def remove_old_checkpoints(self, keep: int) -> None:
        """Removes all checkpoints but the newest `keep` and the best."""
        best = self.find_checkpoint("best") if self.checkpoint_folders() else None
        for folder in self.checkpoint_folders()[:-keep]:
            if folder != best:
                shutil.rmtree(folder, ignore_errors=True)


def model_tensors(model: GPT) -> dict[str, Tensor]:
    """Returns a model's weights by name, each once: a tied output projection is the embedding's."""
    return dict(model.named_parameters())


def load_model(config: Config, folder: Path, device: torch.device | str = "cpu") -> GPT:
    """Returns the model of a checkpoint, ready to use (in evaluation mode).

    Raises:
        CheckpointError: if a tensor is missing, surplus or of another shape; nothing is half-loaded.
    """
    tensors = checkpoint.load_tensors(folder, MODEL, device)
    with torch.device("meta"):
        expected = {name: tuple(p.shape) for name, p in GPT(config.model).named_parameters()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in expected.keys() | found.keys():
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                "The checkpoint does not fit the run's model",
                seen=f"{name}: {found.get(name, 'missing')}, expected {expected.get(name, 'nothing')}",
                remedy="Use the config.toml that the checkpoint was made with.",
            )
    model = GPT(config.model).to(device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    return model.eval()


def load(run: Path | str, checkpoint: str = "best", device: torch.device | str = "cpu") -> tuple[GPT, Tokenizer]:
    """Returns a run's model, in evaluation mode, and its tokenizer.

    Args:
        run: the run folder.
        checkpoint: `best` (lowest validation loss), `latest`, or a step number.
        device: where to put the weights.

    Raises:
        RunError: if there is no such run.
        CheckpointError: if the checkpoint is missing, damaged, or does not fit.
    """
    folder = RunFolder.open(run)
    return load_model(folder.config(), folder.find_checkpoint(str(checkpoint)), device), folder.tokenizer()
