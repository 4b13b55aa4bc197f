"""What the runs were made of: settings, parameters, data and environment.

Not here: the commands that reproduce them (commands_section.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from minigpt.config import Config, preset_names, resolve
from minigpt.model.accounting import flops_per_token, parameter_table
from minigpt.report.facts import RunFacts
from minigpt.report.formatting import MISSING, memory
from minigpt.report.table_section import TableSection
from minigpt.tables import Table
from minigpt.text_utils import display_name, pluralize

Values = Mapping[str, str]


def settings(runs: Sequence[RunFacts]) -> TableSection:
    """Returns all settings; first those that differ from the nearest preset or, of several runs, between them."""
    columns = [_settings(run) for run in runs]
    preset, own = nearest_preset(runs[0].config)
    if len(runs) == 1:
        text = f"All settings are those of the preset `{preset}`."
        if own:
            text = f"The nearest preset is `{preset}`. Settings that differ from it:"
        selected, note = list(own), f"Highlighted: different from the preset {preset}."
    else:
        selected = _differing(columns)
        text = "Settings that differ:" if selected else "All settings are the same."
        note = "Highlighted: settings that differ."
    some = [_values_table(runs, [{key: column[key] for key in selected} for column in columns])] if selected else []
    return TableSection(text, some, [("All settings", _values_table(runs, columns, selected, note))])


def parameters(runs: Sequence[RunFacts]) -> TableSection:
    """Returns where the parameters are, and the arithmetic of a training step."""
    counts = [parameter_table(run.config.model) for run in runs]
    work = [flops_per_token(run.config.model) for run in runs]
    title = "FLOPs per token of a training step"
    return TableSection(
        tables=[_counts_table(runs, counts, "parameters")],
        folded=[(title, _counts_table(runs, work, "FLOPs per token"))],
    )


def data(runs: Sequence[RunFacts]) -> TableSection:
    """Returns what the text is, and how it was split."""
    columns = [_data(run) for run in runs]
    notes = [(run.label, run.shortened(note)) for run in runs if run.prepared for note in run.prepared.notes]
    return TableSection(tables=[_values_table(runs, columns, _differing(columns))], notes=notes)


def environment(runs: Sequence[RunFacts]) -> TableSection:
    """Returns machine and versions."""
    columns = []
    for run in runs:
        values = {key.replace("_", " "): str(value) for key, value in run.environment.items() if value is not None}
        size = run.environment.get("memory_bytes")
        if values.pop("memory bytes", None) and isinstance(size, int) and size > 0:
            values["memory"] = memory(size)
        columns.append(values)
    return TableSection(tables=[_values_table(runs, columns, _differing(columns))])


def nearest_preset(config: Config) -> tuple[str, dict[str, Any]]:
    """Returns the preset that the fewest settings differ from, and those settings as they are in the configuration.

    Of two equally near, `seed` comes first. The vocabulary size is that of the tokenizer, not a setting of the preset.
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
    return {key: MISSING if value is None else str(value) for key, value in _flat(run.config).items()}


def _flat(config: Config) -> dict[str, Any]:
    return {f"{group}.{key}": value for group, values in config.to_dict().items() for key, value in values.items()}


def _data(run: RunFacts) -> Values:
    facts = {"name": display_name(str(run.data["folder"])) or MISSING}
    facts["tokenizer"] = f"{run.tokenizer.get('spec', MISSING)}, {run.config.model.vocab_size:,} ids"
    for split, found in run.data["splits"].items():
        title = {"train": "training", "val": "validation"}[split]
        facts[title] = f"{pluralize(found['tokens'], 'token')}, {pluralize(found['text_bytes'], 'byte')} of text"
        facts[f"{title}, SHA-256 of the tokens"] = found["sha256"]
        if split == "train":
            facts["training tokens per parameter"] = f"{found['tokens'] / run.parameters:.2f}"
    if card := run.prepared:
        windows = pluralize(card.contamination_windows, "validation window")
        facts |= {
            "sources": ", ".join(display_name(source) for source in card.sources),
            **({"validation from": ", ".join(map(display_name, card.val_sources))} if card.val_sources else {}),
            "documents": card.documents_words,
            "bytes per token": f"{card.bytes_per_token:.2f}",
            "split": card.split_words,
            "ids that occur in training": f"{card.vocab_in_train:,} of {card.vocab_size:,}",
            "contamination": f"{card.contamination:.2%} of {windows} also occur in the training text",
        }
    return facts


def _values_table(
    runs: Sequence[RunFacts], columns: Sequence[Values], highlighted: Collection[str] = (), note: str = ""
) -> Table:
    """Returns a table of values by name, with a column for each run."""
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [[key, *(column.get(key, MISSING) for column in columns)] for key in keys]
    places = [place for place, key in enumerate(keys) if key in highlighted]
    header = ["", *(run.label for run in runs)]
    return Table(header, rows, range(len(header)), highlighted=places, note=note if places else "")


def _differing(columns: Sequence[Values]) -> list[str]:
    keys = dict.fromkeys(key for column in columns for key in column)
    return [key for key in keys if len({column.get(key) for column in columns}) > 1]


def _counts_table(runs: Sequence[RunFacts], columns: Sequence[Mapping[str, int]], unit: str) -> Table:
    """Returns a table of numbers by module, with their sums; for a single run also the shares."""
    keys = list(dict.fromkeys(key for column in columns for key in column))
    columns = [{**column, "total": sum(column.values())} for column in columns]
    rows = [
        [key, *(f"{column[key]:,}" if key in column else MISSING for column in columns)] for key in [*keys, "total"]
    ]
    header = ["", *(run.label for run in runs)]
    if len(runs) == 1:
        header = ["", unit, "share"]
        for row in rows:
            row.append(f"{columns[0][row[0]] / columns[0]['total']:.1%}")
    return Table(header, rows, highlighted=[len(rows) - 1])
