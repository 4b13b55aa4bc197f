"""JSON values as the classes that wrote them, checked by msgspec where a file is read.

    estimate = validate(Estimate, {"value": 2.5, "interval": [2.4, 2.6]})

A dataclass or a TypedDict says by its annotations what a file must hold. files.py has refused NaN and infinity by then.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypeVar, cast, is_typeddict

from msgspec import Meta, ValidationError, convert

T = TypeVar("T")

Count: TypeAlias = Annotated[int, Meta(ge=0)]
NonNegative: TypeAlias = Annotated[float, Meta(ge=0)]


def validate(kind: type[T], value: Any) -> T:
    """Returns a JSON value as an instance of a class. Of a TypedDict, keys that it does not name are kept.

    Raises:
        ValueError: something is missing, or of another type.
    """
    try:
        converted: Any = convert(value, kind)
    except ValidationError as error:
        raise ValueError(str(error)) from None
    return cast(T, {**value, **converted} if is_typeddict(kind) else converted)
