"""Commands in what the program prints or a document shows, held against the real command line."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cyclopts import CycloptsError

from minigpt.cli.commands import app
from minigpt.cli.config_options import ShortOptions, typed_settings
from minigpt.config import GROUPS, Config, resolve
from minigpt.errors import ConfigError

COMMAND = re.compile(r"`(minigpt [^`]+)`|(?:^|: | {3}|[$>] )(minigpt [a-z][^`\n]*)$", re.M)
"""Between backticks, or the rest of a line that begins with it, or of one behind a colon or a column's gap."""

OTHERS = re.compile("`[a-z][^`]*`")
"""Commands of other programs."""

PLACEHOLDERS = {"N": "1", "STEPS": "1"}
"""What stands for a number; all others may stay: RUN is as good a path as any."""


def commands_in(text: str) -> Iterator[str]:
    """The commands in a text."""
    for found in COMMAND.finditer(text):
        yield from (found[1] or found[2]).split(" && ")


@cache
def wrong_with(command: str) -> str:
    """What the command line says against a command, its placeholders filled in; nothing against a mere name."""
    try:
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command, comments=True)[1:]]
        if len(words) == 1:
            return "" if words[0] in set(app) else f"no such command: {words[0]}"
        app.parse_args(words, exit_on_error=False, print_error=False)
    except (CycloptsError, ValueError) as error:
        return str(error)
    return ""


def strange_options(typed: list[str], message: str) -> list[str]:
    """Options that a message names, and that the command it answers does not have; a whole command has its own."""
    if not typed or typed[0] not in app or typed[0].startswith("-"):
        return []
    known = {name for argument in app[typed[0]].assemble_argument_collection() for name in argument.names}
    rest = OTHERS.sub("", COMMAND.sub("", message))
    named = re.findall(r"(?<![\w.-])--[a-z][\w.-]*[a-z]", rest)
    return [option for option in named if option not in known and not any(word.startswith(option) for word in typed)]


def training_with(command: str) -> str:
    """What is wrong with the settings of a command that trains anew as another run did, if that run is there."""
    words = shlex.split(command)[1:]
    if words[:1] != ["train"] or "--config" not in words:
        return ""
    file = Path(words[words.index("--config") + 1])
    if not file.is_file():
        return ""
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    named = bound.arguments
    groups = {name: named[name] for name in GROUPS if name in named}
    typed = typed_settings(Config(**groups), named.get("short", ShortOptions()))
    try:
        after = resolve(file=file, overrides=typed)
    except ConfigError as error:
        return str(error)
    return "it changes nothing" if typed and after == resolve(file=file) else ""


def mistakes_in(text: str) -> list[str]:
    """All commands in a text that the command line would refuse, and why."""
    return [f"{command}: {wrong}" for command in commands_in(text) if (wrong := wrong_with(command))]


def strings_of(file: Path) -> Iterator[str]:
    """The strings of a module, documentation among them; X stands for each value that an f-string puts in."""
    tree = ast.parse(file.read_text("utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value
