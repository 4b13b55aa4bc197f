"""Beginning a run, and going on with one: everything is checked here, before the first step and the first file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from minigpt import runtime
from minigpt.config import Config, with_vocabulary
from minigpt.data import BatchLoader, Dataset
from minigpt.errors import ConfigError
from minigpt.records import Callback
from minigpt.runs import checkpoint
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.state_dict import load_weights
from minigpt.training.compiling import decide_compile
from minigpt.training.estimate import estimate_training
from minigpt.training.trainer import Trainer, TrainResult

DECISIVE = ("torch", "processor", "instructions", "threads", "device", "precision", "compiled")
"""Facts of a run's environment on which its bits depend. An old run may not tell of all."""


def never() -> bool:
    """Returns false."""
    return False


def train(
    data: Path | str,
    run: Path | str,
    config: Config | None = None,
    *,
    init_from: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = never,
) -> TrainResult:
    """Trains a model, from scratch or from another run's weights, and leaves everything about it in a run folder.

    Args:
        data: a folder that `minigpt prepare` made.
        run: the folder to make; it must not exist.
        config: settings, as `minigpt.resolve` makes them; the preset `seed` when left out. The model's vocabulary is
            that of the data set's tokenizer, unless model.vocab_size is larger.
        init_from: a run whose best weights to begin with, instead of random ones; the optimizer is new. Settings must
            describe its model (`minigpt.resolve(..., model=)` makes such); they do when left out.
        watchers: functions that are given each record (see metrics.py).
        should_stop: asked after each step; true saves a checkpoint and ends the run.

    Raises:
        MiniGPTError: if data, settings or folder cannot work; nothing has been written then.
    """
    if config is None:
        config = Config(model=RunFolder.open(init_from).config().model) if init_from is not None else Config()
    training = start(data, run, config, callbacks, should_stop, init_from)
    with training.folder.lock():
        return training.run()


def start(
    data: Path | str,
    run: Path | str,
    config: Config,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = never,
    init_from: Path | str | None = None,
) -> Trainer:
    """Returns a training before its first step, its run folder made. Arguments and errors as `train`."""
    config.check()
    folder = RunFolder(run)
    folder.check_absent()
    dataset = Dataset.open(data)
    config = with_vocabulary(config, dataset.tokenizer.vocab_size)
    machine = runtime.detect_runtime(config.machine.device, config.machine.precision, config.machine.threads)
    parent = _checked_parent(init_from, config, dataset) if init_from is not None else None
    BatchLoader(dataset.train, config.model.block_size, batch_size=1).batch(
        0
    )  # refuses a split too short for a sequence
    plan = estimate_training(config, machine, dataset.card)
    if not plan.fits:
        raise ConfigError(
            "The training needs more memory than this machine has",
            got=f"{plan.bytes / 1e9:,.1f} GB planned, {(plan.room or 0) / 1e9:,.1f} GB there",
            remedy="Try --train.grad-accum-steps 2, 4, ... or a smaller model or --model.block-size; see "
            "`minigpt plan`.",
        )
    machine = decide_compile(machine, config, plan.steps or 0)
    training = Trainer(config, dataset, machine, folder, callbacks, should_stop, plan)
    facts = (dataset.tokenizer, dataset.fingerprint(), runtime.environment(machine))
    if parent is None:
        RunFolder.create(run, config, *facts)
    else:
        source = parent.find_checkpoint()
        load_weights(training.model, checkpoint.load_tensors(source, MODEL, machine.device))
        origin = {"kind": "run", "folder": str(parent.path.resolve()), "checkpoint": source.name}
        RunFolder.create(run, config, *facts, origin=origin, first=training.contents())
    return training


def _checked_parent(init_from: Path | str, config: Config, dataset: Dataset) -> RunFolder:
    """Returns the run whose weights to begin with, after making sure that model and tokenizer are the same.

    Raises:
        ConfigError: naming each setting of the model that differs, with both values. Dropout may: it has no weights.
        TokenizerError: if the data set was made with another tokenizer.
    """
    parent = RunFolder.open(init_from)
    parent.check_tokenizer(dataset.tokenizer)
    own, other = asdict(config.model), asdict(parent.config().model)
    differing = [f"model.{name} {own[name]!r}, there {value!r}" for name, value in other.items() if own[name] != value]
    differing = [text for text in differing if not text.startswith("model.dropout ")]
    if differing:
        raise ConfigError(
            "The model is not the one whose weights it is to begin with",
            got="; ".join(differing),
            remedy="Leave these settings out; from Python: minigpt.resolve(..., model=minigpt.load(RUN)[0].config).",
        )
    return parent


def resume(
    run: Path | str,
    *,
    data: Path | str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    patience: int | None = None,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = never,
) -> TrainResult:
    """Goes on with a run from its newest whole checkpoint, as if it had never stopped.

    Args:
        run: the run folder. A run that has not yet a checkpoint begins anew.
        data: where the data set is now, if it has moved; it must be the same one.
        epochs, steps: a new length. The schedule is laid out over it, and the rate goes on where it would then stand; a
            run that its patience has ended goes on too, and waits anew.
        patience: a new number of validations without a lower loss, 0 for any.
        watchers, should_stop: as in `train`.

    Raises:
        MiniGPTError: if the run, its data or its checkpoints cannot be used; they are left as they are.
    """
    folder = RunFolder.open(run)
    folder.check_trained()
    with folder.lock():
        config = folder.config()
        dataset = folder.open_data(data)
        folder.check_data(dataset)
        before = folder.environment()
        machine = runtime.restore_runtime(before, config.machine)
        changed = _changed(config, epochs, steps, patience)
        training = Trainer(changed, dataset, machine, folder, callbacks, should_stop)
        training.restore()
        longer = training.total_steps != replace(training.due, config=config).total_steps
        if longer and training.out_of_patience:
            training.be_patient_again()
        if changed != config:
            folder.save_config(changed)
            training.tell_misfits()
        now = runtime.environment(machine)
        if differing := [name for name in DECISIVE if before.get(name, now[name]) != now[name]]:
            training.note(
                "going on elsewhere, so not bit for bit: "
                + ", ".join(f"{name} {before.get(name)}, now {now[name]}" for name in differing)
            )
            folder.save_environment(now)
        return training.run()


def _changed(config: Config, epochs: int | None, steps: int | None, patience: int | None) -> Config:
    train = config.train
    if steps is not None:
        train = replace(train, steps=steps)
    elif epochs is not None:
        train = replace(train, epochs=epochs, steps=None)
    if patience is not None:
        train = replace(train, patience=patience)
    config = replace(config, train=train)
    config.check()
    return config
