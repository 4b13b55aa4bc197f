"""`minigpt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from minigpt.cli.config_options import PRESETS, ShortOptions, options, parent_of, typed_settings
from minigpt.config import Config, GPTConfig, MachineConfig, OptimizerConfig, ScheduleConfig, TrainConfig, resolve
from minigpt.errors import ConfigError


def train_command(
    *,
    run: Path,
    data: Path | None = None,
    init_from: Path | None = None,
    preset: Annotated[str | None, Parameter(help=f"Preset to start from. {PRESETS}. [default: seed]")] = None,
    config: Path | None = None,
    short: ShortOptions = ShortOptions(),  # noqa: B008 (frozen)
    tensorboard: bool = False,
    model: Annotated[GPTConfig, options("Model", 1)] = GPTConfig(),  # noqa: B008
    train: Annotated[TrainConfig, options("Training", 2)] = TrainConfig(),  # noqa: B008
    optimizer: Annotated[OptimizerConfig, options("Optimizer", 3)] = OptimizerConfig(),  # noqa: B008
    schedule: Annotated[ScheduleConfig, options("Learning-rate schedule", 4)] = ScheduleConfig(),  # noqa: B008
    machine: Annotated[MachineConfig, options("Machine", 5)] = MachineConfig(),  # noqa: B008
) -> int:
    """Train a GPT from scratch, or from the weights of another run.

    Shows loss and perplexity of each epoch, and writes a self-contained run folder: settings, tokenizer, metrics, plot
    and checkpoints. Ctrl-C saves and stops.

    Settings come from a preset, then a TOML file, then the options given here; later ones override earlier ones. The
    defaults shown are those of the preset `seed`.

    Examples:

    `minigpt train --data data/books --run runs/books`

    `minigpt train --data data/books --run runs/deep --model.n-layer 6 --epochs 20`

    `minigpt train --init-from runs/books --data data/letters --run runs/letters`

    Parameters
    ----------
    run
        Folder to create for this run.
    data
        Folder that `minigpt prepare` made. Required unless --init-from is given, whose data is then the default.
    init_from
        Run whose best weights to start from, instead of random ones. The model is that run's too, whatever the preset
        says; the data must use its tokenizer (`minigpt prepare TEXT --out DATA --tokenizer RUN`).
    config
        TOML file of settings, in groups as below, such as the config.toml of another run.
    tensorboard
        Also write to RUN/tensorboard (extra `tensorboard`).
    """
    parsed = Config(model=model, train=train, optimizer=optimizer, schedule=schedule, machine=machine)
    typed = typed_settings(parsed, short)
    parent, data = parent_of(init_from, data)
    if data is None:
        raise ConfigError("No data set given", remedy="Give --data, the folder that `minigpt prepare` made.")
    settings = resolve(preset, config, typed, parent)

    from minigpt.cli.train_view import StopSignals, TrainView, callbacks
    from minigpt.training import train as run_training

    with TrainView() as view, StopSignals() as stop:
        result = run_training(
            data, run, settings, init_from=init_from, callbacks=callbacks(view, tensorboard), should_stop=stop
        )
    view.summary(result)
    return stop.exit_code if result.stopped else 0
