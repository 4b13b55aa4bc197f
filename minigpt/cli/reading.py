"""The options that say how text is read, as `prepare` and `evaluate` show them."""

from __future__ import annotations

from dataclasses import replace

from cyclopts import Group, Parameter

from minigpt.cli.generate_options import unescape
from minigpt.source_options import SourceOptions

READING = Parameter(
    name="*", group=Group("What is read, and what is a document", sort_key=1), negative="", show_default=False
)


def source_options(typed: SourceOptions) -> SourceOptions:
    """Returns the options with escapes in --split-at as what they stand for."""
    return typed if typed.split_at is None else replace(typed, split_at=unescape(typed.split_at, "--split-at"))
