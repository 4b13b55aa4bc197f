"""A run with data of its own, which a report may write beside, and a reader of pages."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from minigpt.report.facts import RunFacts
from minigpt.report.overview import overview
from minigpt.report.page import SECTIONS, render_template

VOID = {"meta", "br", "col"}
FOREIGN = {"script", "link", "iframe", "object", "embed", "img", "base", "form", "input", "audio", "video", "template"}


class Page(HTMLParser):
    """What a browser would make of a page: its words, its elements, and what is wrong with them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.said: list[str] = []
        self.marked: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is never closed" for tag in self.open]
        self.wrong += [f"id {name} stands twice" for name in {n for n in self.ids if self.ids.count(n) > 1}]
        self.wrong += [f"#{target} leads nowhere" for target in self.targets if target not in self.ids]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in FOREIGN:
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("src", "srcset", "action", "formaction", "xlink:href"):
                self.wrong.append(f"{name}={value}")
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.targets.append(value.removeprefix("#") if value.startswith("#") else f"not within: {value}")
            if name in ("aria-labelledby",):
                self.targets += value.split()
            self.targets += re.findall(r"url\(#([^)]*)\)", value or "")
            if "url(" in (value or "").replace("url(#", "") or "javascript:" in (value or ""):
                self.wrong.append(f"{name}={value}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes another element")

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.said.append(data)
            if "mark" in self.open:
                self.marked.append(data)

    @property
    def words(self) -> str:
        """All its text, white space as one space."""
        return " ".join("".join(f"{part} " if part.strip() else part for part in self.said).split())


@pytest.fixture
def run(run_folder: Path, data_folder: Path, tmp_path: Path) -> Path:
    """A finished run, and its data beside it."""
    return copied(run_folder, data_folder, tmp_path / "first")


@pytest.fixture
def read():
    """Returns what stands in a page."""
    return lambda file: Page(Path(file).read_text("utf-8"))


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every picture an empty one, for tests of words: a page is then made in a tenth of the time."""

    def savefig(figure, stream, **rest):
        stream.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>')

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


def copied(run_folder: Path, data_folder: Path, to: Path) -> Path:
    """Copies a run and, beside it, its data set."""
    data = to.with_name(f"{to.name}-data")
    shutil.copytree(data_folder, data)
    shutil.copytree(run_folder, to)
    known = json.loads((to / "data.json").read_text("utf-8"))
    (to / "data.json").write_text(json.dumps({**known, "folder": str(data)}), encoding="utf-8")
    return to


def section(key: str, runs: Sequence[RunFacts]) -> str:
    """Returns a section of the page as HTML."""
    [found] = [one for one in SECTIONS if one.key == key]
    return render_template(found.template, s=found.content(runs), labels=[run.label for run in runs])


def top(runs: Sequence[RunFacts]) -> str:
    """Returns the top of the page as HTML."""
    return render_template("overview.html", overview=overview(runs), labels=[run.label for run in runs])
