"""Nothing that a stranger wrote becomes a part of the page but words."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.report.html import Html, element, folded, join, name, shown, table

NASTY = [
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "javascript:alert(1)",
    "&lt;b&gt; &amp;",
    "<!-- ]]> -->",
    "a\0b\x1b[31mc\x7f",
    "\u202egnp.exe\u2066 \ufeff",
    "\ud800 \uffff \ufdd0",
    "x" * 100_000,
]


class Words(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.said = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.said += data


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_words_stay_words(text):
    page = Words(element("p", text, title=text).text)
    assert page.tags == ["p"]
    assert page.attributes == [("title", shown(text))]
    assert page.said == shown(text)


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_comes_back_as_it_is_shown(text):
    made = element("b", text).text
    assert html.unescape(made.removeprefix("<b>").removesuffix("</b>")) == shown(text)
    assert made.encode("utf-8")


def test_control_characters_and_turned_text_become_visible():
    assert shown("a\0\x1b\u202eb\n\tc") == "a␀␛<U+202E>b\n\tc"
    assert shown("\ud83d \uffff") == "\ufffd \ufffd"
    assert shown("שלום 👋 ไทย") == "שלום 👋 ไทย"


def test_attributes_are_left_out_or_bare():
    assert element("details", open=True, id=None, hidden=False).text == "<details open></details>"
    assert element("th", 3, class_="number", http_equiv="x").text == '<th class="number" http-equiv="x">3</th>'


def test_nothing_leads_out_of_the_page():
    for attributes in ({"href": "https://example.org"}, {"href": "javascript:alert(1)"}, {"src": "data:,"}):
        with pytest.raises(AssertionError):
            element("a", **attributes)
    assert element("a", "there", href="#there").text == '<a href="#there">there</a>'


def test_pieces_are_joined_in_order():
    assert join(["a<", None, [Html("<br>"), 7]]).text == "a&lt;<br>7"
    assert name("<x>").text == "<bdi>&lt;x&gt;</bdi>"


def test_a_table_puts_words_left_and_numbers_right_and_marks_rows():
    made = table(["what", "how many"], [["a&b", "1"], ["c", "2"]], caption="<c>", marked=[1]).text
    assert "<caption>&lt;c&gt;</caption>" in made
    assert '<td class="words">a&amp;b</td><td class="number">1</td>' in made
    assert '<tr class="marked"><td class="words">c</td>' in made
    with pytest.raises(ValueError, match="argument"):
        table(["one"], [["a", "b"]])


def test_folded_text_is_open_when_asked():
    assert folded("s", "x").text == "<details><summary>s</summary>x</details>"
    assert folded("s", "x", opened=True).text.startswith("<details open>")


@pytest.mark.parametrize("code", [0x061C, 0x2060, 0x2064, 0x200B, 0x202E, 0x2069, 0xFEFF, 0xE0000, 0xE0041, 0xE007F])
def test_signs_that_hide_or_turn_words_become_visible(code):
    assert element("p", f"a{chr(code)}b").text == f"<p>a&lt;U+{code:04X}&gt;b</p>"
