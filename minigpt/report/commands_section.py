"""The commands that make a run again, with RUN, DATA and the like for its folders: they run once these are filled in.

The same words stand for the paths in what the doctor advises (facts.py `RunFacts.shortened`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt.data.dataset_card import DatasetCard
from minigpt.report.facts import RunFacts
from minigpt.report.html import Child, Html, element, name
from minigpt.report.settings_section import nearest_preset
from minigpt.runs.folder import RunFolder
from minigpt.text_utils import display_name, shell_word

FEW = 4
"""So many settings that are not the preset's are given as options; of more, the run's file is named."""

USUAL_BLOCK_SIZE = 512
"""What `minigpt prepare` takes when nothing is said."""

MEANINGS = {
    "RUN": "the run's folder",
    "DATA": "its data set's folder",
    "NEW": "a folder that is not there yet",
    "TEXT": "what the data set was prepared from",
    "VAL": "its validation files",
    "ORIGIN": "where the first weights came from",
}


def placeholders(
    folder: RunFolder, data: Iterable[Path | str | None], prepared: DatasetCard | None, origin: Mapping[str, Any] | None
) -> dict[str, str]:
    """Returns paths that a report does not tell, and what stands for each in a command."""
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


def commands(runs: Sequence[RunFacts]) -> list[Html]:
    """Returns the section: what was typed for each run, or might have been."""
    parts: list[Html] = []
    said = ""
    for run in runs:
        lines = "\n".join(" ".join(line) for line in _commands(run))
        said += lines
        if len(runs) > 1:
            parts.append(element("h3", name(run.label)))
        parts.append(element("pre", element("code", lines), class_="commands"))
    meant: list[list[Child]] = [
        [element("code", word), f" is {meaning}"] for word, meaning in MEANINGS.items() if word in said
    ]
    hint = "; so too in the advice above. The same program, machine and text give the same run."
    stand: list[Child] = [[", " if place else "", *each] for place, each in enumerate(meant)]
    return [*parts, element("p", "A report names nobody's folders: ", stand, hint, class_="note")]


def _commands(run: RunFacts) -> list[list[str]]:
    if not run.data["splits"]:
        lines = [["minigpt", "import", "ORIGIN", "--run", "NEW"]]
    else:
        spec = "ORIGIN" if run.origin else shell_word(str(run.tokenizer.get("spec", "gpt2")))
        made = run.prepared
        sources, val_sources = (
            [run.places.get(source, shell_word(display_name(source))) for source in names]
            for names in ((made.sources, made.val_sources) if made else ((), ()))
        )
        lines = [["minigpt", "prepare", *(sources or ["TEXT"]), "--out", "DATA", "--tokenizer", spec]]
        if made:
            lines[0] += ["--seed", str(made.seed)]
            lines[0] += ["--val", *val_sources] if val_sources else ["--val-fraction", f"{made.val_fraction:g}"]
            lines[0] += ["--split-by", made.split_by]
            cut = made.split_by == "sequence" or made.block_size != USUAL_BLOCK_SIZE
            lines[0] += ["--block-size", str(made.block_size)] if cut else []
            lines[0] += map(shell_word, made.source_options.arguments())
        init = ["--init-from", "ORIGIN"] if run.origin else []
        lines.append(["minigpt", "train", *_settings(run), "--data", "DATA", "--run", "NEW", *init])
    where = [] if run.data["splits"] else ["--data", "DATA"]
    return [*lines, ["minigpt", "evaluate", "RUN", *where], ["minigpt", "report", "RUN", *where]]


def _settings(run: RunFacts) -> list[str]:
    """Returns the options that give a run's settings: its preset's, with what differs; or its file."""
    preset, other = nearest_preset(run.config)
    if "train.steps" in other and other["train.steps"] is None:  # a length in epochs overrides one in steps
        other = {**other, "train.epochs": run.config.train.epochs}
        del other["train.steps"]
    if len(other) > FEW or None in other.values():
        return ["--config", "RUN/config.toml"]
    return ["--preset", preset, *(word for key, value in other.items() for word in _option(key, value))]


def _option(key: str, value: Any) -> list[str]:
    """Returns a setting as it is typed."""
    short = key.removeprefix("train.") if key in ("train.epochs", "train.steps") else key
    group, _, setting = short.replace("_", "-").rpartition(".")
    before = f"--{group}." if group else "--"
    if isinstance(value, bool):
        return [f"{before}{'' if value else 'no-'}{setting}"]
    return [f"{before}{setting}", shell_word(value)]
