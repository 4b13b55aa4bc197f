"""Things that people, or their programs, hand over as text: in odd encodings, packed, cut, of another kind, unending.

`odd_source` puts one, or a folder of several, in place. Not here: which command reads it (hostile.py).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trials.damage_text import DEEP, DIGITS, EVIL

SENTENCES = [
    f"The {one} {sees} the {two}.\n" for one in ("cat", "dog") for sees in ("sees", "hears") for two in ("owl", "fox")
]


def prose(chance: random.Random, lines: int = 60) -> str:
    """Returns a few lines of made-up English."""
    return "".join(chance.choices(SENTENCES, k=lines))


def csv(chance: random.Random) -> bytes:
    """A table with a column `text`, and something odd about it."""
    rows = [f'{number},"{prose(chance, 3)}"' for number in range(20)]
    odd = ["", "\0,x", '"open', "a,b,c,d,e", ",", '""', EVIL, "x" * 200_000, f'1,"{"x" * 200_000}"', "\ufeff"]
    rows.insert(chance.randrange(20), chance.choice(odd))
    head = chance.choice(["id,text", "id;text", "text", "id,text,text", "", "ID,Text", "\ufeffid,text", f"{EVIL},text"])
    return chance.choice(["\n", "\r\n", "\r"]).join([head, *rows]).encode()


def json_records(chance: random.Random) -> list[Any]:
    """Records with a field `text`, some of them odd."""
    odd = [None, 1, [], "x", {}, {"text": None}, {"text": 5}, {"text": ["x"]}, {"text": "\ud800"}, {"text": EVIL}]
    odd += [{"text": ""}, {"body": "x"}, {EVIL: 1}, {"text": {"text": "x"}}, {"text": "x" * 200_000}, {"Text": "x"}]
    records: list[Any] = [{"text": prose(chance, 5), "id": number} for number in range(20)]
    for _ in range(chance.randrange(3)):
        records.insert(chance.randrange(len(records)), chance.choice(odd))
    return records


def json_lines(chance: random.Random) -> bytes:
    """JSON lines, some of them none."""
    lines = [json.dumps(record) for record in json_records(chance)]
    odd = [
        "",
        "   ",
        "{",
        '{"text": "x"',
        "[" * DEEP,
        DIGITS,
        f'{{"text": {DIGITS}}}',
        '{"text": NaN}',
        "\ufeff{}",
        "\0",
    ]
    odd += ['{"text": "a", "text": "b"}', '{"text": "\\ud800"}', f'{{"text": "x", "more": {"[" * DEEP}', "x" * 300_000]
    for _ in range(chance.randrange(3)):
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(odd))
    return (chance.choice(["\n", "\r\n"]).join(lines) + chance.choice(["", "\n", "\n\n"])).encode()


def notebook(chance: random.Random) -> bytes:
    """A Jupyter notebook."""
    cell = {"cell_type": "code", "source": [prose(chance, 3)], "metadata": {}, "outputs": [], "execution_count": None}
    return json.dumps({"cells": [cell] * 5, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def parquet(chance: random.Random) -> bytes:
    """A Parquet file, whole or damaged."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {
        "texts": [prose(chance, 5) for _ in range(20)],
        "with nulls": [None if number % 3 else prose(chance, 5) for number in range(20)],
        "numbers": list(range(20)),
        "lists": [["x"]] * 20,
        "bytes": [b"\xff\xfe"] * 20,
        "nothing": [],
    }
    name = chance.choice(["text", "text", "text", EVIL])
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({name: columns[chance.choice(sorted(columns))]}), file)
    data = bytearray(file.getvalue())
    for _ in range(chance.choice([0, 1, 1, 30])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: len(data) if chance.random() < 0.8 else chance.randrange(len(data))])


def archive(chance: random.Random) -> bytes:
    """A zip file, as a .docx is one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(chance.choice(["word/document.xml", "a.txt", "../../x"]), prose(chance))
    return file.getvalue()


def invalid(chance: random.Random) -> bytes:
    """Text with bytes that are not UTF-8."""
    data = prose(chance).encode()
    place = chance.randrange(len(data))
    wrong = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"\x80", "é".encode("latin-1")]
    return data[:place] + chance.choice(wrong) + data[chance.choice([place, len(data)]) :]


def packed_wrongly(chance: random.Random) -> bytes:
    """Gzip that is cut, damaged, followed by something, doubled, or of nothing."""
    whole = gzip.compress(prose(chance).encode())
    ways = [whole[: chance.randrange(len(whole))], whole + b"garbage", whole + bytes(5000), gzip.compress(whole)]
    ways += [gzip.compress(b""), whole + whole, whole[:-8] + bytes(8), b"\x1f\x8b", zlib.compress(b"x" * 999)]
    ways += [gzip.compress(bytes(20_000_000)), gzip.compress(b"x" * 5_000_000), gzip.compress(b" " * 20_000_000)]
    return chance.choice(ways)


CONTENTS: dict[str, Callable[[random.Random], bytes]] = {
    "prose": lambda chance: prose(chance, 200).encode(),
    "UTF-8 with BOM": lambda chance: prose(chance).encode("utf-8-sig"),
    "UTF-16": lambda chance: prose(chance).encode("utf-16"),
    "UTF-16, no BOM": lambda chance: prose(chance).encode(chance.choice(["utf-16-le", "utf-16-be"])),
    "UTF-32": lambda chance: prose(chance).encode(chance.choice(["utf-32", "utf-32-le", "utf-32-be"])),
    "gzip": lambda chance: gzip.compress(prose(chance).encode()),
    "gzip, damaged": packed_wrongly,
    "other archives": lambda chance: chance.choice([archive(chance), b"BZh91AY&SY", b"\xfd7zXZ\0\0", b"(\xb5/\xfd\0"]),
    "PDF": lambda chance: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n" + prose(chance).encode(),
    "RTF": lambda chance: b"{\\rtf1\\ansi " + prose(chance).encode() + b"}",
    "HTML": lambda chance: f"<!doctype html><html><body><p>{prose(chance)}</p></body></html>".encode(),
    "notebook": notebook,
    "CSV": csv,
    "TSV": lambda chance: csv(chance).replace(b",", b"\t"),
    "JSON": lambda chance: json.dumps(json_records(chance), indent=chance.choice([None, 1])).encode(),
    "JSON, deep": lambda chance: chance.choice(
        [b"[" * DEEP, b'{"text":' * 9999, DIGITS.encode(), b"[]", b"{}", b"null"]
    ),
    "JSON lines": json_lines,
    "Parquet": parquet,
    "one long word": lambda chance: chance.choice(["x", "GATTACA", "字", "-", "\U0001d518"]).encode() * 10_000,
    "one long line": lambda chance: prose(chance, 900).replace("\n", " ").encode(),
    "only newlines": lambda chance: chance.choice([b"\n", b"\r\n", b"\r", b"\n\n\n", b" \n"]) * 500,
    "nearly nothing": lambda chance: chance.choice([b"", b"\n", b"x", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"xy"]),
    "invalid UTF-8": invalid,
    "NULs": lambda chance: prose(chance).encode() + bytes(chance.choice([1, 5000])),
    "controls": lambda chance: (prose(chance) + EVIL + prose(chance)).encode(),
    "separators": lambda chance: "<|endoftext|>".join(prose(chance, 4) for _ in range(30)).encode(),
    "end of text, alone": lambda chance: b"<|endoftext|>" * 300,
    "noise": lambda chance: chance.randbytes(chance.choice([3, 500, 20_000])),
    "odd characters": lambda chance: "".join(chr(chance.randrange(0xE000, 0x11_0000)) for _ in range(3000)).encode(),
    "accents": lambda chance: "e\u0301\u0302".encode() * 2000,
}
SUFFIXES = [
    *("", ".txt", ".txt", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".txt.gz", ".jsonl.gz"),
    *(".html", ".ipynb", ".pdf", ".TXT", ".docx", ".rtf", ".1"),
]
OWN_SUFFIX = {
    "Parquet": ".parquet",
    "JSON lines": ".jsonl",
    "CSV": ".csv",
    "TSV": ".tsv",
    "JSON": ".json",
    "notebook": ".ipynb",
    "gzip": ".gz",
    "HTML": ".html",
    "PDF": ".pdf",
    "prose": ".txt",
}
NAMES = [
    *(
        "a",
        "b b",
        "é",
        "-x",
        "--out",
        "\x1b[31m",
        "a\nb",
        "\udcff",
        "x" * 200,
        "[bold]",
        "字",
        "\u202e",
        "hf:",
        "%s",
        ".h",
    ),
]


def odd_file(chance: random.Random, folder: Path, name: str) -> tuple[Path, str]:
    """Writes one; returns its path, and what it is."""
    kind = chance.choice(sorted(CONTENTS))
    suffix = OWN_SUFFIX[kind] if kind in OWN_SUFFIX and chance.random() < 0.6 else chance.choice(SUFFIXES)
    file = folder / f"{name}{suffix}"
    file.write_bytes(CONTENTS[kind](chance))
    return file, f"{kind} as {suffix or 'no suffix'}"


def odd_source(chance: random.Random, folder: Path) -> tuple[Path, str]:
    """Makes a file or a folder that may be named as a source; returns it, and what it is."""
    if chance.random() < 0.5:
        return odd_file(chance, folder, "odd" if chance.random() < 0.8 else chance.choice(NAMES))
    place = folder / "odd"
    place.mkdir()
    kinds = [odd_file(chance, place, name)[1] for name in chance.sample(NAMES, chance.randrange(1, 5))]
    if chance.random() < 0.8:
        (place / "good.txt").write_text(prose(chance, 200))
    odd: dict[str, Callable[[Path], object]] = {
        "a cycle": lambda at: at.symlink_to("."),
        "a link up": lambda at: at.symlink_to(".."),
        "a dangling link": lambda at: at.symlink_to("nowhere"),
        "a link to itself": lambda at: at.symlink_to(at.name),
        "a link to a file": lambda at: at.symlink_to("good.txt"),
        "a link to a device": lambda at: at.symlink_to("/dev/zero"),
        "a FIFO": os.mkfifo,
        "an empty folder": lambda at: at.mkdir(),
        "a folder in a folder": lambda at: (at / "deeper").mkdir(parents=True),
        "a file that may not be read": lambda at: at.touch(0),
    }
    for name in chance.sample(sorted(odd), chance.randrange(3)):
        odd[name](place / chance.choice([f"{name[-3:]}.txt", name, f"{name}.jsonl", f"{name}.md"]))
        kinds.append(name)
    return place, f"a folder: {', '.join(kinds)}"
