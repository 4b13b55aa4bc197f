"""Values of JSON as classes: what fits is made, what does not is refused with its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import pytest

from minigpt.shape import Signed, SignedInt, typed


@dataclass(frozen=True)
class Inner:
    loss: float
    mean: Signed = 0.0


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    inner: Inner
    side: Literal["left", "right"] = "left"
    seed: SignedInt = 0
    pair: tuple[Signed, Signed] | None = None
    groups: tuple[Inner, ...] = ()
    named: dict[str, Inner] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    anything: Any = None
    best: bool = False


class Note(TypedDict):
    folder: str
    splits: Mapping[str, Inner]


INNER = {"loss": 2.5}
OUTER = {"name": "a", "count": 0, "inner": INNER}


def test_a_class_is_made_of_its_json():
    assert typed(Outer, OUTER) == Outer("a", 0, Inner(2.5))
    whole = {
        "side": "right",
        "seed": -1,
        "pair": [-1, 2.0],
        "groups": [INNER, {"loss": 1, "mean": -3}],
        "named": {"x": INNER},
        "rest": ["b"],
        "anything": {"c": [None]},
        "best": True,
    }
    assert typed(Outer, {**OUTER, **whole}) == Outer(
        "a",
        0,
        Inner(2.5),
        "right",
        -1,
        (-1, 2.0),
        (Inner(2.5), Inner(1, -3)),
        {"x": Inner(2.5)},
        ["b"],
        {"c": [None]},
        True,
    )


def test_a_dictionary_stays_one_and_keeps_what_is_not_named():
    assert typed(Note, {"folder": "\udcff", "splits": {}, "else": [1]}) == {
        "folder": "\udcff",
        "splits": {},
        "else": [1],
    }
    with pytest.raises(ValueError, match="lacks 'splits'"):
        typed(Note, {"folder": ""})
    with pytest.raises(ValueError, match="'loss' is -1"):
        typed(Note, {"folder": "", "splits": {"train": {"loss": -1}}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 5),
        ("name", None),
        ("count", -1),
        ("count", 1.0),
        ("count", True),
        ("count", "1"),
        ("inner", []),
        ("inner", {}),
        ("inner", {"loss": -0.5}),
        ("inner", {"loss": float("nan")}),
        ("inner", {"loss": float("inf")}),
        ("inner", {"loss": None}),
        ("inner", {"loss": 1, "more": 2}),
        ("side", "middle"),
        ("side", []),
        ("seed", 0.5),
        ("pair", [1]),
        ("pair", [1, "2"]),
        ("pair", {}),
        ("groups", {"0": INNER}),
        ("groups", [INNER, 3]),
        ("named", [INNER]),
        ("named", {"x": 1}),
        ("rest", [1]),
        ("rest", "b"),
        ("best", 1),
        ("surplus", 1),
    ],
)
def test_what_does_not_fit_is_refused(name, value):
    with pytest.raises(ValueError, match=r"is .*, not |lacks|not known"):
        typed(Outer, {**OUTER, name: value})


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(ValueError, match="not an object"):
        typed(Outer, value)


def test_a_message_is_short_and_printable():
    with pytest.raises(ValueError, match="'name' is ") as caught:
        typed(Outer, {**OUTER, "name": ["\x1b" * 1000]})
    assert len(str(caught.value)) < 100
    assert str(caught.value).isprintable()
