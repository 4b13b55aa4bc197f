"""The content of a section that consists of text and tables (templates/tables.html)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.tables import Table


@dataclass(frozen=True)
class TableSection:
    """What such a section shows, in this order.

    Attributes:
        text: a paragraph; code between backticks.
        tables: the tables.
        folded: tables that the reader can unfold, with a title each.
        notes: texts, each with the name of its run.
    """

    text: str = ""
    tables: Sequence[Table] = ()
    folded: Sequence[tuple[str, Table]] = ()
    notes: Sequence[tuple[str, str]] = ()
