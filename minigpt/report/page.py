"""`write_report`: the sections in their order, as one HTML file that needs nothing else.

The page has no script, no font and no image from elsewhere, and a policy that forbids them. Whatever a model, a file or
a name says is escaped by Jinja2, and control characters are made visible in the finished page.
"""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from minigpt.atomic import write_file
from minigpt.errors import ConfigError
from minigpt.files import is_dir, why
from minigpt.plotting import SERIES
from minigpt.report.collect import Progress, ReportOptions, collect_facts
from minigpt.report.commands_section import commands
from minigpt.report.diagnosis_section import diagnosis
from minigpt.report.evaluation_section import evaluation
from minigpt.report.facts import RunFacts
from minigpt.report.formatting import enumerate_words
from minigpt.report.overview import overview
from minigpt.report.samples_section import samples
from minigpt.report.settings_section import data, environment, parameters, settings
from minigpt.report.training_section import comparison, health, notes, training, validations
from minigpt.runs.folder import RunFolder
from minigpt.text_utils import CONTROLS

FILE = "report.html"
DOCTYPE = "<!doctype html>"
ANOTHER_FILE = "Name another file with --out."

VISIBLE = {code: html.escape(text) for code, text in CONTROLS.items()} | dict.fromkeys(
    (*range(0xD800, 0xE000), *range(0xFDD0, 0xFDF0), 0xFFFE, 0xFFFF), "\ufffd"
)
"""What the page shows for control characters, halves of surrogate pairs and noncharacters."""


class Section(NamedTuple):
    """A section: its id, its heading, its file in templates/, and the function that returns what the file shows as `s`.

    The function returns None to omit the section.
    """

    key: str
    title: str
    template: str
    content: Callable[[Sequence[RunFacts]], Any]


SECTIONS = (
    Section("diagnosis", "Diagnosis", "diagnosis.html", diagnosis),
    Section("training", "Training", "training.html", training),
    Section("validations", "Validations", "tables.html", validations),
    Section("comparison", "Comparison at equal tokens", "tables.html", comparison),
    Section("evaluation", "Evaluation", "evaluation.html", evaluation),
    Section("samples", "Samples", "samples.html", samples),
    Section("health", "Gradients and activations", "health.html", health),
    Section("settings", "Settings", "tables.html", settings),
    Section("parameters", "Parameters", "tables.html", parameters),
    Section("data", "Data", "tables.html", data),
    Section("environment", "Environment", "tables.html", environment),
    Section("notes", "Notes from training", "tables.html", notes),
    Section("commands", "Reproduction", "commands.html", commands),
)
"""In the order of the page."""


def write_report(
    runs: Sequence[Path | str] | Path | str,
    out: Path | str | None = None,
    *,
    options: ReportOptions = ReportOptions(),  # noqa: B008
    on_progress: Progress = lambda phase, done, total: None,
    on_missing: Callable[[str], None] = lambda text: None,
) -> Path:
    """Writes a report of one run, or one that compares several.

    Args:
        runs: the run folders, or one.
        out: the file, by default `report.html` in the first run's folder. An existing report is replaced.
        options: what the report contains.
        on_progress: called with what is being done, how much of it is done, and the total.
        on_missing: called with each sentence about what is not in the report, and why.

    Returns:
        The file.

    Raises:
        MiniGPTError: if a folder is not a run, what was asked for by name is missing, or the file cannot be written.
    """
    runs = [runs] if isinstance(runs, Path | str) else runs
    if not runs:
        raise ConfigError("No run given", remedy="Name one or more: minigpt report runs/first")
    if len(runs) > len(SERIES):
        remedy = "Compare fewer at a time: more curves cannot be told apart."
        raise ConfigError(f"A report compares at most {len(SERIES)} runs", got=f"{len(runs)} runs", remedy=remedy)
    for run in runs:
        RunFolder.open(run)  # a run that cannot be read is reported before a file that cannot be written
    file = Path(out) if out is not None else Path(runs[0]) / FILE
    with _writing(file):
        if out is not None and not is_dir(file.absolute().parent):
            raise ConfigError("The report's folder does not exist", got=file.absolute().parent, remedy="Create it.")
        _check_writable(file)
    known = collect_facts(runs, options, on_progress)
    for facts in known:
        for text in facts.missing:
            on_missing(f"{facts.label}: {text}" if len(known) > 1 else text)
    made = page(known)
    with _writing(file):
        write_file(file, made)
    return file


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Turns an error of the file system into a ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError("Cannot write the report", got=f"{file}: {why(error)}", remedy=ANOTHER_FILE) from None


def _check_writable(file: Path) -> None:
    """Raises ConfigError if the path holds something other than a report, OSError if no file can be written there."""
    if (file.exists() or file.is_symlink()) and not (file.is_file() and _is_html(file)):
        raise ConfigError("The report would replace something that is not an HTML page", got=file, remedy=ANOTHER_FILE)
    if file.parent.is_dir():  # else it is not a run, and `collect_facts` says so
        tempfile.TemporaryFile(dir=file.parent).close()


def _is_html(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(DOCTYPE)).lower() == DOCTYPE.encode()


def page(runs: Sequence[RunFacts]) -> str:
    """Returns the whole page."""
    made = [(section, section.content(runs)) for section in SECTIONS]
    sections = [{**section._asdict(), "content": content} for section, content in made if content is not None]
    return render_template(
        "page.html",
        labels=[run.label for run in runs],
        overview=overview(runs),
        sections=sections,
    )


def render_template(name: str, **values: Any) -> str:
    """Returns what a template of the package makes of the values: text is escaped, control characters are visible."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("minigpt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["enumerate_words"] = enumerate_words
    return environment.get_template(name).render(**values).replace("\r\n", "\n").translate(VISIBLE)
