"""Numbers as options: refused here is what would be rounded in silence, or fail far from where it was typed.

What a number may be in its own place (positive, a share) is that place's business.
"""

from __future__ import annotations

import math
from typing import Any, get_args

from cyclopts import App, ArgumentCollection

from minigpt.errors import ConfigError

SHOWN = 40
"""So many characters of what was typed are told."""


def check_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Called by cyclopts with every option of a command, before it makes values of what was typed.

    Raises:
        ConfigError: if what is given is no whole number of 64 bits where one is due, or no finite number where any is.
    """
    for argument in arguments:
        kinds = _kinds(argument.hint)
        for token in argument.tokens if kinds & {int, float} else ():
            if type(None) in kinds and token.value.lower() in ("none", "null"):
                continue
            whole = int in kinds
            if not (_is_whole(token.value) if whole else _is_finite(token.value)):
                seen = token.value if len(token.value) <= SHOWN else f"{token.value[:SHOWN]}..."
                what = f"{token.keyword or argument.name} takes a {'whole ' * whole}number"
                raise ConfigError(what, got=seen, remedy="Give one as 2, below 2^63." if whole else "Give one as 0.5.")


def _kinds(hint: Any) -> set[Any]:
    """Returns a type and those that it is made of: int and None of `list[int] | None`."""
    return {hint}.union(*map(_kinds, get_args(hint)))


def _is_whole(text: str) -> bool:
    try:
        return -(2**63) <= int(text) < 2**63
    except ValueError:
        return False


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
