"""Text, JSON and TOML that are well-formed and wrong, or nearly well-formed. All seeded.

Each function takes a source of chance and a file, changes it, and returns in a few words what it did; None where it
does not apply. Not here: damage to files of any kind (damage.py).
"""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

DIGITS, DEEP = "9" * 5000, 200_000
EVIL = "\x1b[31mred\x1b[0m \x9b31m \u202egnp.\u202c \u2066x\u2069 \x07"
"""Controls of a terminal: an escape sequence, its eight-bit form, turned writing, a bell."""

VALUES: list[Any] = [
    *(None, True, False, [], {}, [[]], [None], [1, "x"], {"x": None}, 0, 1, 2, -1, -5, 0.5, -0.5, 1e308),
    *(2**31, 2**63, 2**70, 10**300, float("nan"), float("inf"), float("-inf"), "@digits", "@deep", "@1e999"),
    *("", "x", EVIL, "\ud800", "a\0b", "a\nb", "x" * 10_000, "nan", "0", "🙂", "[bold]x[/bold]", "<b>x</b>"),
    *("../../x", "/dev/zero", "fifo", "zero", ".", "step-000000000"),
]
"""What may stand where something else is expected. Those with an @ are put in as text, where JSON has no other way."""


def spelling(chance: random.Random, file: Path) -> str | None:
    """Keeps the text, and writes it in another encoding or with something odd in it."""
    with suppress(UnicodeDecodeError):
        text = file.read_bytes().decode()
        place = chance.randrange(len(text) + 1)
        ways: dict[str, bytes] = {
            "a BOM": b"\xef\xbb\xbf" + text.encode(),
            "UTF-16": text.encode("utf-16"),
            "UTF-16 without BOM": text.encode("utf-16-le"),
            "UTF-32": text.encode("utf-32"),
            "a NUL": (text[:place] + "\0" + text[place:]).encode(),
            "a byte that is not UTF-8": text[:place].encode() + b"\xff" + text[place:].encode(),
            "a surrogate": text[:place].encode() + b"\xed\xa0\x80" + text[place:].encode(),
            "CRLF": text.replace("\n", "\r\n").encode(),
            "controls": (text[:place] + EVIL + text[place:]).encode(),
            "only brackets": b"[" * DEEP,
            "only digits": DIGITS.encode(),
            "only white space": b" \n\t" * 100,
            "one line of a megabyte": b"x" * 1_000_000,
            "deep, in the middle": (text[:place] + "[" * DEEP + text[place:]).encode(),
        }
        name = chance.choice(sorted(ways))
        file.write_bytes(ways[name])
        return f"text: {name}"
    return None


# JSON


def json_values(chance: random.Random, file: Path) -> str | None:
    """Changes one thing in it: a value of another kind, a key more, a key less, one twice."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError:
        return None
    text, what = changed_json(chance, content)
    file.write_text(text, "utf-8", "surrogatepass")
    return f"JSON: {what}"


def json_line(chance: random.Random, file: Path) -> str | None:
    """Changes one line of JSON lines."""
    lines = file.read_text("utf-8", "replace").splitlines()
    if not lines:
        return None
    number = chance.randrange(len(lines))
    try:
        lines[number], what = changed_json(chance, json.loads(lines[number]))
    except ValueError:
        return None
    file.write_text("\n".join(lines) + "\n", "utf-8", "surrogatepass")
    return f"JSON line {number + 1}: {what}"


def changed_json(chance: random.Random, content: Any) -> tuple[str, str]:
    """Returns JSON with one thing changed in it, and what that is."""
    places = [((), content), *_places(content)]
    path, _ = chance.choice(places)
    value = chance.choice(VALUES)
    name = ".".join(map(str, path)) or "all"
    if not path:
        return _spelled(value), f"{_short(value)} in place of all"
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    way = chance.choice(["value", "value", "value", "gone", "more", "twice"])
    if way == "gone":
        del parent[path[-1]]
        return _spelled(content), f"{name} gone"
    if way == "more" and isinstance(parent, dict):
        key = chance.choice([EVIL, "\ud800", "", "@", "__proto__", "x" * 1000])
        parent[key] = value
        return _spelled(content), f"a key {_short(key)} beside {name}"
    if way == "twice" and isinstance(parent, dict):
        parent["@twice"] = value
        return _spelled(content).replace('"@twice"', json.dumps(path[-1])), f"{name} twice, then {_short(value)}"
    parent[path[-1]] = value
    return _spelled(content), f"{name} is {_short(value)}"


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Returns the path and value of everything below a JSON value; of long lists only the beginning."""
    inner = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [place for key, value in inner[:40] for place in [((*path, key), value), *_places(value, (*path, key))]]


def _spelled(value: Any) -> str:
    """Returns JSON, with the words that begin with @ put in."""
    text = json.dumps(value)
    for word, spelled in (("@digits", DIGITS), ("@deep", "[" * DEEP + "]" * DEEP), ("@1e999", "1e999")):
        text = text.replace(f'"{word}"', spelled)
    return text


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) < 40 else f"{text[:36]}..."


# TOML


def toml_line(chance: random.Random, file: Path) -> str:
    """Changes, adds or removes a line."""
    lines = file.read_text("utf-8").splitlines()
    settings = [number for number, line in enumerate(lines) if "=" in line] or [0]
    number = chance.choice(settings)
    name = lines[number].partition("=")[0].strip() if lines else "x"
    values = [
        *[
            "nan",
            "inf",
            "-inf",
            "-1",
            "0",
            "1",
            "2.5",
            "1e308",
            "[]",
            "{}",
            "true",
            "1979-05-27",
            "07:32:00",
            "2**31",
            "1_000",
            "'auto'",
            "9223372036854775808",
        ],
        *('""', '"x"', '"\\u001b[31mred"', '"\\ud800"', '"\\u202e"', "", DIGITS, f"0x{'f' * 5000}"),
        *("[" * 5000 + "]" * 5000, "{a=" * 900 + "1" + "}" * 900),
    ]
    value = chance.choice(values)
    extra = [
        *(f"{name} = {value}", f'"\\u001b[31m{name}\\u202e" = {value}', f"preset = {value}", 'preset = "nope"'),
        *("[train]", "[[model]]", "[train.lr]", '["\\u009b31m"]', f"[{'a.' * 5000}a]", f"{'a.' * 5000}a = 1"),
        *(
            "= 1",
            "x",
            "model = 1",
            "a = {b = [1, {c = 2}]}",
            "\x1b[31m = 1",
            "# \x00",
            '"" = 1',
            'preset = "\\u001b[31m"',
        ),
    ]
    way = chance.choice(["value", "value", "value", "more", "gone", "first"])
    if way == "value" and lines:
        lines[number] = f"{name} = {value}"
        what = f"{name} = {_short(value)}"
    elif way == "gone" and lines:
        what = f"{lines.pop(number)} gone"
    else:
        line = chance.choice(extra)
        lines.insert(0 if way == "first" else number, line)
        what = f"a line {_short(line)}"
    file.write_text("\n".join(lines) + "\n", "utf-8", "surrogatepass")
    return f"TOML: {what}"
