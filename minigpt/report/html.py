"""HTML that is safe by the way it is made: an element takes words, and escapes them; only `Html` passes as it is.

Nothing else in this package writes a tag. Control characters become visible, what no page can hold becomes U+FFFD,
and addresses lead nowhere but to a part of the page itself.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from minigpt.text_utils import escape_control

VOID = ("meta", "br", "col")
NO_CHARACTER = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Halves of surrogate pairs, and what Unicode will never give a meaning."""


@dataclass(frozen=True)
class Html:
    """A piece of a page, ready as it is."""

    text: str


Child: TypeAlias = "Html | str | int | Iterable[Child] | None"
Attribute: TypeAlias = str | int | bool | None


def shown(words: str) -> str:
    """Returns words with nothing in them that steers a page, a terminal or an XML file."""
    return NO_CHARACTER.sub("\ufffd", escape_control(words))


def element(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """Returns an element.

    Args:
        tag: its name.
        children: words, which are escaped; elements; several of either; None for nothing.
        attributes: names to values, which are escaped; `class_` is `class`, other underscores are hyphens. True gives
            the bare name, None and False give nothing.
    """
    assert "src" not in attributes, "the page holds all that it shows"
    assert str(attributes.get("href", "#")).startswith("#"), "the page leads nowhere else"
    opening = "".join([f"<{tag}", *(_attribute(name, value) for name, value in attributes.items()), ">"])
    return Html(opening if tag in VOID else f"{opening}{join(children).text}</{tag}>")


def join(children: Child) -> Html:
    """Returns several pieces as one."""
    if isinstance(children, Html):
        return children
    if children is None:
        return Html("")
    if isinstance(children, str | int):
        return Html(html.escape(shown(str(children))))
    return Html("".join(join(child).text for child in children))


def name(words: str) -> Html:
    """Returns a stranger's name within a sentence: it may be written from right to left without turning the rest."""
    return element("bdi", words)


def with_code(sentence: str) -> list[Child]:
    """Returns a sentence, with what stands between backticks as code."""
    return [element("code", part) if place % 2 else part for place, part in enumerate(sentence.split("`"))]


def table(
    head: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    words: Sequence[int] = (0,),
    caption: str | None = None,
    marked: Iterable[int] = (),
) -> Html:
    """Returns a table.

    Args:
        head: the columns' names.
        rows: their cells.
        words: the columns that hold words; the others hold numbers, and stand to the right.
        caption: what the table is about.
        marked: the rows that stand out.
    """
    sides = ["words" if place in words else "number" for place in range(len(head))]
    standing_out = set(marked)
    body = [
        element(
            "tr",
            [element("td", cell, class_=side) for cell, side in zip(row, sides, strict=True)],
            class_="marked" if number in standing_out else None,
        )
        for number, row in enumerate(rows)
    ]
    top = element("tr", [element("th", cell, class_=side, scope="col") for cell, side in zip(head, sides, strict=True)])
    parts = [element("caption", caption) if caption else None, element("thead", top), element("tbody", body)]
    return element("div", element("table", parts), class_="scroll", tabindex=0)


def folded(summary: Child, *children: Child, opened: bool = False) -> Html:
    """Returns what a reader folds away, or asks for."""
    return element("details", element("summary", summary), children, open=opened)


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{html.escape(shown(str(value)))}"'
