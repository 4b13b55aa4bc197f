"""The documents keep their word: names resolve, links lead somewhere, commands exist, snippets print what is said.

What is checked in docs/*.md and README.md:
    `minigpt/model/gpt.py`              a file that exists
    `minigpt/model/gpt.py` `GPT.hidden` a name that stands in it
    `minigpt.train`                     a name that can be imported
    [words](tour.md#3-shards)           a file, and a heading in it
    minigpt train --data ...            a command, in code or between backticks, with options that exist
Python in docs/tour.md is run; what stands behind `#>` is what it prints, floats to two digits or so.
"""

from __future__ import annotations

import ast
import contextlib
import io
import math
import pkgutil
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from minigpt.config import resolve, with_model
from minigpt.model.accounting import parameter_count, parameter_table
from tests.printed import wrong_with

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "docs" / "tour.md"
DOCUMENTS = sorted([*ROOT.glob("README.md"), *ROOT.glob("docs/*.md")])
OURS = ("minigpt", "tests", "docs", "benchmarks", "tools")

FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.M | re.S)
IN_CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(rf"`((?:{'|'.join(OURS)})/[\w./-]*)`(?:\s+`([A-Za-z_][\w.]*)`)?")
IMPORTABLE = re.compile(r"`(minigpt(?:\.\w+)+)(?=[`(])")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.S)
FLOAT = re.compile(r"-?\d+\.\d*")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def prose(document: Path) -> str:
    """A document without its fenced code, and without the files that it tells the reader to create."""
    return re.sub(r"^New file .*$", "", FENCE.sub("", document.read_text("utf-8")), flags=re.M)


@cache
def names_in(file: Path) -> set[str]:
    """The names that a module defines: functions, classes and their members, variables."""

    def names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from names(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))

    return set(names(ast.parse(file.read_text("utf-8")).body, ""))


def test_there_are_documents():
    assert {TOUR, ROOT / "docs" / "architecture.md"} <= set(DOCUMENTS)


@every_document
def test_files_and_names_exist(document):
    missing = []
    for path, name in FILE.findall(prose(document)):
        file = ROOT / path
        if not file.exists() or (name and name not in names_in(file)):
            missing.append(f"{path} {name}".strip())
    for name in IMPORTABLE.findall(prose(document)):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not missing


@every_document
def test_links_lead_somewhere(document):
    text = MATH.sub("", IN_CODE.sub("", prose(document)))
    broken = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue  # another site: no test asks the network
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (heading and target.suffix == ".md" and heading not in anchors(target)):
            broken.append(link)
    assert not broken


def anchors(document: Path) -> set[str]:
    """The names under which GitHub reaches a document's headings."""
    titles = re.findall(r"^#+ +(.+)$", prose(document), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(document: Path) -> Iterator[list[str]]:
    """What stands behind `minigpt` in each command line that a document shows."""
    text = document.read_text("utf-8")
    shown = [code for language, code in FENCE.findall(text) if language not in ("python", "toml", "json", "console")]
    shown += IN_CODE.findall(prose(document))
    for line in "\n".join(shown).replace("\\\n", " ").splitlines():
        for command in re.split(r"\||&&|;", line.strip().removeprefix("$ ")):
            with contextlib.suppress(ValueError):  # a quote that does not close is no command line
                words = shlex.split(command, comments=True)
                while words and re.fullmatch(r"\w+=.*", words[0]):  # VARIABLE=value before the command
                    words.pop(0)
                if "-m" in words[:-1] and words[words.index("-m") + 1] == "minigpt":
                    yield words[words.index("-m") + 2 :]
                elif words and words[0].rpartition("/")[2] == "minigpt":
                    yield words[1:]


def wrong_in(words: list[str]) -> str:
    """What is wrong with a command line, or ''."""
    return "" if not words or words[0] in ("...", "VERB") else wrong_with(shlex.join(["minigpt", *words]))


@every_document
def test_commands_exist(document):
    wrong = [(" ".join(words), reason) for words in commands(document) if (reason := wrong_in(words))]
    assert not wrong


def test_a_wrong_command_would_be_noticed(tmp_path):
    document = tmp_path / "wrong.md"
    lines = "minigpt prepare x --out y", "minigpt trian", "$ minigpt train --run x \\\n  --modle.n-layer 3"
    document.write_text(
        "```sh\n" + "\n".join(lines) + "\n```\nand `python -m minigpt generate runs/x --tmperature=0`\n"
    )
    first, *others = (wrong_in(words) for words in commands(document))
    assert first == ""
    for wrong, named in zip(others, ("trian", "--modle.n-layer", "--tmperature"), strict=True):
        assert named in wrong


def test_the_tours_snippets_print_what_it_says():
    namespace: dict[str, object] = {}
    text = TOUR.read_text("utf-8")
    snippets = [(match.start(2), match[2]) for match in FENCE.finditer(text) if match[1] == "python"]
    assert 3 <= len(snippets) <= 6
    for start, code in snippets:
        said = "".join(line[3:] + "\n" for line in code.splitlines() if line.startswith("#> "))
        padded = "\n" * text.count("\n", 0, start) + code  # so that a traceback names the document's line
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(padded, str(TOUR), "exec"), namespace)
        assert_printed(printed.getvalue(), said)


def assert_printed(printed: str, said: str) -> None:
    """Compares two outputs: words, white space aside, and floats to what rounding and another machine may change."""
    assert FLOAT.sub("#", printed).split() == FLOAT.sub("#", said).split(), printed
    pairs = zip(FLOAT.findall(printed), FLOAT.findall(said), strict=True)
    assert all(math.isclose(float(a), float(b), rel_tol=0.01, abs_tol=0.015) for a, b in pairs), printed


def test_the_tours_parameters_are_the_models():
    """The table of parameters, and the sums named beside it."""
    text = TOUR.read_text("utf-8")
    config = with_model(resolve("seed"), vocab_size=50_257)
    for part, count in parameter_table(config.model).items():
        assert re.search(rf"^\| {re.escape(part)} \|.*\| {count:,} \|$", text, re.M), part
    total = parameter_count(config.model)
    block = parameter_count(with_model(config, n_layer=3).model) - total
    untied = parameter_count(with_model(config, tie_word_embeddings=False).model)
    for figure in (total, untied, total - block, 2 * block + 256, config.model.vocab_size * config.model.n_embd):
        assert f"{figure:,}" in text


def test_the_picture_shows_the_floors():
    tree = ast.parse((ROOT / "tests" / "test_layout.py").read_text("utf-8"))
    floors = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "FLOORS"
    )
    picture = FENCE.findall((ROOT / "docs" / "architecture.md").read_text("utf-8"))[0][1]
    assert {name: int(floor) for floor, name in re.findall(r"^ +(\d) +(\w+)(?:/|\.py) ", picture, re.M)} == floors


@every_document
def test_formulas_survive_markdown(document):
    """GitHub reads Markdown first: it takes a backslash off punctuation, and pairs of underscores behind brackets."""
    formulas = ["".join(parts) for parts in MATH.findall(IN_CODE.sub("", prose(document)))]
    assert not [formula for formula in formulas if re.search(r"\\[^\w\s]|[^\w\s]_|\*|<", formula)]


@every_document
def test_nothing_was_left_to_be_filled_in(document):
    assert not re.search(
        r"\b[A-Z]+_(SECTION|ROWS|TABLE|FIGURES)\b|^FIGURES$|\bTODO\b", document.read_text("utf-8"), re.M
    )
