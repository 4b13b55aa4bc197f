"""Settings as options, for `minigpt train` and `minigpt plan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, Group, Parameter

from minigpt.config import Config, GPTConfig, Precision, check_one_length, load_preset, preset_names

PRESETS = ". ".join(
    f"{preset.name}: {preset.summary}; made for --tokenizer {preset.tokenizer}"
    for preset in map(load_preset, preset_names())
)


class ExplicitOptions:
    """Remembers which options were given: only those override preset and file, even with a default value."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Called by cyclopts with all options of the command, before it assigns them."""
        self.names = {a.name.removeprefix("--").replace("-", "_") for a in arguments if a.tokens}


given = ExplicitOptions()


def options(title: str, place: int) -> Parameter:
    """Returns a group of settings for the help."""
    return Parameter(group=Group(title, sort_key=place))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ShortOptions:
    """Settings that have a short name too, the same as in other commands."""

    epochs: int | None = None
    "Short for --train.epochs."
    steps: int | None = None
    "Short for --train.steps."
    device: str | None = None
    "Short for --machine.device."
    precision: Precision | None = None
    "Short for --machine.precision."
    threads: int | None = None
    "Short for --machine.threads."

    @property
    def settings(self) -> dict[str, Any]:
        """Those that are given, by their dotted names."""
        named = {
            f"{'train' if name in ('epochs', 'steps') else 'machine'}.{name}": value
            for name, value in vars(self).items()
        }
        return {name: value for name, value in named.items() if value is not None}


def typed_settings(parsed: Config, short: ShortOptions) -> dict[str, Any]:
    """Returns the settings that were given on the command line, by their dotted names.

    Raises:
        ConfigError: if both a number of epochs and a number of steps are among them.
    """
    flat = {f"{group}.{name}": value for group, values in parsed.to_dict().items() for name, value in values.items()}
    typed = {name: value for name, value in flat.items() if name in given.names}
    typed |= short.settings
    check_one_length(typed.get("train.epochs"), typed.get("train.steps"))
    return typed


def parent_of(init_from: Path | None, data: Path | None) -> tuple[GPTConfig | None, Path | None]:
    """Returns the model of the run to start from, and the data set: by default that run's own."""
    if init_from is None:
        return None, data
    from minigpt.runs.folder import RunFolder

    parent = RunFolder.open(init_from)
    return parent.config().model, data or parent.open_data().folder
