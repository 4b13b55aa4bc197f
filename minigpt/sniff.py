"""What a file is, told from its first bytes: text, a table, a web page, an archive, another encoding.

One function for all bytes that come in: files to prepare, standard input, texts to evaluate, settings, prompts. File
names decide nothing here; what is not text comes with the command that converts it. Reading is in data/record_files.py.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import shlex
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal, NamedTuple

HEAD_BYTES = 2**16
"""How much of a file `sniff` needs, unless the file is shorter."""


class Format(NamedTuple):
    """What a file may turn out to be."""

    title: str  # what it is called, as "a PDF file"
    # the command that makes text of it. `{file}` is its name, `{txt}`, `{jsonl}` and `{csv}` the name of the result,
    # `{utf8}` the name of a result with the same suffix
    advice: str = ""


def _iconv(encoding: str) -> str:
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
    "utf-16": Format("text in UTF-16", _iconv("UTF-16")),
    "utf-16-le": Format("text in UTF-16 without a byte order mark", _iconv("UTF-16LE")),
    "utf-16-be": Format("text in UTF-16 without a byte order mark", _iconv("UTF-16BE")),
    "utf-32": Format("text in UTF-32", _iconv("UTF-32")),
    "8-bit": Format(
        "text in an older encoding, not in UTF-8",
        _iconv("WINDOWS-1252") + " That is for Western languages; others are CP1251, GB18030, SHIFT_JIS, ...",
    ),
    "html": Format("an HTML page", _pandoc("html")),
    "xml": Format("an XML file", "Extract its text with a tool for its kind of XML."),
    "notebook": Format("a Jupyter notebook", "Convert it: `jupyter nbconvert --to markdown {file}`."),
    "json-object": Format(
        "one JSON object, not a list of records", "Extract the list of records: `jq -c '.LIST[]' {file} > {jsonl}`."
    ),
    "rtf": Format("an RTF document", _pandoc("rtf")),
    "pdf": Format("a PDF file", "Convert it: `pdftotext {file} {txt}`."),
    "docx": Format("a Word document", _pandoc("docx")),
    "odt": Format("an OpenDocument text", _pandoc("odt")),
    "epub": Format("an EPUB book", _pandoc("epub")),
    "xlsx": Format("a spreadsheet", "Save it as CSV: `libreoffice --headless --convert-to csv {file}`."),
    "gzip": Format("compressed with gzip", "Unpack it: `gunzip < {file} > {txt}`."),
    "archive": Format("an archive or compressed file", "Unpack it, and name the files or the folder."),
    "binary": Format("binary data, not text"),
}
"""All results of `sniff`."""

RECORDS = ("jsonl", "json", "csv", "tsv", "parquet")
"""Formats of many documents, one column or field of which is the text."""

MARKUP = ("html", "xml", "rtf", "notebook", "json-object")
"""Formats that are text too, and could be trained on as they are."""

QUOTING: dict[str, Literal[0, 3]] = {"csv": csv.QUOTE_MINIMAL, "tsv": csv.QUOTE_NONE}
"""In a CSV table quotes enclose fields; in a TSV table they are ordinary characters."""

_SIGNATURES = [
    (re.compile(signature, re.S), name)
    for signature, name in (
        (rb"\x1f\x8b", "gzip"),
        (rb"PK\x03\x04.{,200}mimetypeapplication/epub", "epub"),
        (rb"PK\x03\x04.{,200}mimetypeapplication/vnd.oasis.opendocument.text", "odt"),
        (rb"PK\x03\x04.*word/", "docx"),
        (rb"PK\x03\x04.*xl/", "xlsx"),
        (rb"PAR1", "parquet"),
        (rb"PK\x03\x04|BZh[1-9]|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!|.{257}ustar", "archive"),
    )
]
_MARKS = (  # UTF-32's byte order mark begins with that of UTF-16
    (b"%PDF-", "pdf"),
    (b"{\\rtf", "rtf"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes({*range(32), 127} - set(b"\b\t\n\v\f\r\x1b"))
_HTML = re.compile(r"(?:<\?xml[^>]*>\s*)?(?><!--.*?-->\s*)*+<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_NOTEBOOK = re.compile(
    r'\{\s*"(?:cells|metadata|nbformat|nbformat_minor)"\s*:.*(?<!\\)"(?:cell_type|nbformat)"\s*:', re.S
)
_COLUMN = re.compile(r'[A-Za-z_][\w.-]*|"[A-Za-z_][\w. -]*"')


def sniff(head: bytes) -> str:
    """Returns what a file is, a key of `FORMATS`, from its first `HEAD_BYTES` bytes, or all of them.

    Tables and records are recognised only where prose could hardly look the same: JSON must be JSON, and a table must
    have a line of column names, and at least two rows of as many fields, one of which holds more than single words.
    """
    cut = len(head) >= HEAD_BYTES
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    text = _as_utf8(head, cut)
    if text is not None and b"\0" not in head:
        return _structure(text, cut)
    for signature, name in _SIGNATURES:
        if signature.match(head):
            return name
    if b"\0" in head:
        return next((name for name in ("utf-16-le", "utf-16-be") if _is_utf16(head, name, cut)), "binary")
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return "binary" if controls > 0.01 * len(head) else "8-bit"


def advice(found: str, file: str = "") -> str:
    """Returns how to make text of a file; "" where nothing does, or nothing is needed.

    Args:
        found: a key of `FORMATS`.
        file: its name, for the command; without one, the command has IN and OUT.
    """
    path = PurePath(file or "IN")
    file = path.name and file  # "." and "/" have no name to give another suffix
    if path.suffix == ".gz" and FORMATS[found].advice and found != "gzip":
        return f"Unpack it: `gunzip -k {_quoted(str(path))}`. {advice(found, str(path.with_suffix('')))}"
    suffixes = {"utf8": f".utf8{path.suffix or '.txt'}", **{each: f".{each}" for each in ("txt", "jsonl", "csv")}}
    names = {each: str(path.with_suffix(suffix)) if file else "OUT" for each, suffix in suffixes.items()}
    names = {
        each: f"{name}{suffixes[each]}" if name == file else name for each, name in names.items()
    }  # not onto itself
    return FORMATS[found].advice.format(**{each: _quoted(name) for each, name in {"file": str(path), **names}.items()})


def _quoted(path: str) -> str:
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def _as_utf8(head: bytes, cut: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=not cut)
    except UnicodeDecodeError:
        return None


def _is_utf16(head: bytes, encoding: str, cut: bool) -> bool:
    """Whether bytes are UTF-16 without a byte order mark: in mostly Latin text, every other byte is zero."""
    first, second = head[::2].count(0), head[1::2].count(0)
    zeros, others = (second, first) if encoding == "utf-16-le" else (first, second)
    if (len(head) % 2 and not cut) or not zeros / len(head) > 0.2 > 10 * others / len(head):
        return False
    text = head[: len(head) // 2 * 2].decode(encoding, errors="replace")
    return text.count("\ufffd") <= 1 and not any(letter < " " and not letter.isspace() for letter in text)


def _structure(text: str, cut: bool) -> str:
    """What kind of text it is: prose, a web page, records, a table."""
    start = text.lstrip()
    if start.startswith("<"):
        return "html" if _HTML.match(start) else "xml" if re.match(r"<\?xml\s", start) else "text"
    if start.startswith(("{", "[")):
        return _json(start, cut)
    return _table(start, cut)


def _json(text: str, cut: bool) -> str:
    """What kind of JSON it is, if any: lines, an array, a notebook, another object."""
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
    """Whether a text is exactly one JSON value; None if it is the beginning of one."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return None if is_cut_off(error) else False
    except (ValueError, RecursionError):  # a number of many thousand digits, lists in lists in lists
        return False
    return True


def is_cut_off(error: json.JSONDecodeError) -> bool:
    """Whether JSON is invalid only because the text ends there."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(error.doc.rstrip()) - len('"\\ud83d\\ude0')


def _table(text: str, cut: bool) -> str:
    """`csv` or `tsv` for what can hardly be prose; otherwise `text`."""
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
