"""Each command that the program, its help or the Makefile shows is one that can be typed; those in docs: test_docs.py.

Those that stand in errors and findings are looked at wherever a test meets them (conftest.py).
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

import minigpt
from minigpt.cli.commands import app
from tests.conftest import story
from tests.printed import commands_in, mistakes_in, strings_of

ROOT = Path(minigpt.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
NO_COMMAND = "minigpt tokenizer "
"""What a tokenizer's checksum begins with."""


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_in_the_programs_words(module):
    assert not [wrong for text in strings_of(module) for wrong in mistakes_in(text) if not wrong.startswith(NO_COMMAND)]


def test_a_wrong_one_would_be_noticed(tmp_path):
    (tmp_path / "some.py").write_text(
        '''"""`minigpt trian` and `minigpt train`."""\nremedy = f"Make it: minigpt prepare {text}"\n'''
        """then = f"minigpt resume {run} --epoch 3"\nprose = "so minigpt prepare is not meant"\n"""
    )
    texts = list(strings_of(tmp_path / "some.py"))
    assert [command for text in texts for command in commands_in(text)] == [
        "minigpt trian",
        "minigpt train",
        "minigpt prepare X",
        "minigpt resume X --epoch 3",
    ]
    assert [wrong.partition(":")[0] for text in texts for wrong in mistakes_in(text)] == [
        "minigpt trian",
        "minigpt prepare X",
        "minigpt resume X --epoch 3",
    ]


def test_what_the_makefile_advises():
    lines = re.findall(r"^\t.*\$\(BIN\)/(minigpt .*?)(?:;.*)?$", (ROOT.parent / "Makefile").read_text("utf-8"), re.M)
    lines = [line.replace('\\"', '"').replace("$$", "$").rstrip('\\" ') for line in lines]
    assert len(lines) >= 8
    assert not [wrong for line in lines for wrong in mistakes_in(line.partition("  #")[0].partition(" || ")[0])]


def test_options_that_errors_about_text_name_are_there_for_all_who_read_text():
    named = {
        option
        for file in (ROOT / "data" / "sources.py", ROOT / "data" / "chunks.py")
        for text in strings_of(file)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
    }
    assert {"--text-column", "--pattern"} <= named
    for verb in ("prepare", "evaluate"):
        known = {name for argument in app[verb].assemble_argument_collection() for name in argument.names}
        assert not named - known, verb


SMALL = shlex.split(
    "--model.n-layer 1 --model.n-head 1 --model.n-embd 8 --model.n-inner 8 --train.batch-size 2 --steps 2 "
    "--machine.device cpu --machine.precision float32"
)


def test_from_each_command_to_the_next(call, tmp_path, monkeypatch):
    """A user who types what is printed, on a text that is too short for the context of the presets."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        Path(f"{number}.txt").write_text(story(number) * 2, encoding="utf-8")
    texts = [f"{number}.txt" for number in range(12)]

    code, _, err = call("train", "--data", "data/stories", "--run", "run")
    (command,) = commands_in(err)
    assert (code, command) == (2, "minigpt prepare TEXT --out data/stories")
    words = shlex.split(command)[1:]
    place = words.index("TEXT")
    words[place : place + 1] = texts
    code, out, _ = call(*words, "--block-size", 16, "--tokenizer", "bpe:300")
    assert code == 0

    (command,) = commands_in(out)
    assert command.endswith("--preset laptop --model.block-size 16")
    code, out, _ = call(*shlex.split(command)[1:], *SMALL)
    assert code == 0
    printed = list(commands_in(out))
    assert [command.split()[1] for command in printed][-3:] == ["generate", "doctor", "report"]
    ran = set()
    while printed:  # findings of the doctor among them: another data set, another run
        words = shlex.split(printed.pop())[1:]
        if words[0] not in ran:
            ran.add(words[0])
            code, out, err = call(*words, *(SMALL if words[0] == "train" else ()))
            assert code == 0, (words, err)
            printed += list(commands_in(out))
    assert {"generate", "doctor", "report", "prepare", "train"} <= ran


def test_a_prepared_set_whose_runs_name_is_taken_gets_another(call, text_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/stories").mkdir(parents=True)
    out = call("prepare", text_folder, "--out", "data/stories", "--tokenizer", "byte")[1]
    assert list(commands_in(out)) == ["minigpt train --data data/stories --run runs/stories2"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("storys", ["No such data set", "Did you mean FOLDER/stories? ", "minigpt prepare TEXT --out"]),
        ("else", ["No such data set", "got: FOLDER/else\n  To make it from a text: minigpt prepare TEXT --out"]),
        ("", ["Not a data set", "Did you mean FOLDER/stories? "]),
        ("a text.txt", ["This is a file", "minigpt prepare 'FOLDER/a text.txt' --out 'data/a text'"]),
    ],
)
def test_a_data_set_that_is_none_is_not_made_of_another_text(call, data_folder, tmp_path, given, words):
    folder = tmp_path / "sets"
    shutil.copytree(data_folder, folder / "stories")
    (folder / "a text.txt").write_text(story(1))
    err = call("train", "--data", folder / given, "--run", tmp_path / "run")[2].replace(str(folder), "FOLDER")
    for word in words:
        assert word in err
    assert "pylib" not in err


def test_a_run_that_is_none(call, run_folder, data_folder):
    near = call("generate", run_folder.with_name("tinny"))[2]
    assert f"Did you mean {run_folder}? " in near
    data = call("generate", data_folder)[2]
    assert f"minigpt train --data {data_folder} --run NEW" in data


@pytest.mark.parametrize("module", sorted((ROOT / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_examples_in_a_help_are_not_broken_by_a_terminal_of_80_columns(module):
    lines = [line.strip() for text in strings_of(module) for line in text.splitlines()]
    assert not [line for line in lines if re.fullmatch("`minigpt [^`]+`", line) and len(line) > 80 + len("``")]
