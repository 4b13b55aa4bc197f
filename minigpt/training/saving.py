"""Checkpoints of a training: saving, restoring, and going back to an earlier one."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from minigpt.atomic import sync
from minigpt.errors import CheckpointError, ConfigError
from minigpt.generation.sample_log import truncate_sample_log
from minigpt.records import REWOUND, read_metrics, truncate_after
from minigpt.runs import checkpoint
from minigpt.runs.folder import MODEL, OPTIMIZER
from minigpt.runtime import is_main
from minigpt.state_dict import first_bad_tensor, load_weights, model_tensors
from minigpt.text_utils import pluralize, shell_line
from minigpt.training.optimizers import load_optimizer_tensors, make_optimizers, optimizer_tensors
from minigpt.training.train_state import SavedTraining
from minigpt.training.trainer import Trainer


def save(trainer: Trainer) -> None:
    """Saves a checkpoint, and removes old ones. Weights that are not finite are not saved."""
    if not is_main():
        return
    if name := first_bad_tensor(model_tensors(trainer.model)):
        trainer.note(f"no checkpoint saved: {name} is not finite")
        return
    trainer.state.seconds = trainer.seconds()
    folder = trainer.folder
    if folder.metrics_file.exists():
        sync(folder.metrics_file)
    checkpoint.save(folder.checkpoint_folder(trainer.state.step), *contents(trainer))
    folder.remove_old_checkpoints(trainer.config.train.keep_checkpoints)


def contents(trainer: Trainer) -> checkpoint.Contents:
    """Returns what a checkpoint holds: tensors and plain values."""
    values = SavedTraining(state=trainer.state, scaler=trainer.scaler.state_dict(), config=trainer.config.to_dict())
    return (
        {MODEL: model_tensors(trainer.model), OPTIMIZER: optimizer_tensors(trainer.model, trainer.optimizers)},
        {**values, "state": asdict(trainer.state)},
    )


def restore(trainer: Trainer) -> None:
    """Returns to the newest intact checkpoint, or to the beginning if there is none.

    Raises:
        CheckpointError: if it was made with other settings or by another version; or if there is none, and the run
            started from given weights.
    """
    folder = trainer.folder
    newest, damaged = folder.newest_whole_checkpoint()
    if newest is None:
        _check_random_start(trainer)
        trainer.reset()
    else:
        _load(trainer, newest)
    if trainer.state.step > trainer.total_steps:
        raise ConfigError(
            f"The run has already taken {pluralize(trainer.state.step, 'step')}, more than its new length",
            got=trainer.total_steps,
            remedy="Increase --epochs or --steps.",
        )
    lost = newest is None and not damaged and bool(read_metrics(folder.metrics_file))
    trainer.started = time.perf_counter() - trainer.state.seconds
    truncate_after(folder.metrics_file, trainer.state.step)
    truncate_sample_log(folder, trainer.state.step)
    for error in damaged:
        trainer.note(f"{error.what} ({error.got}); it was set aside. Continuing from step {trainer.state.step}")
    if lost:
        trainer.emit("message", text="The run has taken steps, but has no checkpoint: it starts over.")
    if newest is not None and trainer.state.step:
        trainer.notify("on_restore")


def rewind(trainer: Trainer) -> None:
    """Returns to the newest intact checkpoint, and continues with the data in another order."""
    order, step = trainer.state.order + 1, trainer.state.step
    restore(trainer)
    trainer.set_state(replace(trainer.state, order=order, bad_steps=0))
    save(trainer)
    trainer.note(f"{REWOUND} {step} to step {trainer.state.step}; continuing with the data reshuffled")


def _load(trainer: Trainer, folder: Path) -> None:
    values: SavedTraining = checkpoint.load_values(folder, SavedTraining)
    trainer.folder.check_settings(trainer.config, values["config"])
    device, model = trainer.machine.device, trainer.model
    load_weights(model, checkpoint.load_tensors(folder, MODEL, device))
    trainer.optimizers = make_optimizers(model, trainer.config.train.lr, trainer.config.optimizer)
    load_optimizer_tensors(model, trainer.optimizers, checkpoint.load_tensors(folder, OPTIMIZER, device))
    if trainer.scaler.is_enabled() and values["scaler"]:  # a run started in another precision has none
        trainer.scaler.load_state_dict(values["scaler"])
    trainer.set_state(values["state"])


def _check_random_start(trainer: Trainer) -> None:
    """Raises CheckpointError if a run that lost its checkpoints started from given weights, not random ones."""
    if origin := trainer.folder.origin():
        command = ["minigpt", "train", "--init-from", origin["folder"], "--data", trainer.folder.data()["folder"]]
        command += ["--config", str(trainer.folder.config_file), "--run", "NEW"]
        raise CheckpointError(
            "The run has no intact checkpoint left, not even its initial weights",
            got=trainer.folder.checkpoints,
            remedy=f"Start again from them: {shell_line(command)}",
        )
