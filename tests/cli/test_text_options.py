"""`minigpt prepare` and how it reads: what it says can be done, and what was asked for is kept."""

from __future__ import annotations

import gzip
import inspect
import json
import os
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from minigpt import prepare
from minigpt.data import DatasetCard
from minigpt.source_options import SourceOptions


def story(number: int) -> str:
    return f"This is story {number}.\n" + f"It is about the number {number}, and {number + 1} comes next.\n" * 5


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of texts, most of which are not called so."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text(story(number))
    for number in range(12, 15):
        (folder / f"{number}.TEX").write_text(story(number))
    (folder / "page.html").write_text("<!doctype html><p>Words.")
    (folder / "more.org.gz").write_bytes(gzip.compress(story(15).encode()))
    (folder / ".hidden.txt").write_text("no")
    return folder


def run(call, *arguments: object) -> str:
    code, out, err = call("prepare", *arguments, "--tokenizer", "byte", "--block-size", 32)
    assert (code, "Traceback" in err) == (0, False), err
    return " ".join(out.replace("│", " ").split())


def test_what_a_folder_skips_is_shown_with_the_options_that_include_it(call, notes: Path, tmp_path: Path):
    shown = run(call, notes, "--out", tmp_path / "a")
    assert re.search(
        r"skipped 3 \.tex \(\d+ kB\), 1 \.org\.gz \(\d+ kB\), 1 \.html \(\d+ kB\), 1 hidden file documents 12 ", shown
    )
    assert "page.html is an HTML page. Convert it: `pandoc" in shown
    patterns = shlex.split(shown.partition("To read them too: ")[2].partition(" Note:")[0])
    again = run(call, *patterns, notes, "--out", tmp_path / "b")
    assert "documents 16 " in again
    assert "To read them too" not in again
    assert DatasetCard.load(tmp_path / "b").skipped == ("1 .html (0 kB)", "1 hidden file")


def test_what_was_asked_for_is_kept_and_makes_the_same_data_set(call, notes: Path, tmp_path: Path):
    options = ["--pattern", "*.t?x", "--pattern", "*.html", "--exclude", "1.*", "--format", "text", "--split-lines"]
    run(call, notes, *options, "--out", tmp_path / "a")
    card = DatasetCard.load(tmp_path / "a")
    assert card.source_options == SourceOptions(
        pattern=("*.t?x", "*.html"), exclude=("1.*",), format="text", split_lines=True
    )
    run(call, notes, *card.source_options.arguments(), "--out", tmp_path / "b")
    prepare(notes, tmp_path / "c", "byte", block_size=32, **vars(card.source_options))
    a, b, c = ((tmp_path / name / "train.tokens").read_bytes() for name in "abc")
    assert a == b == c


def test_a_separator_is_typed_with_escapes(call, tmp_path: Path):
    text = tmp_path / "stories.txt"
    text.write_text("\n---\n".join(map(story, range(20))))
    shown = run(call, text, "--split-at", r"\n---\n", "--out", tmp_path / "a")
    assert "documents 20 " in shown
    assert DatasetCard.load(tmp_path / "a").source_options.split_at == "\n---\n"
    text.write_text("<|endoftext|>".join(map(story, range(20))))
    shown = run(call, text, "--out", tmp_path / "b")
    assert "<|endoftext|> occurs 19 times in the text" in shown
    option = shlex.split(shown.partition("If documents end there: ")[2].partition(" Next:")[0])
    assert "documents 20 " in run(call, text, *option, "--out", tmp_path / "c")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_names_need_not_be_utf8(call, tmp_path: Path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(name).write_text("".join(map(story, range(20))))
    assert "caf" in run(call, name, "--out", tmp_path / "a")
    assert DatasetCard.load(tmp_path / "a").sources == (f"{tmp_path}/caf\ufffd.txt",)
    Path(name.replace(".txt", ".\udcff")).write_text("words")  # its suffix is in the summary
    found = run(call, tmp_path, "--out", tmp_path / "b", "--exclude", "a", "--exclude", "no\udce9")
    assert "matches nothing" in found
    assert "1 .\ufffd (0 kB)" in DatasetCard.load(tmp_path / "b").skipped
    run(call, name, "--out", os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x" * 400, "No such file"),
        ("x" * 300 + "/a.txt", "No such file"),
        ("/dev/null" if os.name == "posix" else "x", "/dev/null is a device" if os.name == "posix" else "No such file"),
        ("", "No such file"),
    ],
)
def test_trouble_in_reading_is_not_called_trouble_in_writing(call, tmp_path: Path, source: str, words: str):
    code, out, err = call("prepare", source, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert words in err
    assert "written" not in err
    assert not (tmp_path / "out").exists()


def test_a_damaged_record_of_how_the_text_was_read_is_refused(call, notes: Path, tmp_path: Path):
    run(call, notes, "--out", tmp_path / "a")
    meta = tmp_path / "a" / "meta.json"
    content = json.loads(meta.read_text("utf-8"))
    for reading in ({"pattern": [1]}, [], "x", {"format": "exe"}):
        meta.write_text(json.dumps({**content, "source_options": reading}))
        code, _, err = call("train", "--data", tmp_path / "a", "--run", tmp_path / "run")
        assert (code, "Traceback" in err, "meta.json" in err) == (2, False, True), reading


def test_the_options_are_the_same_everywhere():
    named = {each.name for each in fields(SourceOptions)}
    assert named < set(inspect.signature(prepare).parameters)


def test_evaluate_reads_in_the_same_ways(call, run_folder: Path, notes: Path):
    code, out, _ = call("evaluate", run_folder, "--text", notes, "--json")
    found = json.loads(out)
    assert (code, found["documents"]) == (0, 12)
    assert any(note.startswith("Skipped: 3 .tex") and "1 hidden file" in note for note in found["notes"])
    _, out, _ = call("evaluate", run_folder, "--text", notes, "--json", "--pattern", "*.tex", "--split-lines")
    assert json.loads(out)["documents"] == 3 * 6
    code, _, err = call("evaluate", run_folder, "--text", notes / "page.html")
    assert (code, "--format text" in err) == (2, True)
    assert call("evaluate", run_folder, "--text", notes / "page.html", "--format", "text")[0] == 0
    code, _, err = call("evaluate", run_folder, "--split-lines")
    assert (code, "--split-lines" in err) == (2, True)
