"""`write_report`: the sections in their order, as one HTML file that needs nothing else.

No script, no font, no picture from elsewhere; a policy in the page forbids them all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from minigpt.atomic import write_file
from minigpt.errors import ConfigError
from minigpt.files import is_dir, is_file, why
from minigpt.report.collect import Progress, ReportOptions, collect_facts
from minigpt.report.commands_section import commands
from minigpt.report.evaluation_section import evaluation
from minigpt.report.facts import RunFacts
from minigpt.report.findings import findings
from minigpt.report.glossary import glossary
from minigpt.report.html import Html, element, folded, join
from minigpt.report.overview import overview
from minigpt.report.samples_section import samples
from minigpt.report.settings_section import data, machine, parameters, settings
from minigpt.report.svg import SERIES
from minigpt.report.training_section import curves, epochs, inside, notes, point_by_point
from minigpt.runs.folder import RunFolder

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
FILE = "report.html"
DOCTYPE = "<!doctype html>"
ELSEWHERE = "Name another file with --out."

Section = Callable[[Sequence[RunFacts]], list[Html]]

SECTIONS: dict[str, tuple[str, Section]] = {
    "health": ("Is all well?", findings),
    "curves": ("How it learned", curves),
    "epochs": ("Epoch by epoch", epochs),
    "compared": ("Point by point", lambda runs: point_by_point(runs) if len(runs) > 1 else []),
    "evaluation": ("How good it is", evaluation),
    "samples": ("What it says", samples),
    "inside": ("Inside the model", inside),
    "settings": ("Settings", settings),
    "parameters": ("Parameters", parameters),
    "data": ("Text", data),
    "machine": ("Machine and versions", machine),
    "notes": ("Noted in training", notes),
    "commands": ("How to make it again", commands),
}
"""In the order of the page: the name of the place, its title, and what writes it; a section of nothing is left out."""


def write_report(
    runs: Sequence[Path | str] | Path | str,
    out: Path | str | None = None,
    *,
    wishes: ReportOptions = ReportOptions(),  # noqa: B008
    on_progress: Progress = lambda phase, done, total: None,
    on_left_out: Callable[[str], None] = lambda text: None,
) -> Path:
    """Writes a report of one run, or one that compares several.

    Args:
        runs: the run folders, or one.
        out: the file; `report.html` in the first run's folder when left out. An older report that is there is replaced.
        wishes: what it is to hold.
        on_progress: told what is being done, how much of it, and of how much.
        on_left_out: told what is not in the report, and why, a sentence at a time.

    Returns:
        Where it stands.

    Raises:
        MiniGPTError: if a folder is no run, what was asked for by name is not there, or the file cannot be written.
    """
    runs = [runs] if isinstance(runs, Path | str) else runs
    if not runs:
        raise ConfigError("No run is named", remedy="Name one or more: minigpt report runs/first")
    if len(runs) > len(SERIES):
        remedy = "Compare fewer at once: a picture of more could not be read."
        raise ConfigError(f"A report compares at most {len(SERIES)} runs", got=f"{len(runs)} runs", remedy=remedy)
    for run in runs:
        RunFolder.open(run)  # what cannot be read is told before what cannot be written
    file = Path(out) if out is not None else Path(runs[0]) / FILE
    with _writing(file):
        if out is not None and not is_dir(file.absolute().parent):
            raise ConfigError("The report's folder is not there", got=file.absolute().parent, remedy="Make it first.")
        _check_place(file)
    known = collect_facts(runs, wishes, on_progress)
    for facts in known:
        for text in facts.missing:
            on_left_out(f"{facts.label}: {text}" if len(known) > 1 else text)
    made = page(known)
    with _writing(file):
        write_file(file, made)
    return file


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Raises ConfigError for what the system has against a file."""
    try:
        yield
    except OSError as error:
        raise ConfigError("The report cannot be written there", got=f"{file}: {why(error)}", remedy=ELSEWHERE) from None


def _check_place(file: Path) -> None:
    """Raises ConfigError if something else than a report stands there, OSError if no file can: before the work."""
    if is_dir(file):
        raise ConfigError("A folder is where the report would be written", got=file, remedy=ELSEWHERE)
    try:
        os.lstat(file)  # too long a name is an error now, not after the work
    except FileNotFoundError:
        pass
    else:
        if not (is_file(file) and _is_html(file)):
            what = "A file that is no HTML page is where the report would be written, and is left as it is"
            raise ConfigError(what, got=file, remedy=ELSEWHERE)
    if is_dir(file.parent):  # else it is no run, and `collect_facts` says so
        tempfile.TemporaryFile(dir=file.parent).close()


def _is_html(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(DOCTYPE)).lower() == DOCTYPE.encode()


def page(runs: Sequence[RunFacts]) -> str:
    """Returns the whole page."""
    made = {key: (title, section(runs)) for key, (title, section) in SECTIONS.items()}
    made = {key: (title, parts) for key, (title, parts) in made.items() if parts}
    links = [element("a", title, href=f"#{key}") for key, (title, _) in made.items()]
    body = [
        *overview(runs),
        element("nav", links, aria_label="Sections"),
        *(
            element("section", element("h2", title), parts, id=key, class_="part")
            for key, (title, parts) in made.items()
        ),
        folded("What the words mean", glossary()),
    ]
    title = "Mini-GPT: " + ", ".join(run.label for run in runs)
    return "".join([f"{DOCTYPE}\n", *_document(title, body)])


def _document(title: str, body: Sequence[Html]) -> Iterator[str]:
    style = resources.files("minigpt.report").joinpath("style.css").read_text("utf-8")
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(style)),
    ]
    yield join(element("html", element("head", head), "\n", element("body", body), lang="en")).text
