"""JSON values as classes: what fits is converted, what does not is refused with its place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import pytest

from minigpt.schema import Count, NonNegative, validate


@dataclass(frozen=True)
class Inner:
    loss: NonNegative
    mean: float = 0.0


@dataclass(frozen=True)
class Outer:
    name: str
    count: Count
    inner: Inner
    side: Literal["left", "right"] = "left"
    seed: int = 0
    pair: tuple[float, float] | None = None
    groups: tuple[Inner, ...] = ()
    named: dict[str, Inner] = field(default_factory=dict)
    best: bool = False


class Note(TypedDict):
    folder: str
    splits: Mapping[str, Inner]


INNER = {"loss": 2.5}
OUTER = {"name": "a", "count": 0, "inner": INNER}


def test_a_class_is_made_of_its_json():
    assert validate(Outer, OUTER) == Outer("a", 0, Inner(2.5))
    rest = {"side": "right", "seed": -1, "pair": [-1, 2.0], "groups": [INNER], "named": {"x": INNER}, "best": True}
    expected = Outer("a", 0, Inner(2.5), "right", -1, (-1, 2.0), (Inner(2.5),), {"x": Inner(2.5)}, True)
    assert validate(Outer, {**OUTER, **rest}) == expected


def test_a_dictionary_keeps_keys_that_its_class_does_not_name():
    note = {"folder": "\udcff", "splits": {}, "else": [1]}
    assert validate(Note, note) == note
    with pytest.raises(ValueError, match="missing required field `splits`"):
        validate(Note, {"folder": ""})
    with pytest.raises(ValueError, match=r"Expected `float` >= 0.0 - at `\$.splits\[...\].loss`"):
        validate(Note, {"folder": "", "splits": {"\x1b": {"loss": -1}}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("name", value) for value in (5, None)),
        *(("count", value) for value in (-1, 1.0, True, "1")),
        *(("inner", value) for value in ([], {}, {"loss": -0.5}, {"loss": float("nan")}, {"loss": None})),
        *(("side", value) for value in ("middle", [])),
        *(("pair", value) for value in ([1], [1, "2"], {})),
        *(("groups", value) for value in ({"0": INNER}, [INNER, 3])),
        *(("named", value) for value in ([INNER], {"x": 1})),
        *(("seed", 0.5), ("best", 1)),
    ],
)
def test_what_does_not_fit_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"\$\.{name}"):
        validate(Outer, {**OUTER, name: value})


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_only_an_object_is_an_object(value):
    with pytest.raises(ValueError, match="Expected `object`"):
        validate(Outer, value)
