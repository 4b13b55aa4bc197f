"""What a file is, told from its first bytes: text, a table, a page, an archive, another encoding, a picture.

One function for every door through which bytes come in: files and folders to prepare, standard input, texts to
evaluate, settings, prompts. A name decides nothing here; what is not text comes with the command that makes text of it.

Not here: reading any of it (minigpt/data/record_files.py).
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal, NamedTuple

HEAD_BYTES = 2**16
"""What `sniff` wants to see: this much of the file, or all of it."""


class Format(NamedTuple):
    """What a file may turn out to be.

    Attributes:
        title: what it is called, as "a PDF file".
        advice: the command that makes text of it. `{file}` stands for its name, `{txt}`, `{jsonl}` and `{csv}` for that
            of the result, `{utf8}` for one with the same suffix.
    """

    title: str
    advice: str = ""


def _recode(encoding: str) -> str:
    return f"Convert it: `iconv -f {encoding} -t UTF-8 {{file}} > {{utf8}}`."


def _pandoc(source: str) -> str:
    return f"Convert it: `pandoc -f {source} -t plain --wrap=none {{file}} -o {{txt}}`."


FORMATS: dict[str, Format] = {
    "text": Format("text"),
    "jsonl": Format("JSON lines"),
    "json": Format("a JSON array"),
    "csv": Format("a CSV table"),
    "tsv": Format("a TSV table"),
    "parquet": Format("a Parquet file"),
    "utf-16": Format("text in UTF-16", _recode("UTF-16")),
    "utf-16-le": Format("text in UTF-16 without a byte order mark", _recode("UTF-16LE")),
    "utf-16-be": Format("text in UTF-16 without a byte order mark", _recode("UTF-16BE")),
    "utf-32": Format("text in UTF-32", _recode("UTF-32")),
    "utf-32-le": Format("text in UTF-32 without a byte order mark", _recode("UTF-32LE")),
    "utf-32-be": Format("text in UTF-32 without a byte order mark", _recode("UTF-32BE")),
    "8-bit": Format(
        "text in an older encoding, not in UTF-8",
        _recode("WINDOWS-1252") + " That is for Western languages; others are CP1251, GB18030, SHIFT_JIS, ...",
    ),
    "html": Format("an HTML page", _pandoc("html")),
    "xml": Format("an XML file", "Take its text out with a tool for its kind of XML."),
    "notebook": Format("a Jupyter notebook", "Convert it: `jupyter nbconvert --to markdown {file}`."),
    "json-object": Format(
        "one JSON object, not a list of records",
        "Take the list of records out of it: `jq -c '.LIST[]' {file} > {jsonl}`.",
    ),
    "rtf": Format("an RTF document", _pandoc("rtf")),
    "pdf": Format("a PDF file", "Convert it: `pdftotext {file} {txt}`."),
    "docx": Format("a Word document", _pandoc("docx")),
    "odt": Format("an OpenDocument text", _pandoc("odt")),
    "epub": Format("an EPUB book", _pandoc("epub")),
    "xlsx": Format("a spreadsheet", "Save it as CSV: `libreoffice --headless --convert-to csv {file}`."),
    "pptx": Format("a slide show", "Save it as PDF, then: `pdftotext FILE.pdf {txt}`."),
    "office": Format("an old Office document", "Convert it: `libreoffice --headless --convert-to txt:Text {file}`."),
    "gzip": Format("packed with gzip", "Unpack it: `gunzip < {file} > {txt}`."),
    "zip": Format("a ZIP archive", "Unpack it and name the folder: `unzip {file} -d FOLDER`."),
    "tar": Format("a tar archive", "Unpack it and name the folder: `mkdir FOLDER; tar -xf {file} -C FOLDER`."),
    "bzip2": Format("packed with bzip2", "Unpack it: `bunzip2 -k {file}`."),
    "xz": Format("packed with xz", "Unpack it: `xz -dk {file}`."),
    "zstd": Format("packed with zstd", "Unpack it: `zstd -d {file}`."),
    "7z": Format("a 7z archive", "Unpack it and name the folder: `7z x -oFOLDER {file}`."),
    "rar": Format("a RAR archive", "Unpack it and name the folder: `unrar x {file} FOLDER/`."),
    "sqlite": Format(
        "an SQLite database", "Take its text out: `sqlite3 -csv -header {file} 'select COLUMN from TABLE' > {csv}`."
    ),
    "arrow": Format(
        "an Arrow file",
        "Save it as Parquet, from Python: `datasets.Dataset.from_file(FILE).to_parquet('FILE.parquet')`.",
    ),
    "weights": Format("a file of weights"),
    "program": Format("a program"),
    "image": Format("an image"),
    "sound": Format("a sound or video file"),
    "binary": Format("binary data, not text"),
}
"""Every answer of `sniff`."""

RECORDS = ("jsonl", "json", "csv", "tsv", "parquet")
"""Formats of many documents, one column or field of which is the text."""

MARKUP = ("html", "xml", "rtf", "notebook", "json-object")
"""Formats that are text too, and could be trained on as they stand."""

QUOTING: dict[str, Literal[0, 3]] = {"csv": csv.QUOTE_MINIMAL, "tsv": csv.QUOTE_NONE}
"""In a CSV table quotes hold fields together; in a TSV table they are characters like others."""

_SIGNS: tuple[tuple[str, str], ...] = (
    (r"\x1f\x8b", "gzip"),
    (r"PK\x03\x04.{,200}mimetypeapplication/epub", "epub"),
    (r"PK\x03\x04.{,200}mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "xlsx"),
    (r"PK\x03\x04.{,200}mimetypeapplication/vnd.oasis.opendocument", "odt"),
    (r"PK\x03\x04.*word/", "docx"),
    (r"PK\x03\x04.*xl/", "xlsx"),
    (r"PK\x03\x04.*ppt/", "pptx"),
    (r"PK\x03\x04.*/data.pkl|\x93NUMPY|\x89HDF|GGUF|.{6}\0\0\{\"", "weights"),  # the last is safetensors
    (r"PK\x03\x04", "zip"),
    (r"PAR1", "parquet"),
    (r"ARROW1|\xff\xff\xff\xff", "arrow"),
    (r"SQLite format 3", "sqlite"),
    (r"BZh[1-9]", "bzip2"),
    (r"\xfd7zXZ", "xz"),
    (r"\x28\xb5\x2f\xfd", "zstd"),
    (r"7z\xbc\xaf", "7z"),
    (r"Rar!", "rar"),
    (r".{257}ustar", "tar"),
    (r"\xd0\xcf\x11\xe0", "office"),
    (r"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*|BM.{4}\0\0\0\0", "image"),
    (r"RIFF|ID3|OggS|fLaC|.{4}ftyp|\x1a\x45\xdf\xa3|\xff[\xfb\xf3\xf2]", "sound"),
    (r"\x7fELF|MZ|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe", "program"),
)
_SIGN = [(re.compile(sign.encode(), re.S), name) for sign, name in _SIGNS]
_MARKS = (  # UTF-32's byte order mark begins with UTF-16's
    (b"%PDF-", "pdf"),
    (b"{\\rtf", "rtf"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes({*range(32), 127} - set(b"\b\t\n\v\f\r\x1b"))
_STOPS = "\n\r\t\f ,.，。、"
_HTML = re.compile(r"(?:<\?xml[^>]*>\s*)?(?><!--.*?-->\s*)*+<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_NOTEBOOK = re.compile(
    r'\{\s*"(?:cells|metadata|nbformat|nbformat_minor)"\s*:.*(?<!\\)"(?:cell_type|nbformat)"\s*:', re.S
)
_COLUMN = re.compile(r'[A-Za-z_][\w.-]*|"[A-Za-z_][\w. -]*"')


def sniff(head: bytes) -> str:
    """Returns what a file is, as a key of `FORMATS`, from its first `HEAD_BYTES` bytes, or all of them.

    A table or records are called so only where prose could hardly look the same: JSON must be JSON, and a table must
    have a line of column names, and at least two rows of as many fields, one of which holds more than single words.
    """
    cut = len(head) >= HEAD_BYTES
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    text = _as_utf8(head, cut)
    if text is not None and b"\0" not in head:
        return _structure(text, cut)
    for sign, name in _SIGN:
        if sign.match(head):
            return name
    if b"\0" in head:
        return _wide(head, latin=text is not None)
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return "binary" if controls > 0.01 * len(head) else "8-bit"


def advice(found: str, file: str = "") -> str:
    """Returns the command that makes text of a file; "" where none does, or none is needed.

    Args:
        found: a key of `FORMATS`.
        file: its name, for the command; without one, the words IN and OUT stand in it.
    """
    path = PurePath(file or "IN")
    file = path.name and file  # "." and "/" have no name to give another suffix
    if path.suffix == ".gz" and FORMATS[found].advice and found != "gzip":
        return f"Unpack it: `gunzip -k {_quoted(str(path))}`. {advice(found, str(path.with_suffix('')))}"
    suffixes = {"utf8": f".utf8{path.suffix or '.txt'}", **{each: f".{each}" for each in ("txt", "jsonl", "csv")}}
    names = {each: str(path.with_suffix(suffix)) if file else "OUT" for each, suffix in suffixes.items()}
    return FORMATS[found].advice.format(**{each: _quoted(name) for each, name in {"file": str(path), **names}.items()})


def _quoted(path: str) -> str:
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def _as_utf8(head: bytes, cut: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=not cut)
    except UnicodeDecodeError:
        return None


def _wide(head: bytes, latin: bool) -> str:
    """UTF-16 or UTF-32 without a mark, or nothing that is text.

    Args:
        head: holds zero bytes.
        latin: whether it is UTF-8 but for them, so that every other byte must be zero, as they are in Latin letters.
    """
    for encoding, zero, low in (("utf-32-le", 3, 2), ("utf-32-be", 0, 1)):
        if len(head) >= 4 and not any(head[zero::4]) and max(head[low::4]) <= 0x10 and _stops(head, encoding, 4) >= 0:
            return encoding
    le, be = _stops(head, "utf-16-le", 2), _stops(head, "utf-16-be", 2)
    even, odd = (head[start::2].count(0) / len(head) for start in (0, 1))
    if le >= 0 and (odd > 0.2 > 10 * even or (not latin and le > be)):
        return "utf-16-le"
    if be >= 0 and (even > 0.2 > 10 * odd or (not latin and be > le)):
        return "utf-16-be"
    return "binary"


def _stops(head: bytes, encoding: str, width: int) -> int:
    """How many spaces, ends of lines and commas there are in the head, decoded; -1 if it does not decode to letters."""
    if len(head) % width and len(head) < HEAD_BYTES:
        return -1
    text = head[: len(head) // width * width].decode(encoding, errors="replace")
    wrong = sum(
        letter == "\ufffd" or (letter not in _STOPS and unicodedata.category(letter) in ("Cc", "Cn", "Co", "Cs"))
        for letter in text
    )
    few = min(1 + len(text) // 1000, len(text) // 4)  # the last one may be cut in two
    return sum(map(text.count, _STOPS)) if text and wrong <= few else -1


def _structure(text: str, cut: bool) -> str:
    """What text it is: prose, a page, records, a table."""
    start = text.lstrip()
    if start.startswith("<"):
        return "html" if _HTML.match(start) else "xml" if re.match(r"<\?xml\s", start) else "text"
    if start.startswith(("{", "[")):
        return _json(start, cut)
    return _table(start, cut)


def _json(text: str, cut: bool) -> str:
    """What JSON it is, if it is: lines, an array, a notebook, another object."""
    line, _, rest = text.partition("\n")
    if text[0] == "{":
        if _NOTEBOOK.match(text):
            return "notebook"
        first = is_json(line)
        if (first or (first is None and cut and not rest)) and rest.lstrip()[:1] in ("", "{"):
            return "jsonl"
    found = is_json(text)
    if found or (found is None and cut):
        return "json" if text[0] == "[" else "json-object"
    return "text"


def is_json(text: str) -> bool | None:
    """Whether a text is a JSON value and nothing more; None if it is the beginning of one."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return None if is_cut_off(error) else False
    except (ValueError, RecursionError):  # a number of many thousand digits, lists in lists in lists
        return False
    return True


def is_cut_off(error: json.JSONDecodeError) -> bool:
    """Whether JSON stops making sense only because the text ends there: more of it might be right."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(error.doc.rstrip()) - len('"\\ud83d\\ude0')


def _table(text: str, cut: bool) -> str:
    """`csv` or `tsv` for what can hardly be prose, else `text`."""
    lines = text.splitlines(keepends=True)
    lines = lines[:-1] if cut else lines
    for name, delimiter in (("tsv", "\t"), ("csv", ","), ("csv", ";")):
        if lines and is_header(lines[0], delimiter) and _is_table(lines, name, delimiter, cut):
            return name
    return "text"


def _is_table(lines: Iterable[str], name: str, delimiter: str, cut: bool) -> bool:
    rows = []
    try:
        for row in csv.reader(lines, strict=True, delimiter=delimiter, quoting=QUOTING[name]):
            rows += [row] if row else []
    except csv.Error:  # a head may end within quotes
        if not cut:
            return False
    names, *rows = rows
    if len(rows) < 2 or any(len(row) != len(names) for row in rows):
        return False
    wordy = [sum(" " in row[place].strip() for row in rows) for place in range(len(names))]
    return 2 * max(wordy) >= len(rows)


def is_header(line: str, delimiter: str) -> bool:
    """Whether a line looks like the names of a table's columns, all different."""
    names = line.rstrip("\r\n").split(delimiter)
    return len(names) > 1 and len(set(names)) == len(names) and all(map(_COLUMN.fullmatch, names))
