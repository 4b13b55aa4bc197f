"""The errors a user can meet, as one small tree.

Every message has three parts: what is wrong, the value that was seen, and the remedy. The command line prints them
and exits with code 2; from Python they are ordinary exceptions. Mistakes of the programmer are assertions, not these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns "Did you mean X? " for the choice nearest to a mistyped word, or nothing if none is near."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"Did you mean {close[0]}? " if close else ""


def did_you_mean_folder(path: Path, holds: str) -> str:
    """Returns "Did you mean X? " for the folder that may be meant instead of a path, or nothing.

    Args:
        path: what was given.
        holds: the file that is in the right ones: in the path itself they come first, then those of a similar name.
    """
    with suppress(OSError, ValueError):
        if inside := sorted(path.glob(f"*/{holds}")):
            return f"Did you mean {inside[0].parent}? "
        beside = {found.parent.name: found.parent for found in path.parent.glob(f"*/{holds}")}
        if close := difflib.get_close_matches(path.name, beside, n=1):
            return f"Did you mean {beside[close[0]]}? "
    return ""


class MiniGPTError(Exception):
    """Something the user can mend.

    Args:
        what: what is wrong, as a sentence without its full stop.
        got: the value that was given, if there is one.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, got: object = None, remedy: str) -> None:
        self.what, self.got, self.remedy = what, got, remedy
        found = "" if got is None else f" (got: {got})"
        super().__init__(f"{what}{found}. {remedy}")


class ConfigError(MiniGPTError, ValueError):
    """A configuration that cannot work."""


class TokenizerError(MiniGPTError, ValueError):
    """A tokenizer that is unknown, damaged, or not the one a data set or run was made with."""


class DataError(MiniGPTError, ValueError):
    """Text or tokens that cannot be read, or that are too few."""


class RunError(MiniGPTError):
    """A run folder that is missing, incomplete, or in the way."""


class CheckpointError(RunError):
    """A checkpoint that is damaged or does not fit the model."""


class NewerVersionError(CheckpointError):
    """A checkpoint that a newer Mini-GPT has written."""


class UnreadableError(CheckpointError):
    """A checkpoint that the system does not let this user read."""


class DeviceError(MiniGPTError):
    """A device, precision or feature that this machine does not have."""


class MissingExtraError(MiniGPTError, ImportError):
    """A part of Mini-GPT whose packages are not installed.

    Args:
        feature: what was asked for.
        extra: the extra that brings it (`pip install 'minigpt[extra]'`).
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs packages that are not installed", remedy=f"Run: pip install 'minigpt[{extra}]'"
        )
