"""Words made fit to be shown, and typed again."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.text_utils import escaped, pluralize, quoted, unescaped


@given(st.binary(max_size=12) | st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_all_bytes_can_be_shown_and_typed(data):
    shown = escaped(data)
    assert unescaped(shown) == data
    assert shown.isprintable()
    assert unescaped(shlex.split(quoted(shown))[0]) == data


@given(st.text(max_size=20))
def test_what_holds_no_backslash_means_itself(text):
    plain = text.replace("\\", "/").encode("utf-8", "replace").decode()
    assert unescaped(plain).decode() == plain


def test_escapes():
    assert unescaped(r"a\r\n\t\\n\x41\u00e9\U0001F600\xc3\xa9") == "a\r\n\t\\nAé😀é".encode()
    assert escaped("\u0301e\u0301 \u00a0\u200d\U000e0041é".encode() + b"\xc3") == (
        "\\u0301e\u0301 \\u00a0\\u200d\\U000e0041é\\xc3"
    )


@pytest.mark.parametrize("text", ["\\", r"\q", r"\x4", r"\xgg", r"\ud800", r"\U00110000", r"\U7fffffff", r"\é"])
def test_what_is_no_escape_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        unescaped(text)


def test_quotes_are_those_of_a_shell():
    assert [quoted(text) for text in (" the", "'s", "'\"")] == ["' the'", '"\'s"', "'\\x27\"'"]


def test_things_are_counted():
    assert [pluralize(number, "copy", "copies") for number in (0, 1, 2000)] == ["0 copies", "1 copy", "2,000 copies"]
    assert [pluralize(number, "step") for number in (1, 2)] == ["1 step", "2 steps"]
