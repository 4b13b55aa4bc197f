"""Words made fit to be shown: what a model writes, names of documents, places of files; and numbers of things.

Not here: how they are shown (a terminal: cli/text_views.py; a page: report/html.py).
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import PureWindowsPath

UNSEEN = (
    *(0x061C, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x206A), 0xFEFF),
    *range(0xE0000, 0xE0080),
)
"""Characters that take no place, or turn the direction of writing; the last range can hide a whole text. (Two
others without width, U+200C and U+200D, belong to the spelling of some languages.)"""

CONTROLS: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"},
    0x7F: "␡",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **{code: f"<U+{code:04X}>" for code in UNSEEN},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},  # a byte of a name that is not UTF-8
}
"""Control characters and halves of characters, and what is shown for them."""


ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_ESCAPE = re.compile(rb"\\(?:([nrt\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.?)", re.S)


_SPELLED = re.compile(r"(?<!\S)\$'([^']*)'")


def escape_control(text: str) -> str:
    """Returns the text with control characters shown as their picture or number, so that nothing obeys a model.

    A carriage return before a line feed is the same end of line, as on Windows, and is not shown.
    """
    return text.replace("\r\n", "\n").translate(CONTROLS)


def escaped(data: bytes) -> str:
    r"""Returns bytes as a text that shows each of them, and that `unescaped` turns back.

    What is printable stays. A byte that is no part of a character is \xNN, a character that cannot be seen \uNNNN.
    """
    names, parts = {meant: name for name, meant in ESCAPES.items()}, []
    for place, character in enumerate(data.decode("utf-8", "surrogateescape")):
        code = ord(character)
        alone = place == 0 and unicodedata.combining(character)  # an accent would sit on what stands before
        if character in names:
            parts.append(f"\\{names[character]}")
        elif character.isprintable() and not alone:
            parts.append(character)
        elif code <= 0x7F or 0xDC80 <= code <= 0xDCFF:
            parts.append(f"\\x{code & 0xFF:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
    return "".join(parts)


def unescaped(text: str) -> bytes:
    r"""Returns the bytes that a typed text means: \n, \r, \t, \\, \xNN (a byte), \uNNNN and \UNNNNNNNN (a character).

    Raises:
        ValueError: if a backslash begins none of these, or there is no such character.
    """

    def meant(found: re.Match[bytes]) -> bytes:
        name, byte, *codes = (group and group.decode() for group in found.groups())
        if name:
            return ESCAPES[name].encode()
        if byte:
            return bytes.fromhex(byte)
        code = codes[0] or codes[1] or "no character"
        return bytes.fromhex(code.zfill(8)).decode("utf-32-be").encode()  # half a surrogate pair is a ValueError too

    return _ESCAPE.sub(meant, text.encode("utf-8", "surrogateescape"))


def quoted(text: str) -> str:
    """Returns a text that holds no control characters in quotes that a shell takes off again."""
    if "'" in text and not set(text) & set('"$`\\!'):
        return f'"{text}"'
    return "'" + text.replace("'", r"\x27") + "'"


def shell_word(word: object) -> str:
    r"""Returns a word as a shell takes it; one with what cannot be printed as bash and zsh spell it: $'run\xff'."""
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + escaped(text.encode("utf-8", "surrogateescape")).replace("'", r"\x27") + "'"


def shell_line(words: Iterable[object]) -> str:
    """Returns words as a line for a shell."""
    return " ".join(map(shell_word, words))


def words_of(line: str) -> list[str]:
    """Returns the words of a line that `shell_line` made. Raises ValueError if it is none."""

    def plain(found: re.Match[str]) -> str:
        return shlex.quote(unescaped(found[1]).decode("utf-8", "surrogateescape"))

    return shlex.split(_SPELLED.sub(plain, line))


def display_name(place: str) -> str:
    """Returns the last part of a path, of whichever system; a data set of the hub keeps its owner's name."""
    return place if place.startswith("hf:") and not place.startswith("hf:.") else PureWindowsPath(place).name or place


def pluralize(number: int, noun: str, several: str | None = None) -> str:
    """Returns a number of things in words: "1 step", "2,000 steps"; `several` where an s does not make the plural."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
