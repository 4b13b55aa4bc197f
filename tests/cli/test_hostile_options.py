"""Options that no command can take: each is refused with one message, the same way everywhere."""

from __future__ import annotations

import os
from itertools import chain

import pytest

from minigpt.cli.commands import app

LONG = "9" * 5_000

WHOLE = {
    "prepare": ["x", "--out", "y"],
    "train": ["--run", "x", "--data", "y"],
    "plan": [],
    "resume": ["x"],
    "generate": ["x"],
    "samples": ["x"],
    "evaluate": ["x"],
    "verify-resume": ["--data", "x"],
}
"""Commands with numbers among their options, and what they need beside."""


def numbers(command: str) -> dict[str, type]:
    """The options of a command that take numbers."""
    arguments = app[command].assemble_argument_collection()
    found = {}
    for argument in arguments:
        text = "" if "Literal" in str(argument.hint) else str(argument.hint)
        kind = int if "int" in text else float if "float" in text else None
        if kind and argument.name.startswith("--") and argument.parameter.parse is not False:
            found[argument.name] = kind
    return found


ALL = list(chain.from_iterable([(command, name, kind) for name, kind in numbers(command).items()] for command in WHOLE))


def test_all_kinds_of_options_are_among_those_tried():
    tried = {name for _, name, _ in ALL}
    assert {
        "--num-samples",
        "--seed",
        "--top-k",
        "--train.steps",
        "--steps",
        "--temperature",
        "--val-fraction",
    } <= tried
    assert {"--stride", "--max-new-tokens", "--kills", "--machine.threads", "--train.lr", "--length-penalty"} <= tried


def refused(call, command, name, kind, value):
    code, out, err = call(command, *WHOLE[command], f"{name}={value}")
    assert (code, out) == (2, ""), value
    assert err.startswith(f"error: {name} takes a {'whole ' * (kind is int)}number\n"), value
    assert len(err) < 200


@pytest.mark.parametrize(("command", "name", "kind"), ALL, ids=lambda part: getattr(part, "__name__", part))
def test_what_is_no_such_number_is_refused(call, command, name, kind):
    refused(call, command, name, kind, "1.5" if kind is int else "nan")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "x", "", "[1]", "1,5", "{}"])
def test_what_is_no_number_is_refused(call, value):
    refused(call, "generate", "--temperature", float, value)
    refused(call, "generate", "--num-samples", int, value)


@pytest.mark.parametrize("value", ["2.5", "2.0", "1e3", "0x10", "true", LONG, str(2**63), str(-(2**63) - 1)])
def test_what_is_no_whole_number_is_refused(call, value):
    refused(call, "generate", "--top-k", int, value)
    refused(call, "train", "--train.steps", int, value)


@pytest.mark.parametrize("command", ["generate", "samples", "evaluate", "report", "export"])
@pytest.mark.parametrize("step", [LONG, "9" * 18, "1.5", "-1", "٣", "0x1", "step-1", ""])
def test_a_step_that_is_none_is_no_checkpoint(call, run_folder, tmp_path, command, step):
    out = ["--out", tmp_path / "out"] if command in ("export", "report") else []
    code, _, err = call(command, run_folder, f"--checkpoint={step}", *out)
    assert (code, "No such checkpoint" in err, len(err) < 300) == (2, True, True)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("steps = 2.5", "must be a whole number"),
        ("steps = true", "must be a whole number"),
        ("steps = 1e3", "must be a whole number"),
        ('steps = "9"', "must be a whole number"),
        (f"steps = {2**63}", "must be a whole number"),
        (f"seed = {LONG}", "digits"),
        ("seed = 0x" + "f" * 5_000, "digits"),
        ("lr = nan", "train.lr is nan"),
        ("lr = inf", "train.lr is inf"),
        ("save_minutes = -inf", "save_minutes is -inf"),
        ("lr = true", "must be a number"),
        ("lr = " + "[" * 5_000 + "]" * 5_000, "nested"),
        ("lr" + ".x" * 5_000 + " = 1", "nested"),
        ("\\u001b[2J = 1", "not valid TOML"),
        ('"\\u001b[2J" = 1', "␛"),
    ],
)
def test_settings_in_a_file_are_held_to_the_same(call, tmp_path, line, word):
    (tmp_path / "config.toml").write_text(f"[train]\n{line}\n")
    code, out, err = call("plan", "--config", tmp_path / "config.toml")
    assert (code, out) == (2, "")
    assert word in err or (word == "␛" and "\\x1b" in err)
    assert "\x1b" not in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_for_a_file_of_settings_is_refused(call, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = call("plan", "--config", tmp_path / "pipe")
    assert (code, "not a regular file" in err) == (2, True)
    code, _, err = call("plan", "--config", "/dev/zero")
    assert (code, "not a regular file" in err) == (2, True)


def test_a_licence_with_control_characters_is_refused(call, run_folder, tmp_path):
    for text in ("\udcff", "mit\n---", "\x1b[2J"):
        code, _, err = call("export", run_folder, "--out", tmp_path / "out", "--license", text)
        assert (code, "licence contains control characters" in err) == (2, True)
    assert not (tmp_path / "out").exists()
