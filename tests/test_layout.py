"""The floors: parts of the package import from lower floors only, and inside a package parts precede wholes.

Also held here: names that mean one thing only, and the size of the two files that every reader starts with.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import minigpt

ROOT = Path(minigpt.__file__).parent

FLOORS = {
    "atomic": 1,
    "text_utils": 0,
    "errors": 0,
    "schema": 0,
    "files": 0,
    "sniff": 0,
    "tables": 0,
    "config": 1,
    "plotting": 2,
    "source_options": 1,
    "sampling_params": 1,
    "intervals": 2,
    "runtime": 2,
    "model": 2,
    "tokenizers": 2,
    "data": 3,
    "records": 3,
    "config_warnings": 3,
    "state_dict": 3,
    "runs": 4,
    "export": 5,
    "evaluation": 5,
    "explain": 5,
    "generation": 5,
    "doctor": 6,
    "training": 7,
    "report": 8,
    "explorer": 8,
    "cli": 9,
}
DOOR = {"__init__", "__main__"}
"""The package's own front: it may name anything, and nothing imports it but for its version."""

MOST_LINES = {"model/gpt.py": 250, "training/trainer.py": 200}
"""The files to read first stay short enough to be read in one go."""


def modules() -> dict[str, ast.Module]:
    files = sorted(ROOT.rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts): ast.parse(f.read_text("utf-8")) for f in files}


def imports(tree: ast.Module) -> set[str]:
    """What a module imports from the package, anywhere but under `if TYPE_CHECKING`, as `data.batches`."""
    found = set()
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minigpt"):
            base = (node.module or "").removeprefix("minigpt").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if is_module(inner) else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("minigpt.") for alias in node.names if alias.name.startswith("minigpt.")}
    return found - {""}


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def floor(name: str) -> int:
    return FLOORS[name.split(".")[0]]


def test_every_part_has_a_floor():
    assert {name.split(".")[0] for name in modules()} - DOOR == set(FLOORS)


def test_imports_go_down():
    wrong = [
        f"{name} imports {target}"
        for name, tree in modules().items()
        if name not in DOOR
        for target in imports(tree)
        if target.split(".")[0] != name.split(".")[0] and floor(target) >= floor(name)
    ]
    assert not wrong


def test_inside_a_package_parts_come_before_wholes():
    order = {}
    for name, tree in modules().items():
        package = name.split(".")[0]
        inside = {target for target in imports(tree) if target.split(".")[0] == package and target != package}
        order[name] = inside - {name}
    list(TopologicalSorter(order).static_order())  # raises CycleError when two modules need each other


def repeated(names: list[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def test_no_two_classes_share_a_name():
    classes = [node.name for tree in modules().values() for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(classes) > 100
    assert not repeated(classes)


def test_no_two_modules_share_a_name():
    """But for a command's module, which is named after the command, as the function or package behind it is."""
    names = [name.rpartition(".")[2] for name in modules() if not name.startswith("cli.")]
    assert len(names) > 80
    assert not [name for name in repeated(names) if name != "__init__"]


def test_the_files_to_read_first_are_short():
    lines = {name: (ROOT / name).read_text("utf-8").count("\n") for name in MOST_LINES}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES[name]}


def test_nothing_happens_at_import():
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import minigpt\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'tiktoken', 'tokenizers', 'transformers', 'pyarrow', 'msgspec'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import minigpt.cli.app\n"
        "assert not {'typing', 'cyclopts', 'rich', 'importlib.metadata'} & set(sys.modules) - before, sys.modules\n"
        "import minigpt.cli.commands\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_public_names_are_there_and_explained():
    for name in minigpt.__all__:
        thing = getattr(minigpt, name)
        assert thing.__doc__, name
