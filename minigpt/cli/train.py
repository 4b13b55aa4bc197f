"""`minigpt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from minigpt.cli.config_options import PRESETS, options, parent_of, typed_settings
from minigpt.config import Config, GPTConfig, MachineConfig, OptimizerConfig, ScheduleConfig, TrainConfig, resolve
from minigpt.errors import ConfigError


def train_command(
    *,
    run: Path,
    data: Path | None = None,
    init_from: Path | None = None,
    preset: Annotated[str | None, Parameter(help=f"The settings to start from. {PRESETS}. [default: seed]")] = None,
    config: Path | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    tensorboard: bool = False,
    model: Annotated[GPTConfig, options("Model", 1)] = GPTConfig(),  # noqa: B008 (frozen)
    train: Annotated[TrainConfig, options("Trainer", 2)] = TrainConfig(),  # noqa: B008
    optimizer: Annotated[OptimizerConfig, options("Optimizer", 3)] = OptimizerConfig(),  # noqa: B008
    schedule: Annotated[ScheduleConfig, options("Learning-rate schedule", 4)] = ScheduleConfig(),  # noqa: B008
    machine: Annotated[MachineConfig, options("Runtime", 5)] = MachineConfig(),  # noqa: B008
) -> int:
    """Train a GPT, from scratch or on from the weights of another run.

    Shows each epoch's loss and perplexity as it goes, and leaves a run folder that stands on its own: settings,
    tokenizer, metrics, curves and checkpoints. Ctrl-C saves and stops.

    Settings come from a preset, then a TOML file, then the options given here, each overriding the one before. The
    defaults shown are those of the preset `seed`.

    Examples:

    `minigpt train --data data/books --run runs/books`

    `minigpt train --data data/books --run runs/deep --model.n-layer 6 --epochs 20`

    `minigpt train --init-from runs/books --data data/letters --run runs/letters`

    Parameters
    ----------
    run
        Folder to make for this run; it must not exist.
    data
        Folder that `minigpt prepare` made. Needed, but for --init-from: then that run's own, if left out.
    init_from
        Run whose best weights to begin with, instead of random ones. The model is that run's too, whatever the preset
        says; the data must be of its tokenizer (`minigpt prepare TEXT --out DATA --tokenizer RUN`).
    config
        TOML file of settings, in groups as below. A run's own config.toml is one.
    epochs
        Short for --train.epochs.
    steps
        Short for --train.steps.
    tensorboard
        Also write to RUN/tensorboard (extra `tensorboard`).
    """
    parsed = Config(model=model, train=train, optimizer=optimizer, schedule=schedule, machine=machine)
    typed = typed_settings(parsed, epochs, steps)
    model_there, data = parent_of(init_from, data)
    if data is None:
        raise ConfigError("No data set is named", remedy="Give --data, the folder that `minigpt prepare` made.")
    settings = resolve(preset, config, typed, model_there)

    from minigpt.cli.train_view import StopSignals, TrainView, callbacks
    from minigpt.training import train as run_training

    with TrainView() as view, StopSignals() as stop:
        outcome = run_training(
            data, run, settings, init_from=init_from, callbacks=callbacks(view, run, tensorboard), should_stop=stop
        )
    view.summary(outcome)
    return stop.exit_code if outcome.stopped else 0
