"""A table as plain values, shown alike by the terminal and the report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: the columns' names.
        rows: their cells, as many as there are names.
        text_columns: columns aligned left; the others hold numbers and are aligned right.
        caption: what the table shows.
        highlighted: numbers of the rows that stand out.
        note: how to read it, shown below.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: Collection[int] = (0,)
    caption: str = ""
    highlighted: Collection[int] = ()
    note: str = ""
