"""Options that make no sense, for every command: the options are read from the command line itself.

A value may be of another kind, empty, huge, negative, of 5,000 digits, no text at all, or lead to something that is no
file. None leads out of the case's folder: a command that writes to what it is told must be safe to try.
"""

from __future__ import annotations

import os
import random
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from trials.damage_text import DIGITS, EVIL

NUMBERS = [
    *[
        "-1",
        "0",
        "1",
        "2",
        "3",
        "+1",
        "2.5",
        "1.0",
        "nan",
        "inf",
        "-inf",
        "1e5",
        "1e999",
        "1e-999",
        "1_000",
        "0x10",
        "٣",
        "²",
        "½",
    ],
    *(DIGITS, f"-{DIGITS}", f"0.{DIGITS}", "2147483648", "9223372036854775808", "18446744073709551616"),
]
WORDS = [
    *("", " ", "-", "--", "---x", "true", "none", "null", "auto", "best", "latest", "cpu", "cuda:99", "mps"),
    *(EVIL, "a\nb", "\r", "\udcff", "caf\udce9", "\u202eevil", "\ufffe", "a" * 400, "a" * 70_000, "🙂" * 50),
    *("%s%n", "{x}", "[bold]x[/bold]", "<b>x</b>", "gpt2", "bpe:0", "bpe:256", "bpe:257", "bpe:x", "text", "*.txt"),
]
PLACES = [
    *(".", "..", "run", "run/", "data", "nope", "nope/nope", "stories", "stories/00.txt", "prompts.txt", "model"),
    *("settings.toml", "run/config.toml", "run/checkpoints", "data/meta.json", "imported", "shards", "x.png", "x.pdf"),
    *("fifo", "null", "zero", "dangling", "loop", "\udcff.txt", "/proc/nope/x", "/dev/null/x", "hf:./nope"),
    *("../" * 3 + "x" * 400, "x/" * 200),
]
UNKNOWN = ["--nope", "--", "-", "-x", "--help", "-h", "--version", "--no-", "--run", "--=x", "--json"]
SLOW = {"--tasks", "--tensorboard"}
"""Options that import for seconds: tried now and then."""


@cache
def options_of(command: str) -> list[tuple[str, Any]]:
    """Returns the names of a command's options, as they are typed, and their types."""
    from minigpt.cli.commands import app

    arguments = app[command].assemble_argument_collection()
    return [
        (name, argument.hint)
        for argument in arguments
        if not argument.children
        for name in argument.names
        if name.startswith("--")
    ]


def odd_options(chance: random.Random, arguments: list[str], folder: Path) -> tuple[list[str], str]:
    """Returns a command with a few odd options, and the name of one of them."""
    arguments = list(arguments)
    options = [(name, kind) for name, kind in options_of(arguments[0]) if name not in SLOW or chance.random() < 0.05]
    chosen = chance.sample(options, min(len(options), chance.choice([1, 1, 2, 3])))
    for name, kind in chosen:
        if name in arguments and chance.random() < 0.9:
            place = arguments.index(name)
            del arguments[place : place + 2]
        value = _value(chance, kind)
        arguments += chance.choice([[name, value], [f"{name}={value}"]]) if kind is not bool else [name]
    way = chance.random()
    named = [
        place
        for place, word in enumerate(arguments[1:], 1)
        if not word.startswith("-") and os.path.exists(folder / word)
    ]
    if way < 0.15 and named:
        arguments[chance.choice(named)] = chance.choice([*PLACES, *WORDS])
    elif way < 0.25:
        arguments.insert(chance.randrange(1, len(arguments) + 1), chance.choice([*WORDS, *NUMBERS]))
    elif way < 0.3 or not chosen:
        arguments.append(
            chance.choice(["--nope", "--", "-", "-x", "--help", "-h", "--version", "--no-", "--run", "--=x", "--json"])
        )
    elif way < 0.35 and len(arguments) > 1:
        del arguments[chance.randrange(1, len(arguments))]
    where = chosen[0][0] if chosen else "an unknown option"
    return arguments, f"{arguments[0]} {where}"


def _value(chance: random.Random, kind: Any) -> str:
    """Returns a value for an option: one that fits its type, or one that does not."""
    kinds = [kind, *get_args(kind)]
    if chance.random() < 0.3:
        if choices := [word for k in kinds if get_origin(k) is Literal for word in get_args(k)]:
            return str(chance.choice(choices))
        if Path in kinds:
            return chance.choice(PLACES)
        if int in kinds or float in kinds:
            return chance.choice(["1", "2", "3"])
    pools = [NUMBERS, WORDS, PLACES]
    weights = [6, 2, 1] if int in kinds or float in kinds else [1, 3, 6] if Path in kinds else [2, 6, 3]
    return chance.choice(chance.choices(pools, weights)[0])
