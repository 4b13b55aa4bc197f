"""The commands that reproduce a run, with placeholders such as RUN and DATA for its folders.

The doctor's advice names paths by the same placeholders (facts.py `RunFacts.shortened`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt.data.dataset_card import DatasetCard
from minigpt.report.facts import RunFacts
from minigpt.report.settings_section import nearest_preset
from minigpt.runs.folder import RunFolder
from minigpt.text_utils import display_name, shell_word

MAX_OPTIONS = 4
"""If more settings than these differ from the preset, the command names the run's configuration file instead."""

USUAL_BLOCK_SIZE = 512
"""The default of `minigpt prepare`."""

MEANINGS = {
    "RUN": "the run's folder",
    "DATA": "its data set's folder",
    "NEW": "a new folder",
    "TEXT": "what the data set was prepared from",
    "VAL": "the validation files",
    "ORIGIN": "where the first weights came from",
}


def placeholders(
    folder: RunFolder, data: Iterable[Path | str | None], prepared: DatasetCard | None, origin: Mapping[str, Any] | None
) -> dict[str, str]:
    """Returns the paths that a report does not reveal, and the placeholder of each."""
    texts = {**_numbered("TEXT", prepared.sources), **_numbered("VAL", prepared.val_sources)} if prepared else {}
    places = {**texts, **{str(place): "DATA" for place in data if place}}
    places |= {str(origin["folder"]): "ORIGIN"} if origin else {}
    return places | {str(folder.path): "RUN", str(folder.path.absolute()): "RUN"}


def _numbered(word: str, sources: Sequence[str]) -> dict[str, str]:
    local = [source for source in sources if _is_local(source)]
    return {source: f"{word}{number}" if len(local) > 1 else word for number, source in enumerate(local, start=1)}


def _is_local(source: str) -> bool:
    return source not in ("pylib", "pylib-code", "-") and not (
        source.startswith("hf:") and not source.startswith("hf:.")
    )


def commands(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """Returns the commands of each run, and what their placeholders mean."""
    lines = {run.label: [" ".join(command) for command in _commands(run)] for run in runs}
    text = "\n".join(line for some in lines.values() for line in some)
    return {
        "runs": list(lines.items()),
        "placeholders": [(word, meaning) for word, meaning in MEANINGS.items() if word in text],
        "extended": any(_original_steps(run) is not None for run in runs),
    }


def _commands(run: RunFacts) -> list[list[str]]:
    if not run.data["splits"]:
        lines = [["minigpt", "import", "ORIGIN", "--run", "NEW"]]
        where = ["--data", "DATA"]
    else:
        init = ["--init-from", "ORIGIN"] if run.origin else []
        lines = [_prepare(run), ["minigpt", "train", *_settings(run), "--data", "DATA", "--run", "NEW", *init]]
        if _original_steps(run) is not None:
            train = run.config.train
            length = ["--epochs", f"{train.epochs:g}"] if train.steps is None else ["--steps", str(train.steps)]
            lines.append(["minigpt", "resume", "NEW", *length])
        where = []
    return [*lines, ["minigpt", "evaluate", "RUN", *where], ["minigpt", "report", "RUN", *where]]


def _prepare(run: RunFacts) -> list[str]:
    spec = "ORIGIN" if run.origin else shell_word(str(run.tokenizer.get("spec", "gpt2")))
    card = run.prepared
    if not card:
        return ["minigpt", "prepare", "TEXT", "--out", "DATA", "--tokenizer", spec]
    sources, val_sources = (
        [run.places.get(source, shell_word(display_name(source))) for source in names]
        for names in (card.sources, card.val_sources)
    )
    split = ["--val", *val_sources] if val_sources else ["--val-fraction", f"{card.val_fraction:g}"]
    in_blocks = card.split_by == "sequence" or card.block_size != USUAL_BLOCK_SIZE
    block = ["--block-size", str(card.block_size)] if in_blocks else []
    options = [*split, "--split-by", card.split_by, *block, *map(shell_word, card.source_options.arguments())]
    return ["minigpt", "prepare", *sources, "--out", "DATA", "--tokenizer", spec, "--seed", str(card.seed), *options]


def _original_steps(run: RunFacts) -> int | None:
    """Returns the length that a run began with, if `minigpt resume` has given it another one since."""
    planned = [record.get("steps") for record in run.records if record.get("kind") == "plan"]
    if planned and isinstance(planned[0], int) and run.total_steps not in (None, planned[0]):
        return planned[0]
    return None


def _settings(run: RunFacts) -> list[str]:
    """Returns the options that give a run its settings: a preset and what differs from it, or the run's file."""
    preset, other = nearest_preset(run.config)
    original = _original_steps(run)
    if original is not None:
        other = {key: value for key, value in other.items() if key not in ("train.steps", "train.epochs")}
        other["train.steps"] = original
    elif "train.steps" in other and other["train.steps"] is None:  # a length in epochs overrides one in steps
        other = {**other, "train.epochs": run.config.train.epochs}
        del other["train.steps"]
    if len(other) > MAX_OPTIONS or None in other.values():
        return ["--config", "RUN/config.toml", *([] if original is None else ["--steps", str(original)])]
    return ["--preset", preset, *(word for key, value in other.items() for word in _option(key, value))]


def _option(key: str, value: Any) -> list[str]:
    """Returns a setting as it is typed."""
    short = key.removeprefix("train.") if key in ("train.epochs", "train.steps") else key
    group, _, setting = short.replace("_", "-").rpartition(".")
    before = f"--{group}." if group else "--"
    if isinstance(value, bool):
        return [f"{before}{'' if value else 'no-'}{setting}"]
    return [f"{before}{setting}", shell_word(value)]
