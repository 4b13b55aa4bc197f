"""The standard library as text: parsed, never run, and readable."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from minigpt.data.pylib import library_code, library_documentation, module_documentation
from minigpt.errors import DataError

SOURCE = b'''
"""A module.

    Indented here,
        and more here.
"""
raise SystemExit("this must not run")

if True:
    def early(a, b=2, *rest: int, key="x", **more) -> str:
        """Comes first."""
        def inner():
            """Never shown."""

class Outer(Base, metaclass=Meta):
    """A class."""
    class Inner:
        def method(self, x):
            """Does it."""
        @classmethod
        def make(cls):
            "Makes one."
        def silent(self): ...
    async def wait(self): "Waits."
'''

PAGE = """\
# pkg.mod

A module.

Indented here,
    and more here.

## early(a, b=2, *rest: int, key='x', **more) -> str

Comes first.

## class Outer(Base)

A class.

## Outer.Inner.method(x)

Does it.

## Outer.Inner.make()

Makes one.

## Outer.wait()

Waits.
"""


def test_a_page_reads_as_documentation():
    assert module_documentation("pkg.mod", SOURCE) == PAGE


@pytest.mark.parametrize("source", [b"x = 1", b"", b"def f(:", b"\0"])
def test_a_module_without_documentation_gives_nothing(source: bytes):
    assert module_documentation("m", source) == ""


def test_the_library_is_there_and_about_as_large_as_said():
    pages = library_documentation()
    assert all(page.startswith(f"# {name}\n") for name, page in pages)
    names = {name for name, _ in pages}
    assert {"textwrap", "json", "asyncio.events", "if"} <= names
    assert 2_000_000 < sum(len(page.encode()) for _, page in pages) < 4_000_000
    assert not any("test" in name.split(".") for name in names)
    code = dict(library_code())
    assert 8_000_000 < sum(len(source.encode()) for source in code.values()) < 16_000_000
    assert "class TextWrapper" in code["textwrap"]


def test_a_python_without_sources_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python311.zip"))
    with pytest.raises(DataError, match=r"no sources.*python311\.zip"):
        list(library_code())
