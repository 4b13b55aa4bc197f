"""The way of every message to a terminal or a log: nothing in it is obeyed.

Names of files, settings and documents, keys of JSON, errors of the system: any of them may hold what a terminal would
act on, or what turns the direction of writing. Here it is made visible, whatever is printed: text, a table, a live
view. Nothing else in the command line writes to the standard streams, but for two products: generated text keeps its
bytes in a pipe (generate_views.py), and `print_json` writes ASCII.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from minigpt.text_utils import escape_control


class Console(rich.console.Console):
    """rich's console, for text as it is: no markup, no emoji codes, no colours for numbers, nothing invisible."""

    def __init__(self, **settings: Any) -> None:
        """Takes rich's settings: `stderr`, `file`, `width`, `soft_wrap`, which is on unless it is switched off."""
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, "soft_wrap": True, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Returns a string as text of the width that it is going to have."""
        return super().render_str(escape_control(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields what is to be printed; sequences of rich's own, as those that move the cursor, stay what they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape_control(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Lets it be known that the reader went away, instead of ending the program here."""
        raise


def styled(*parts: str | tuple[str, str]) -> Text:
    """Returns text of which parts have a style; rich's own would swallow some control characters."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((escape_control(text), style) for text, style in pairs))


def say(message: RenderableType) -> None:
    """Prints a message to standard error, if that can be written: the work goes on without."""
    with suppress(OSError):
        Console(stderr=True).print(message)


def print_json(value: Any) -> None:
    """Prints a value as a line of JSON, at once; what is not ASCII, or no character to print, is escaped."""
    sys.stdout.write(json.dumps(value).replace("\x7f", "\\u007f") + "\n")
    sys.stdout.flush()
