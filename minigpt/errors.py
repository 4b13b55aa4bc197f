"""The errors a user can meet, as one small tree.

Every message has three parts: what is wrong, the value that was given or found, and how to fix it. The command line
prints them and exits with code 2; from Python they are ordinary exceptions. Programming errors are assertions instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns "Did you mean X? " for the choice closest to a mistyped word, or "" if none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"Did you mean {close[0]}? " if close else ""


def did_you_mean_folder(path: Path, holds: str) -> str:
    """Returns "Did you mean X? " for the folder that was probably meant instead of `path`, or "".

    Args:
        path: what was given.
        holds: a file that every right folder contains. Folders inside `path` come first, then siblings of similar name.
    """
    with suppress(OSError, ValueError):
        if inside := sorted(path.glob(f"*/{holds}")):
            return f"Did you mean {inside[0].parent}? "
        beside = {found.parent.name: found.parent for found in path.parent.glob(f"*/{holds}")}
        if close := difflib.get_close_matches(path.name, beside, n=1):
            return f"Did you mean {beside[close[0]]}? "
    return ""


class MiniGPTError(Exception):
    """An error that the user can fix.

    Args:
        what: what is wrong, as a sentence without the full stop.
        got: the value that was given or found, if any.
        remedy: how to fix it.
    """

    def __init__(self, what: str, *, got: object = None, remedy: str) -> None:
        self.what, self.got, self.remedy = what, got, remedy
        found = "" if got is None else f" (got: {got})"
        super().__init__(f"{what}{found}. {remedy}")


class ConfigError(MiniGPTError, ValueError):
    """A setting or option that is invalid."""


class TokenizerError(MiniGPTError, ValueError):
    """A tokenizer that is unknown, damaged, or different from the one a data set or run was made with."""


class DataError(MiniGPTError, ValueError):
    """Text or tokens that cannot be read, or too few of them."""


class RunError(MiniGPTError):
    """A run folder that is missing or incomplete, or that already exists."""


class CheckpointError(RunError):
    """A checkpoint that is damaged or does not match the model."""


class CheckpointVersionError(CheckpointError):
    """A checkpoint written by another version of Mini-GPT."""


class UnreadableError(CheckpointError):
    """A checkpoint that this user may not read."""


class DeviceError(MiniGPTError):
    """A device, number format or feature that this machine lacks."""


class MissingExtraError(MiniGPTError, ImportError):
    """A feature whose packages are not installed.

    Args:
        feature: the feature.
        extra: the extra that provides it (`pip install 'minigpt[extra]'`).
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs packages that are not installed", remedy=f"Run: pip install 'minigpt[{extra}]'"
        )
