"""`minigpt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, Group, Parameter

from minigpt.config import (
    Config,
    GPTConfig,
    MachineConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    load_preset,
    preset_names,
    resolve,
)
from minigpt.errors import ConfigError

PRESETS = ". ".join(
    f"{preset.name}: {preset.summary}; made for data of --tokenizer {preset.tokenizer}"
    for preset in map(load_preset, preset_names())
)


class Given:
    """Remembers which options were typed: only those override preset and file, whatever their value."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Called by cyclopts with every option of the command, before it fills them in."""
        self.names = {a.name.removeprefix("--").replace("-", "_") for a in arguments if a.tokens}


given = Given()


def _options(title: str, place: int) -> Parameter:
    return Parameter(group=Group(title, sort_key=place))


def train_command(
    *,
    run: Path,
    data: Path | None = None,
    init: Path | None = None,
    preset: Annotated[str | None, Parameter(help=f"The settings to start from. {PRESETS}. [default: seed]")] = None,
    config: Path | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    tensorboard: bool = False,
    model: Annotated[GPTConfig, _options("Model", 1)] = GPTConfig(),  # noqa: B008 (frozen)
    train: Annotated[TrainConfig, _options("Training", 2)] = TrainConfig(),  # noqa: B008
    optimizer: Annotated[OptimizerConfig, _options("Optimizer", 3)] = OptimizerConfig(),  # noqa: B008
    schedule: Annotated[ScheduleConfig, _options("Learning-rate schedule", 4)] = ScheduleConfig(),  # noqa: B008
    machine: Annotated[MachineConfig, _options("Machine", 5)] = MachineConfig(),  # noqa: B008
) -> int:
    """Train a GPT, from scratch or on from the weights of another run.

    Shows each epoch's loss and perplexity as it goes, and leaves a run folder that stands on its own: settings,
    tokenizer, metrics, curves and checkpoints. Ctrl-C saves and stops.

    Settings come from a preset, then a TOML file, then the options given here, each overriding the one before. The
    defaults shown are those of the preset `seed`.

    Examples:

    `minigpt train --data data/books --run runs/books`

    `minigpt train --data data/books --run runs/deep --model.n-layer 6 --schedule.name cosine --epochs 20`

    `minigpt train --init runs/books --data data/letters --run runs/letters --epochs 3`

    Parameters
    ----------
    run
        Folder to make for this run; it must not exist.
    data
        Folder that `minigpt prepare` made. Needed, but for --init: then that run's own, if left out.
    init
        Run whose best weights to begin with, instead of random ones. The model is that run's too, whatever the preset
        says; the data must be of its tokenizer (`minigpt prepare --tokenizer RUN`).
    config
        TOML file of settings, in groups as below. A run's own config.toml is one.
    epochs
        Short for --train.epochs.
    steps
        Short for --train.steps.
    tensorboard
        Also write to RUN/tensorboard (extra `tensorboard`).
    """
    overrides = _overrides(Config(model=model, train=train, optimizer=optimizer, schedule=schedule, machine=machine))
    for name, value in (("train.epochs", epochs), ("train.steps", steps)):
        if value is not None:
            overrides[name] = value
    if "model.vocab_size" in overrides:
        raise ConfigError(
            "The vocabulary is the data set's tokenizer's, not an option",
            seen=f"--model.vocab-size {model.vocab_size}",
            remedy="Leave it out; choose a tokenizer with `minigpt prepare --tokenizer`.",
        )
    model_there = None
    if init is not None:
        from minigpt.run import RunFolder

        parent = RunFolder.open(init)
        model_there, data = parent.config().model, data or parent.open_data().folder
    if data is None:
        raise ConfigError("No data set is named", remedy="Give --data, the folder that `minigpt prepare` made.")
    settings = resolve(preset, config, overrides, model_there)

    from minigpt.cli.live import StopSignals, TrainView, watchers
    from minigpt.training import train as run_training

    with TrainView() as view, StopSignals() as stop:
        outcome = run_training(
            data, run, settings, init=init, watchers=watchers(view, run, tensorboard), should_stop=stop
        )
    view.summary(outcome)
    return stop.exit_code if outcome.stopped else 0


def _overrides(parsed: Config) -> dict[str, Any]:
    """Returns the settings that were typed, by their dotted names."""
    flat = {f"{group}.{name}": value for group, values in parsed.to_dict().items() for name, value in values.items()}
    return {name: value for name, value in flat.items() if name in given.names}
