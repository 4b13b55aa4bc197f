"""Making text safe to show: model output, names of documents, paths; and counting things in words.

How text is then shown is elsewhere: on a terminal in cli/, on a page in report/.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import PureWindowsPath

INVISIBLE = (
    *(0x061C, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x206A), 0xFEFF),
    *range(0xE0000, 0xE0080),
)
"""Characters without width, or that change the direction of writing; the last range can hide a whole text. (Two others
without width, U+200C and U+200D, belong to the spelling of some languages.)"""

CONTROLS: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"},
    0x7F: "␡",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **{code: f"<U+{code:04X}>" for code in INVISIBLE},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},  # a byte of a file name that is not UTF-8
}
"""Control characters and surrogates, and what is shown in their place."""

ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_ESCAPE = re.compile(rb"\\(?:([nrt\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.?)", re.S)
_ANSI_C_QUOTED = re.compile(r"(?<!\S)\$'([^']*)'")


def escape_control(text: str) -> str:
    """Returns the text with control characters made visible, so that no terminal obeys them.

    A carriage return before a line feed is part of a Windows line end, and is dropped.
    """
    return text.replace("\r\n", "\n").translate(CONTROLS)


def escaped(data: bytes) -> str:
    r"""Returns bytes as text in which each of them is visible, and which `unescaped` turns back.

    Printable characters stay. A byte that is not part of a character becomes \xNN, an invisible character \uNNNN.
    """
    names, parts = {character: name for name, character in ESCAPES.items()}, []
    for place, character in enumerate(data.decode("utf-8", "surrogateescape")):
        code = ord(character)
        detached = place == 0 and unicodedata.combining(character)  # an accent would combine with what comes before
        if character in names:
            parts.append(f"\\{names[character]}")
        elif character.isprintable() and not detached:
            parts.append(character)
        elif code <= 0x7F or 0xDC80 <= code <= 0xDCFF:
            parts.append(f"\\x{code & 0xFF:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
    return "".join(parts)


def unescaped(text: str) -> bytes:
    r"""Returns the bytes of a text with escapes: \n, \r, \t, \\, \xNN (a byte), \uNNNN and \UNNNNNNNN (a character).

    Raises:
        ValueError: a backslash begins none of these, or the character does not exist.
    """

    def replace(found: re.Match[bytes]) -> bytes:
        name, byte, *codes = (group and group.decode() for group in found.groups())
        if name:
            return ESCAPES[name].encode()
        if byte:
            return bytes.fromhex(byte)
        code = codes[0] or codes[1] or "no character"
        return bytes.fromhex(code.zfill(8)).decode("utf-32-be").encode()  # a surrogate is a ValueError too

    return _ESCAPE.sub(replace, text.encode("utf-8", "surrogateescape"))


def quoted(text: str) -> str:
    """Returns a text without control characters in quotes that a shell removes again."""
    if "'" in text and not set(text) & set('"$`\\!'):
        return f'"{text}"'
    return "'" + text.replace("'", r"\x27") + "'"


def shell_word(word: object) -> str:
    r"""Returns a word quoted for a shell; unprintable characters as in bash and zsh: $'run\xff'."""
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + escaped(text.encode("utf-8", "surrogateescape")).replace("'", r"\x27") + "'"


def shell_line(words: Iterable[object]) -> str:
    """Returns words as a command line."""
    return " ".join(map(shell_word, words))


def words_of(line: str) -> list[str]:
    """Returns the words of a line that `shell_line` made. Raises ValueError for another."""

    def plain(found: re.Match[str]) -> str:
        return shlex.quote(unescaped(found[1]).decode("utf-8", "surrogateescape"))

    return shlex.split(_ANSI_C_QUOTED.sub(plain, line))


def display_name(path: str) -> str:
    """Returns the last part of a path, of any system; a data set of the hub keeps its owner: `hf:owner/name`."""
    return path if path.startswith("hf:") and not path.startswith("hf:.") else PureWindowsPath(path).name or path


def pluralize(number: int, noun: str, plural: str | None = None) -> str:
    """Returns a count in words: "1 step", "2,000 steps"; `plural` where an s does not make it."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
