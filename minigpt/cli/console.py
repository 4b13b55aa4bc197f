"""Printing, with control characters escaped: no text that is printed can steer the terminal.

Names of files, settings and documents, keys of JSON and messages of the system may all contain escape sequences or
characters that change the direction of writing. The console escapes them in everything it prints: text, tables, live
views. Nothing else in the command line writes to the standard streams, with two exceptions: generated text keeps its
bytes in a pipe (generate_views.py), and `print_json` writes ASCII.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from minigpt.tables import Table
from minigpt.text_utils import escape_control


class Console(rich.console.Console):
    """rich's console for literal text: no markup, no emoji codes, no highlighting, control characters escaped."""

    def __init__(self, **settings: Any) -> None:
        """Takes rich's settings, such as `stderr`, `file` and `width`; `soft_wrap` is on by default."""
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, "soft_wrap": True, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Returns a string as text, escaped, so that its width is measured as printed."""
        return super().render_str(escape_control(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields escaped segments; rich's own control sequences, such as cursor movements, stay as they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape_control(segment.text), segment.style)

    def print_table(self, table: Table) -> None:
        """Prints a table and an empty line: text to the left, numbers to the right."""
        from rich.table import Table as RichTable

        made = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for number, title in enumerate(table.header):
            side: Literal["left", "right"] = "left" if number in table.text_columns else "right"
            made.add_column(title, justify=side, no_wrap=number != len(table.header) - 1, overflow="ellipsis")
        for row in table.rows:
            made.add_row(*row)
        self.print(made)
        self.print()

    def on_broken_pipe(self) -> None:
        """Raises instead of exiting here."""
        raise


def styled(*parts: str | tuple[str, str]) -> Text:
    """Returns text whose parts may have a style. (rich's own function drops some control characters.)"""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((escape_control(text), style) for text, style in pairs))


def say(message: RenderableType) -> None:
    """Prints a message to standard error; errors of writing are ignored."""
    with suppress(OSError):
        Console(stderr=True).print(message)


def print_json(value: Any) -> None:
    """Prints a value as one line of ASCII JSON, and flushes."""
    sys.stdout.write(json.dumps(value).replace("\x7f", "\\u007f") + "\n")
    sys.stdout.flush()
