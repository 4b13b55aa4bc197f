"""Numbers as options: refuses what would be silently rounded, or fail far from where it was typed."""

from __future__ import annotations

import math
from typing import Any, get_args

from cyclopts import App, ArgumentCollection

from minigpt.errors import ConfigError

SHOWN_CHARACTERS = 40


def check_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Called by cyclopts with all options of a command, before it converts them.

    Raises:
        ConfigError: if a value is not a 64-bit integer where one is expected, or not a finite number.
    """
    for argument in arguments:
        types = _types(argument.hint)
        for token in argument.tokens if types & {int, float} else ():
            if type(None) in types and token.value.lower() in ("none", "null"):
                continue
            whole = int in types
            if not (_is_int64(token.value) if whole else _is_finite(token.value)):
                value = token.value[:SHOWN_CHARACTERS] + "..." * (len(token.value) > SHOWN_CHARACTERS)
                what = f"{token.keyword or argument.name} takes a {'whole ' * whole}number"
                raise ConfigError(
                    what, got=value, remedy="Give one below 2^63, such as 2." if whole else "Give one such as 0.5."
                )


def _types(hint: Any) -> set[Any]:
    """Returns a type and those that it consists of: int and None for `list[int] | None`."""
    return {hint}.union(*map(_types, get_args(hint)))


def _is_int64(text: str) -> bool:
    try:
        return -(2**63) <= int(text) < 2**63
    except ValueError:
        return False


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
