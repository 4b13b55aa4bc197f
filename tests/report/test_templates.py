"""Untrusted text never becomes markup: what the templates do with names, samples, cells and notes."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from minigpt.report.page import VISIBLE, render_template
from minigpt.report.table_section import TableSection
from minigpt.tables import Table

NASTY = [
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "javascript:alert(1)",
    "&lt;b&gt; &amp;",
    "<!-- ]]> -->",
    "{{ 7 * 7 }} {% raw %} {# x",
    "a\0b\x1b[31mc\x7f",
    "\u202egnp.exe\u2066 \ufeff",
    "\ud800 \uffff \ufdd0",
    "x" * 100_000,
]


class Words(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.said = set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.said.append(data)


def shown(text: str) -> str:
    return html.unescape(text.replace("&", "&amp;").replace("<", "&lt;").replace("\r\n", "\n").translate(VISIBLE))


def tables(text: str) -> str:
    """Returns a section with a text in every place that there is."""
    table = Table([text, text], [[text, text]], caption=text, highlighted=[0], note=text)
    section = TableSection(text.replace("`", ""), [table], [(text, table)], [(text, text)])
    return render_template("tables.html", s=section, labels=["a", "b"])


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_text_stays_text(text):
    plain, page = Words(tables("x")), Words(tables(text))
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes
    assert [part for part in page.said if part.strip()].count(shown(text)) == 16


@given(st.text(alphabet=st.characters(), min_size=1, max_size=60))
def test_any_text_comes_back_as_it_is_shown(text):
    made = render_template("overview.html", labels=[text], overview=OVERVIEW)
    assert html.unescape(made.partition("<bdi>")[2].partition("</bdi>")[0]) == f"Report of {shown(text)}"
    assert made.encode("utf-8")


OVERVIEW = {"runs": [], "tiles": [], "comparison": [], "warnings": [], "missing": []}


def test_control_characters_and_turned_text_become_visible():
    made = tables("a\0\x1b\u202eb\n\tc\r\nd \ud83d \uffff שלום 👋 ไทย")
    assert "a␀␛&lt;U+202E&gt;b\n\tc\nd \ufffd \ufffd שלום 👋 ไทย" in made


@pytest.mark.parametrize("code", [0x061C, 0x2060, 0x2064, 0x200B, 0x202E, 0x2069, 0xFEFF, 0xE0000, 0xE0041, 0xE007F])
def test_characters_that_hide_or_reorder_text_become_visible(code):
    assert f'<td class="text">a&lt;U+{code:04X}&gt;b</td>' in tables(f"a{chr(code)}b")


def test_text_is_left_and_numbers_are_right_and_rows_are_highlighted():
    table = Table(["what", "how many"], [["a&b", "1"], ["c", "2"]], caption="<c>", highlighted=[1])
    made = render_template("tables.html", s=TableSection(tables=[table]), labels=["a"])
    assert "<caption>&lt;c&gt;</caption>" in made
    assert '<td class="text">a&amp;b</td><td class="number">1</td>' in made
    assert '<tr class="highlighted"><td class="text">c</td>' in made


def test_what_stands_between_backticks_is_code():
    made = render_template("tables.html", s=TableSection("Type `minigpt train <x>` now"), labels=["a"])
    assert "<p>Type <code>minigpt train &lt;x&gt;</code> now</p>" in made


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError):
        render_template("tables.html", s={}, labels=[])
