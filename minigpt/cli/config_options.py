"""Settings as options: what `minigpt train` and `minigpt plan` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, Group, Parameter

from minigpt.config import Config, GPTConfig, load_preset, preset_names

PRESETS = ". ".join(
    f"{preset.name}: {preset.summary}; made for data of --tokenizer {preset.tokenizer}"
    for preset in map(load_preset, preset_names())
)


class ExplicitOptions:
    """Remembers which options were typed: only those override preset and file, whatever their value."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Called by cyclopts with every option of the command, before it fills them in."""
        self.names = {a.name.removeprefix("--").replace("-", "_") for a in arguments if a.tokens}


given = ExplicitOptions()


def options(title: str, place: int) -> Parameter:
    """Returns how a group of settings stands in the help."""
    return Parameter(group=Group(title, sort_key=place))


def typed_settings(parsed: Config, epochs: int | None, steps: int | None) -> dict[str, Any]:
    """Returns the settings that were typed, by their dotted names."""
    flat = {f"{group}.{name}": value for group, values in parsed.to_dict().items() for name, value in values.items()}
    typed = {name: value for name, value in flat.items() if name in given.names}
    return typed | {
        name: value for name, value in (("train.epochs", epochs), ("train.steps", steps)) if value is not None
    }


def parent_of(init_from: Path | None, data: Path | None) -> tuple[GPTConfig | None, Path | None]:
    """Returns the model of the run to begin with, and the data set: that run's own if none is named."""
    if init_from is None:
        return None, data
    from minigpt.runs.folder import RunFolder

    parent = RunFolder.open(init_from)
    return parent.config().model, data or parent.open_data().folder
