"""Starting a run and resuming one: everything is checked here, before the first step and before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

from minigpt import runtime
from minigpt.config import Config, check_one_length, with_vocabulary
from minigpt.data import BatchLoader, Dataset
from minigpt.errors import ConfigError
from minigpt.records import OTHER_ENVIRONMENT, Callback
from minigpt.runs import checkpoint
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.state_dict import load_weights
from minigpt.training.callbacks import default_callbacks
from minigpt.training.compiling import decide_compile
from minigpt.training.estimate import estimate_training
from minigpt.training.saving import contents, restore, save
from minigpt.training.train_state import TrainResult
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback

Callbacks: TypeAlias = Sequence[Callback | TrainerCallback]

DECISIVE = ("torch", "processor", "instructions", "threads", "device", "precision", "compiled")
"""Facts of a run's environment on which its bits depend."""


def never() -> bool:
    """Returns false."""
    return False


def train(
    data: Path | str,
    run: Path | str,
    config: Config | None = None,
    *,
    init_from: Path | str | None = None,
    callbacks: Callbacks = (),
    should_stop: Callable[[], bool] = never,
) -> TrainResult:
    """Trains a model, from scratch or from another run's weights, and keeps everything about it in a run folder.

    Args:
        data: a folder that `minigpt prepare` made.
        run: the folder to create.
        config: settings, as `minigpt.resolve` returns them; by default the preset `seed`. The size of the vocabulary
            is that of the data set's tokenizer, unless model.vocab_size is larger.
        init_from: a run whose best weights to start from instead of random ones; the optimizer starts afresh. Settings
            must describe its model, as the default and `minigpt.resolve(..., model=)` do.
        callbacks: functions that are given each record (minigpt/records.py), or `TrainerCallback`s.
        should_stop: asked after each step; true saves a checkpoint and stops the run.

    Raises:
        MiniGPTError: if data, settings or folder are not usable; nothing has been written then.
    """
    if config is None:
        config = Config(model=RunFolder.open(init_from).config().model) if init_from is not None else Config()
    trainer = start(data, run, config, callbacks, should_stop, init_from)
    with trainer.folder.lock():
        return trainer.run()


def start(
    data: Path | str,
    run: Path | str,
    config: Config,
    callbacks: Callbacks = (),
    should_stop: Callable[[], bool] = never,
    init_from: Path | str | None = None,
) -> Trainer:
    """Returns a trainer before its first step, its run folder created. Arguments and errors as in `train`."""
    config.check()
    folder = RunFolder(run)
    folder.check_absent()
    dataset = Dataset.open(data)
    parent = None if init_from is None else RunFolder.open(init_from)
    if parent is not None:
        parent.check_tokenizer(dataset.tokenizer)
    config = with_vocabulary(config, dataset.tokenizer.vocab_size)
    machine = runtime.detect_runtime(config.machine.device, config.machine.precision, config.machine.threads)
    if parent is not None:
        _check_same_model(parent, config)
    BatchLoader(dataset.train, config.model.block_size, batch_size=1).batch(0)  # raises if the split is too short
    estimate = estimate_training(config, machine, dataset.card)
    if not estimate.fits:
        raise ConfigError(
            "The training needs more memory than this machine has",
            got=f"{estimate.bytes / 1e9:,.1f} GB needed, {(estimate.available_bytes or 0) / 1e9:,.1f} GB available",
            remedy="Try --train.grad-accum-steps 2, 4, ..., a smaller model or a smaller --model.block-size; "
            "`minigpt plan` shows what needs how much.",
        )
    machine = decide_compile(machine, config, estimate.steps or 0)
    all_callbacks = default_callbacks(callbacks, should_stop, estimate.matmul_flops, estimate)
    trainer = Trainer(config, dataset, machine, folder, all_callbacks)
    facts = (dataset.tokenizer, dataset.fingerprint(), runtime.environment(machine))
    if parent is None:
        RunFolder.create(run, config, *facts)
    else:
        source = parent.find_checkpoint()
        load_weights(trainer.model, checkpoint.load_tensors(source, MODEL, machine.device))
        origin = {"kind": "run", "folder": str(parent.path.resolve()), "checkpoint": source.name}
        RunFolder.create(run, config, *facts, origin=origin, first=contents(trainer))
    return trainer


def _check_same_model(parent: RunFolder, config: Config) -> None:
    """Raises ConfigError naming each setting of the model that differs from that of the run to start from.

    Dropout may differ: it has no weights.
    """
    own, other = asdict(config.model), asdict(parent.config().model)
    differing = [
        f"model.{name} {own[name]!r}, in {parent.name} {value!r}"
        for name, value in other.items()
        if own[name] != value and name != "dropout"
    ]
    if differing:
        raise ConfigError(
            "The settings describe another model than the one to start from",
            got="; ".join(differing),
            remedy="Omit these settings; in Python: minigpt.resolve(..., model=minigpt.load(RUN)[0].config).",
        )


def resume(
    run: Path | str,
    *,
    data: Path | str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    patience: int | None = None,
    callbacks: Callbacks = (),
    should_stop: Callable[[], bool] = never,
) -> TrainResult:
    """Continues a run from its newest intact checkpoint, as if it had never stopped.

    Args:
        run: the run folder. A run without a checkpoint starts over.
        data: where the data set is now, if it has moved; it must be the same one.
        epochs, steps: a new length, one or the other. The learning-rate schedule is stretched over it. A run that was
            stopped early continues too, its patience renewed.
        patience: a new `train.patience`; 0 turns early stopping off.
        callbacks, should_stop: as in `train`.

    Raises:
        MiniGPTError: if the run, its data or its checkpoints cannot be used; they are left as they are.
    """
    folder = RunFolder.open(run)
    folder.check_trained()
    with folder.lock():
        config = folder.config()
        changed = _changed(config, epochs, steps, patience)
        dataset = folder.open_data(data)
        folder.check_data(dataset)
        before = folder.environment()
        machine = runtime.restore_runtime(before, config.machine)
        with machine.fork_random():
            flops = runtime.measure_matmul_flops(machine.device, machine.dtype, 1024, 0.03)
        all_callbacks = default_callbacks(callbacks, should_stop, flops, warn=changed != config)
        trainer = Trainer(changed, dataset, machine, folder, all_callbacks)
        restore(trainer)
        extended = trainer.total_steps != replace(trainer.intervals, config=config).total_steps
        if extended and trainer.stopped_early:
            trainer.state.patience_counter = 0
            save(trainer)
        if changed != config:
            folder.save_config(changed)
        now = runtime.environment(machine)
        if differing := [name for name in DECISIVE if before.get(name, now[name]) != now[name]]:
            facts = ", ".join(f"{name} was {before.get(name)}, is now {now[name]}" for name in differing)
            trainer.note(f"{OTHER_ENVIRONMENT}, so not bit for bit: {facts}")
            folder.save_environment(now)
        return trainer.run()


def _changed(config: Config, epochs: int | None, steps: int | None, patience: int | None) -> Config:
    train = config.train
    check_one_length(epochs, steps)
    if steps is not None:
        train = replace(train, steps=steps)
    elif epochs is not None:
        train = replace(train, epochs=epochs, steps=None)
    if patience is not None:
        train = replace(train, patience=patience)
    config = replace(config, train=train)
    config.check()
    return config
