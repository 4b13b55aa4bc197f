"""What the runs were made of: settings, parameters, data and machine.

Not here: the commands that make them again (commands_section.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minigpt.config import Config, preset_names, resolve
from minigpt.model.accounting import flops_per_token, parameter_table
from minigpt.report import formatting
from minigpt.report.facts import RunFacts
from minigpt.report.html import Child, Html, element, folded, name, table
from minigpt.text_utils import display_name, pluralize

Values = Mapping[str, str]


def settings(runs: Sequence[RunFacts]) -> list[Html]:
    """All settings in groups; of several runs first those that differ."""
    columns = [_settings(run) for run in runs]
    preset, own = nearest_preset(runs[0].config)
    every = folded(
        "All settings",
        _compared(runs, columns, lambda key: key in own),
        element("p", "Marked: not as in the preset ", element("code", preset), ".", class_="note"),
    )
    if len(runs) == 1 and not own:
        return [element("p", "All settings are those of the preset ", element("code", preset), "."), every]
    if len(runs) == 1:
        nearest: list[Child] = ["The nearest preset is ", element("code", preset), "; set otherwise:"]
        return [element("p", nearest), _compared(runs, [{key: columns[0][key] for key in own}]), every]
    differing = {key for column in columns for key in column if len({other.get(key) for other in columns}) > 1}
    if not differing:
        return [element("p", "All settings are the same."), every]
    few = [{key: value for key, value in column.items() if key in differing} for column in columns]
    all_of_them = _compared(runs, columns, lambda key: key in differing)
    return [
        element("p", "Settings that differ:"),
        _compared(runs, few),
        folded("All settings", all_of_them, element("p", "Marked: those that differ.", class_="note")),
    ]


def parameters(runs: Sequence[RunFacts]) -> list[Html]:
    """Where the parameters are, and what a token costs in arithmetic."""
    counts = [parameter_table(run.config.model) for run in runs]
    work = [flops_per_token(run.config.model) for run in runs]
    return [
        _parts(runs, counts, "parameters"),
        folded("Arithmetic of a training step, FLOPs per token", _parts(runs, work, "FLOPs per token")),
    ]


def data(runs: Sequence[RunFacts]) -> list[Html]:
    """What the text is, and how it was split."""
    columns = [_data(run) for run in runs]
    notes = [
        element("li", [name(run.label), ": "] if len(runs) > 1 else None, element("bdi", run.shortened(note)))
        for run in runs
        if run.prepared
        for note in run.prepared.notes
    ]
    return [_compared(runs, columns, _differs(columns)), element("ul", notes) if notes else Html("")]


def machine(runs: Sequence[RunFacts]) -> list[Html]:
    """Machine and versions."""
    columns = [
        {key.replace("_", " "): str(value) for key, value in run.environment.items() if value is not None}
        | ({"memory": formatting.memory(size)} if (size := _whole(run.environment.get("memory_bytes"))) else {})
        for run in runs
    ]
    for column in columns:
        column.pop("memory bytes", None)
    return [_compared(runs, columns, _differs(columns))]


def nearest_preset(config: Config) -> tuple[str, dict[str, Any]]:
    """Returns the preset that the fewest settings differ from, and these settings as they are in the configuration.

    Of two as near, `seed` comes first. The size of the vocabulary is the tokenizer's, and no setting of anybody's.
    """
    own = _flat(config)
    differing = {}
    for preset in sorted(preset_names(), key=lambda one: one != "seed"):
        usual = _flat(resolve(preset))
        differing[preset] = {
            key: value for key, value in own.items() if usual[key] != value and key != "model.vocab_size"
        }
    nearest = min(differing, key=lambda one: len(differing[one]))
    return nearest, differing[nearest]


def _settings(run: RunFacts) -> Values:
    return {key: formatting.NONE if value is None else str(value) for key, value in _flat(run.config).items()}


def _flat(config: Config) -> dict[str, Any]:
    return {f"{group}.{key}": value for group, values in config.to_dict().items() for key, value in values.items()}


def _data(run: RunFacts) -> Values:
    facts = {"name": display_name(str(run.data["folder"])) or formatting.NONE}
    facts["tokenizer"] = f"{run.tokenizer.get('spec', formatting.NONE)}, {run.config.model.vocab_size:,} ids"
    for split, title in (("train", "training"), ("val", "validation")):
        if found := run.data["splits"].get(split):
            length, size = pluralize(found.get("tokens", 0), "token"), pluralize(found.get("text_bytes", 0), "byte")
            facts[title] = f"{length}, {size} of text"
            facts[f"{title}, SHA-256 of the tokens"] = str(found.get("sha256", formatting.NONE))
    if train := run.data["splits"].get("train"):
        tokens = train["tokens"]
        facts["training tokens for each parameter"] = f"{tokens / run.parameters:.2f}"
    if made := run.prepared:
        facts |= {
            "sources": ", ".join(display_name(source) for source in made.sources),
            **({"validation from": ", ".join(map(display_name, made.val_sources))} if made.val_sources else {}),
            "documents": made.documents_words,
            "bytes for each token": f"{made.bytes_per_token:.2f}",
            "split": made.split_words,
            "ids that occur in training": f"{made.vocab_in_train:,} of {made.vocab_size:,}",
            "overlap": f"{made.contamination:.2%} of {pluralize(made.contamination_windows, 'validation window')} "
            "stand in training",
        }
    return facts


def _compared(
    runs: Sequence[RunFacts], columns: Sequence[Values], marked: Callable[[str], bool] = lambda key: False
) -> Html:
    """Returns a table of values by name, a column for each run."""
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows: list[list[Child]] = [
        [key, *(element("bdi", column.get(key, formatting.NONE)) for column in columns)] for key in keys
    ]
    head: list[Child] = ["", *(name(run.label) for run in runs)]
    standing_out = [place for place, key in enumerate(keys) if marked(key)]
    return table(head, rows, words=range(len(head)), marked=standing_out)


def _differs(columns: Sequence[Values]) -> Callable[[str], bool]:
    return lambda key: len({column.get(key) for column in columns}) > 1


def _parts(runs: Sequence[RunFacts], columns: Sequence[Mapping[str, int]], what: str) -> Html:
    """Returns a table of numbers by part, with their sums; of a single run with shares."""
    keys = list(dict.fromkeys(key for column in columns for key in column))
    sums = [sum(column.values()) for column in columns]
    rows: list[list[Child]] = [
        [key, *(f"{column[key]:,}" if key in column else formatting.NONE for column in columns)] for key in keys
    ]
    rows.append(["all", *(f"{total:,}" for total in sums)])
    head: list[Child] = ["", *(name(run.label) for run in runs)] if len(runs) > 1 else ["", what]
    if len(runs) == 1:
        rows = [
            [*row, f"{columns[0].get(key, sums[0]) / sums[0]:.1%}"] for row, key in zip(rows, [*keys, ""], strict=True)
        ]
        head.append("share")
    return table(head, rows, marked=[len(rows) - 1])


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
