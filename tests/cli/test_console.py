"""What is printed passes one place, in which nothing survives that a terminal would obey."""

from __future__ import annotations

import ast
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Group
from rich.live import Live
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

import minigpt
from minigpt.cli.console import Console, print_json, styled
from minigpt.text_utils import INVISIBLE, escape_control, shell_line, shell_word, words_of

EVIL = "a\x1b[2J\x07\r\x9b31m\u202eb\u200b\udcff\ud800"
SHOWN = "a␛[2J␇␍\ufffd31m<U+202E>b<U+200B>\\xff\ufffd"
OBEYED = {chr(code) for code in (*range(32), *range(0x7F, 0xA0), *INVISIBLE, *range(0xD800, 0xE000))} - {"\n"}


def table() -> Table:
    made = Table(EVIL, title=EVIL)
    made.add_row(EVIL)
    return made


def printed(thing: object, **settings: object) -> str:
    out = io.StringIO()
    Console(file=out, width=200, **settings).print(thing)
    return out.getvalue()


@pytest.mark.parametrize("thing", [EVIL, table(), Group(EVIL, table()), styled((EVIL, "bold"), EVIL)])
@pytest.mark.parametrize("soft_wrap", [False, True])
def test_whatever_is_printed_is_shown_and_not_obeyed(thing, soft_wrap):
    text = printed(thing, soft_wrap=soft_wrap)
    assert SHOWN in text
    assert not OBEYED.intersection(text)


@pytest.mark.parametrize("thing", [Text(EVIL), ValueError(EVIL)])
def test_text_that_was_made_elsewhere_is_not_obeyed_either(thing):
    assert not OBEYED.intersection(printed(thing))


def test_a_table_gives_what_is_shown_its_room():
    made = Table.grid()
    made.add_row("\u202e" * 3, "|")
    assert printed(made).rstrip() == "<U+202E>" * 3 + "|"


def test_a_live_view_and_a_bar_are_not_obeyed():
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system=None)
    with Live(EVIL, console=console, auto_refresh=False):
        pass
    with Progress(TextColumn("{task.description}", markup=False), console=console, auto_refresh=False) as bars:
        bars.add_task(EVIL)
    assert out.getvalue().count(SHOWN) >= 2
    assert not {"\x07", "\x9b", "\u202e", "\x1b[2J"} & {out.getvalue()}
    assert "\x1b[2J" not in out.getvalue()


def test_nothing_is_markup_and_nothing_is_coloured():
    assert printed("[red]1[/red] :smile: 'a'", force_terminal=True, color_system="truecolor") == (
        "[red]1[/red] :smile: 'a'\n"
    )


def test_json_is_ascii_and_says_the_same(capsys):
    print_json({"text": EVIL + "ü\U0001f600"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.rstrip("\n").isprintable()
    assert json.loads(out) == {"text": EVIL + "ü\U0001f600"}


def test_visible_text_stays_what_it_is():
    assert escape_control(escape_control(EVIL)) == escape_control(EVIL) == SHOWN
    assert escape_control("ü\U0001f600\n\tא") == "ü\U0001f600\n\tא"


PRODUCTS = {
    "console.py": {"stdout"},
    "generate_views.py": {"stdout"},
    "bpe_train.py": {"stdout"},
    "app.py": {"stdout", "stderr"},
}
"""Where standard streams are named: for JSON, for generated text, to answer a parent process, and to open and flush."""


@pytest.mark.parametrize("file", sorted(Path(minigpt.__file__).parent.rglob("*.py")), ids=lambda file: file.name)
def test_no_other_module_prints(file):
    tree = ast.parse(file.read_text("utf-8"))
    called = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "print" not in called
    written = {
        node.value.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.attr in ("write", "flush")
    }
    assert written & {"stdout", "stderr"} <= PRODUCTS.get(file.name, set())
    from_rich = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "rich.console"]
    assert "Console" not in {alias.name for node in from_rich for alias in node.names}


@pytest.mark.parametrize("word", ["a b", "run\udcff", "it's\n\x1b\u202e'", "$'x'", "é", "-x", "", "\\", "\t$HOME"])
def test_a_printed_word_is_the_word_that_a_shell_takes(word):
    line = shell_line(["minigpt", word, "end"])
    assert words_of(line) == ["minigpt", word, "end"]
    assert escape_control(line) == line
    if shell := shutil.which("bash"):
        command, environment = f"printf %s {shell_word(word)}", {"LC_ALL": "C.UTF-8", "HOME": "/"}
        said = subprocess.run([shell, "-c", command], capture_output=True, env=environment, check=True).stdout
        assert said == word.encode("utf-8", "surrogateescape")


def test_what_strangers_files_hold_is_shown_by_every_command(call, run_folder, tmp_path):
    evil = "\x1b]0;owned\x07\u202e"
    (tmp_path / "a.jsonl").write_text(json.dumps({f"body{evil}": "words"}) + "\n")
    (tmp_path / "a.toml").write_text(f"preset = {json.dumps(evil)}\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "gpt2", "activation_function": evil}))
    (tmp_path / "index").mkdir()
    call("export", run_folder, "--out", tmp_path / "hf")
    (tmp_path / "index" / "config.json").write_bytes((tmp_path / "hf" / "config.json").read_bytes())
    index = {"weight_map": {"wte.weight": f"{evil}.safetensors"}}
    (tmp_path / "index" / "model.safetensors.index.json").write_text(json.dumps(index))
    for command in (
        ("prepare", tmp_path / "a.jsonl", "--out", tmp_path / "out"),
        ("plan", "--config", tmp_path / "a.toml"),
        ("import", tmp_path / "model", "--run", tmp_path / "out"),
        ("import", tmp_path / "index", "--run", tmp_path / "out"),
        ("generate", evil),
        ("generate", run_folder, "--checkpoint", evil),
        ("evaluate", run_folder, "--text", evil),
        ("export", run_folder, "--out", tmp_path / f"{evil}out"),
    ):
        _, out, err = call(*command)
        assert "owned" in out + err, command
        assert not OBEYED.intersection(out + err), command
