"""Words made fit to be shown: what a model writes, names of documents, places of files; and numbers of things.

Not here: how they are shown (a terminal: cli/text_views.py; a page: report/html.py).
"""

from __future__ import annotations

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


def visible(text: str) -> str:
    """Returns the text with control characters shown as their picture or number, so that nothing obeys a model."""
    return text.translate(CONTROLS)


def own_name(place: str) -> str:
    """Returns the last part of a path, of whichever system; a data set of the hub keeps its owner's name."""
    return place if place.startswith("hf:") and not place.startswith("hf:.") else PureWindowsPath(place).name or place


def counted(number: int, noun: str) -> str:
    """Returns a number of things in words: "1 step", "2,000 steps"."""
    return f"{number:,} {noun}" + "s" * (number != 1)
