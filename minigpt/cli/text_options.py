"""How text is read: the options of `prepare` and `evaluate` on the command line."""

from __future__ import annotations

from dataclasses import replace

from cyclopts import Group, Parameter

from minigpt.cli.generate_options import unescape
from minigpt.source_options import SourceOptions

TEXT_OPTIONS = Parameter(
    name="*", group=Group("What is read, and what is a document", sort_key=1), negative="", show_default=False
)


def unescaped_options(typed: SourceOptions) -> SourceOptions:
    r"""Returns the options with escapes such as \n in --split-at resolved."""
    return typed if typed.split_at is None else replace(typed, split_at=unescape(typed.split_at, "--split-at"))
