"""Numbers as people write them in a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from minigpt.text_utils import pluralize

MISSING = "–"


def format_number(value: float, form: str | Callable[[float], str] = "{:,.3f}") -> str:
    """Returns a number as a format string or a function writes it, or a dash if it is not finite."""
    if not math.isfinite(value):
        return MISSING
    return form(value) if callable(form) else form.format(value)


def amount(value: float) -> str:
    """Returns a large number in three digits and a word: `1.31 million`."""
    if not math.isfinite(value):
        return MISSING
    rounded = float(f"{value:.3g}")
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= 1e6 and abs(rounded) >= size:
            count = rounded / size
            return f"{count:,.0f} {word}" if abs(count) >= 100 else f"{count:.3g} {word}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    if not math.isfinite(seconds):
        return MISSING
    for unit, word in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {word}"
    return pluralize(round(seconds), "second")


def memory(size: float) -> str:
    """Returns a number of bytes."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else format_number(size / 1e6, "{:,.0f} MB")


def enumerate_words(words: Sequence[str]) -> str:
    """Returns words as a list within a sentence: `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
