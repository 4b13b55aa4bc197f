"""Values of JSON as the classes that wrote them: every file is checked once, where it is read, and by one function.

    Estimate = typed(Estimate, {"value": 2.5, "interval": [2.4, 2.6]})

A class (a dataclass, or a TypedDict where the value stays a dictionary) says by its hints what there must be. Numbers
are finite and not negative, but for those that are `Signed`: all that is counted and measured here is so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

Kind = TypeVar("Kind")

Signed: TypeAlias = Annotated[float, "signed"]
SignedInt: TypeAlias = Annotated[int, "signed"]
"""Numbers that may be negative."""

WORDS = {str: "text", bool: "true or false", int: "a whole number from 0 on", float: "a number from 0 on"}


def typed(kind: type[Kind], value: object) -> Kind:
    """Returns a value of JSON as a class describes it.

    Raises:
        ValueError: it lacks something, or holds what the class has not (a dataclass only), or of another type.
    """
    return cast(Kind, _typed(kind, value, "it"))


def _typed(kind: Any, value: Any, name: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or (kind in (str, bool) and type(value) is kind):
        return value
    if origin is Annotated:
        kind = inner[0]
    if kind in (int, float) and type(value) in (int, kind) and math.isfinite(value) and (origin or value >= 0):
        return value
    if origin in (Union, UnionType):
        kinds = [each for each in inner if each is not NoneType]
        return None if value is None and len(kinds) < len(inner) else _typed(kinds[0], value, name)
    if origin is Literal and value in inner:
        return value
    if isinstance(value, dict):
        if is_dataclass(kind) or is_typeddict(kind):
            return _object(kind, value)
        if origin in (dict, Mapping):
            return {key: _typed(inner[1], each, repr(key)) for key, each in value.items()}
    if isinstance(value, list):
        if origin is list or (origin is tuple and inner[-1] is ...):
            return origin(_typed(inner[0], each, f"{name}[{place}]") for place, each in enumerate(value))
        if origin is tuple and len(inner) == len(value):
            return tuple(_typed(one, each, name) for one, each in zip(inner, value, strict=True))
    words = WORDS.get(kind) or ("an array" if origin in (list, tuple) else "an object")
    raise ValueError(f"{name} is {repr(value)[:50]}, not {words}")


def _object(kind: Any, value: dict[str, Any]) -> Any:
    hints, needed = _fields(kind)
    if missing := needed - value.keys():
        raise ValueError(f"it lacks {min(missing)!r}")
    if is_dataclass(kind) and (surplus := value.keys() - hints.keys()):
        raise ValueError(f"it holds {min(surplus)[:50]!r}, which is not known")
    found = {name: _typed(hints[name], each, repr(name)) if name in hints else each for name, each in value.items()}
    return kind(**found)  # a TypedDict is a dictionary


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Returns the hints of a class, and the names of what has no default."""
    hints = get_type_hints(kind, include_extras=True)
    given = fields(kind) if is_dataclass(kind) else ()
    defaults = {each.name for each in given if not (each.default is each.default_factory is MISSING)}
    return hints, frozenset(hints.keys() - defaults)
