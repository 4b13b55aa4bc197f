"""Mini-GPT: train a small GPT from scratch, and see how it works.

    import minigpt

    minigpt.prepare(["pylib"], "data/pylib", tokenizer="bpe:4096")
    minigpt.train("data/pylib", "runs/first", minigpt.resolve("laptop"))
    model, tokenizer = minigpt.load("runs/first")
    print(minigpt.generate(model, tokenizer, "The function returns", seed=1))

The names below are imported when they are first used: importing torch takes a second or two. An import of this package
alone loads nothing more, so that an interrupt at the command line's start finds somebody to catch it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what checkers take for true, without the 10 ms that `typing` takes to load

if TYPE_CHECKING:
    from minigpt.config import Config, GPTConfig, resolve
    from minigpt.data import prepare
    from minigpt.generation import generate, stream
    from minigpt.model import GPT
    from minigpt.runs.folder import load
    from minigpt.training import resume, train

    __version__: str

_HOMES = {
    "Config": "minigpt.config",
    "GPT": "minigpt.model",
    "GPTConfig": "minigpt.config",
    "generate": "minigpt.generation",
    "load": "minigpt.runs.folder",
    "prepare": "minigpt.data",
    "resolve": "minigpt.config",
    "resume": "minigpt.training",
    "stream": "minigpt.generation",
    "train": "minigpt.training",
}

__all__ = ["GPT", "Config", "GPTConfig", "generate", "load", "prepare", "resolve", "resume", "stream", "train"]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'minigpt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("minigpt")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
