"""Text that is on every machine: the standard library of the running Python.

`pylib` is its documentation: every module's, class's and function's, under their signatures, and the reference topics
behind `help()`; 0.8 million GPT-2 tokens of technical English. `pylib-code` is its source, 5.2 million tokens. A module
is a document. The files are parsed, never imported; tests and third-party packages are skipped.

The text differs a little from one Python version to the next.
"""

from __future__ import annotations

import ast
import io
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from minigpt.errors import DataError

# `pydoc_data` is one long literal whose text `pylib` has in a readable form.
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "pydoc_data"}
_TOPICS = "pydoc_data/topics.py"

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def library_code() -> Iterator[tuple[str, str]]:
    """The name and the source of every module of the standard library, in the order of their names.

    Raises:
        DataError: this Python comes without the sources of its library.
    """
    for name, source in _modules():
        encoding = tokenize.detect_encoding(io.BytesIO(source).readline)[0]
        yield name, source.decode(encoding, errors="replace")


@cache
def library_documentation() -> tuple[tuple[str, str], ...]:
    """The name and the documentation of every module that has some, then the reference topics.

    Cached (2.6 MB): parsing 11 MB of source takes seconds, and preparing reads it two or three times.

    Raises:
        DataError: this Python comes without the sources of its library.
    """
    pages = [(name, module_documentation(name, source)) for name, source in _modules()]
    topics = _library() / _TOPICS
    if topics.is_file():
        pages += _topics(topics.read_bytes())
    return tuple((name, page) for name, page in pages if page)


def module_documentation(name: str, source: bytes) -> str:
    """A module's documentation as a page: headings with signatures, each followed by its docstring.

    Args:
        name: the module's dotted name.
        source: its source; it is parsed and not run.

    Returns:
        The page, or an empty string if nothing in the module is documented or it does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old modules have "\d" in plain strings
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return ""
    page = _Page(name)
    page.visit(tree)
    return "\n\n".join(page.parts) + "\n" if page.n_documented else ""


class _Page(ast.NodeVisitor):
    """Collects what is documented, in the order of the source."""

    def __init__(self, module: str) -> None:
        self.parts = [f"# {module}"]
        self.n_documented = 0
        self._classes: list[str] = []

    def visit_Module(self, node: ast.Module) -> None:
        self._add(node)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        name = ".".join([*self._classes, node.name])
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        self._add(node, f"## class {name}({bases})" if bases else f"## class {name}")
        self._classes.append(node.name)
        self.generic_visit(node)
        self._classes.pop()

    def visit_FunctionDef(self, node: _Function) -> None:
        arguments = ast.unparse(node.args)
        for own in ("self", "cls"):
            if self._classes and (arguments == own or arguments.startswith(f"{own}, ")):
                arguments = arguments[len(own) + 2 :]
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        self._add(node, f"## {'.'.join([*self._classes, node.name])}({arguments}){result}")

    visit_AsyncFunctionDef = visit_FunctionDef

    def generic_visit(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):  # definitions are nowhere else, and expressions are most of a tree
                self.visit(child)

    def _add(self, node: ast.Module | ast.ClassDef | _Function, heading: str = "") -> None:
        docstring = (ast.get_docstring(node) or "").strip()
        if docstring:
            self.n_documented += 1
            self.parts += [heading, docstring] if heading else [docstring]


def _topics(source: bytes) -> Iterator[tuple[str, str]]:
    """The names and texts of the reference topics: the one dictionary of literals that their module consists of."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield name, f"# {name}\n\n{text.strip()}\n"


def _modules() -> Iterator[tuple[str, bytes]]:
    """The dotted name and the source of every module."""
    library = _library()
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if _SKIPPED.isdisjoint(parts):
            yield ".".join(parts).removesuffix(".__init__"), path.read_bytes()


def _library() -> Path:
    path = Path(sysconfig.get_path("stdlib"))
    if not (path / "textwrap.py").is_file():
        raise DataError(
            "This Python has no sources of its standard library",
            got=path,
            remedy="Use another Python (python.org's, your system's, uv's), or your own text.",
        )
    return path
