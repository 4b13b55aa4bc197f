"""Tokenizers: text to ids and back.

`make_tokenizer` makes one from what the user wrote (`gpt2`, `char`, `byte`, `bpe:8192`), `load_tokenizer`
reads the one that was saved in a data set or a run. The table `TOKENIZER_TYPES` at the bottom lists all types.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minigpt.errors import TokenizerError, did_you_mean
from minigpt.files import is_file, is_missing, read_bytes, read_json, why
from minigpt.tokenizers.base import (
    CONFIG_FILE,
    END_OF_TEXT,
    FORMAT,
    UNKNOWN,
    Ids,
    OnNote,
    Tokenizer,
    last_safe_split,
    usable_cores,
    utf8,
)
from minigpt.tokenizers.bpe import FILE as TOKENIZER_JSON
from minigpt.tokenizers.bpe import BytePairTokenizer, bpe_from_json, train_bpe
from minigpt.tokenizers.byte_char import ByteTokenizer, CharTokenizer
from minigpt.tokenizers.gpt2 import gpt2_tokenizer

__all__ = [
    "CONFIG_FILE",
    "END_OF_TEXT",
    "TOKENIZER_TYPES",
    "UNKNOWN",
    "BytePairTokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Ids",
    "OnNote",
    "Tokenizer",
    "TokenizerType",
    "last_safe_split",
    "load_tokenizer",
    "make_tokenizer",
    "reads_training_text",
    "usable_cores",
    "utf8",
]


class TokenizerType(NamedTuple):
    """A type of tokenizer."""

    # makes one from the number after the colon (0 without one) and the training text; calls back with what is not
    # used of it
    make: Callable[[int, Iterable[str], OnNote], Tokenizer]
    # reads one from its folder and the content of its `tokenizer_config.json`
    load: Callable[[Path, Mapping[str, Any]], Tokenizer]
    reads_text: bool = False  # whether `make` reads the training text
    takes_size: bool = False  # whether the spec has a number after a colon


def make_tokenizer(spec: str, training_text: Iterable[str] = (), on_note: OnNote = lambda text: None) -> Tokenizer:
    """Makes the tokenizer that a spec names.

    Args:
        spec: a key of `TOKENIZER_TYPES`, for `bpe` followed by a colon and the number of ids: `bpe:8192`; or the folder
            of a run or data set, to use its tokenizer.
        training_text: parts of the text; only types that `reads_text` read it, once.
        on_note: called with what is not used of that text.

    Raises:
        TokenizerError: there is no such type, or its number is missing or too small.
    """
    if folder := _saved_in(spec):
        return load_tokenizer(folder)
    tokenizer_type, size = _parse(spec)
    return tokenizer_type.make(size, training_text, on_note)


def reads_training_text(spec: str) -> bool:
    """Whether making this tokenizer reads the training text.

    Raises:
        TokenizerError: the spec is invalid. Ask before a long pass over the text, not after it.
    """
    return not _saved_in(spec) and _parse(spec)[0].reads_text


def load_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """Reads a saved tokenizer and verifies that it is the one that was saved.

    Args:
        folder: a data set, a run, or any folder a tokenizer was saved in.

    Raises:
        TokenizerError: it is missing, damaged, or of a newer version.
    """
    path = Path(folder)
    remedy = "Use a folder made by `minigpt prepare`, or prepare the data again."
    try:
        config = read_json(path / CONFIG_FILE)
        if config["format"] > FORMAT:
            raise TokenizerError(
                f"{path / CONFIG_FILE} was written by a newer Mini-GPT",
                got=f"format {config['format']}",
                remedy=f"Update Mini-GPT; this version reads formats up to {FORMAT}.",
            )
        for name, sha256 in config["files"].items():
            if hashlib.sha256(read_bytes(path / Path(name).name)).hexdigest() != sha256:
                raise ValueError(f"{name} is not the file that was saved")
        tokenizer_type = TOKENIZER_TYPES[config["kind"]]
        if not re.fullmatch(config["kind"] + r":[0-9]{1,7}" * tokenizer_type.takes_size, config["spec"]):
            raise ValueError("its spec does not fit its kind", config["spec"])
        tokenizer = tokenizer_type.load(path, config)
        saved = config["identity"]
    except OSError as error:
        what = f"A tokenizer's file {'is missing' if is_missing(error) else 'cannot be read'}"
        raise TokenizerError(what, got=f"{error.filename!r}: {why(error)}", remedy=remedy) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"The tokenizer in {path} is damaged", got=why(error)[:200], remedy=remedy) from error
    if tokenizer.identity != saved:
        raise TokenizerError(
            f"The tokenizer in {path} is not the one that was saved there",
            got=f"identity {tokenizer.identity[:12]}..., saved {str(saved)[:12]!r}...",
            remedy=remedy,
        )
    return tokenizer


def _saved_in(spec: str) -> Path | None:
    """The folder of the tokenizer of a run or data set, if the spec is its path."""
    places = (Path(spec), Path(spec) / "tokenizer")
    return next((place for place in places if is_file(place / CONFIG_FILE)), None)


def _parse(spec: str) -> tuple[TokenizerType, int]:
    name, colon, size = spec.partition(":")
    if name not in TOKENIZER_TYPES:
        choices = f"Choose one of {', '.join(TOKENIZER_TYPES)}:N, or the folder of a run."
        raise TokenizerError("Unknown tokenizer", got=spec, remedy=f"{did_you_mean(name, TOKENIZER_TYPES)}{choices}")
    tokenizer_type = TOKENIZER_TYPES[name]
    if tokenizer_type.takes_size and not (size.isascii() and size.isdigit() and len(size) < 8):
        raise TokenizerError(f"{name} needs the number of ids after a colon", got=spec, remedy=f"Example: {name}:8192.")
    if colon and not tokenizer_type.takes_size:
        raise TokenizerError(f"{name} does not take a number", got=spec, remedy=f"Write just {name}.")
    return tokenizer_type, int(size) if tokenizer_type.takes_size else 0


TOKENIZER_TYPES: dict[str, TokenizerType] = {
    "gpt2": TokenizerType(
        make=lambda size, text, on_note: gpt2_tokenizer(),
        load=lambda folder, config: gpt2_tokenizer(),
    ),
    "char": TokenizerType(
        make=lambda size, text, on_note: CharTokenizer.from_text(text),
        load=lambda folder, config: CharTokenizer(config["characters"]),
        reads_text=True,
    ),
    "byte": TokenizerType(
        make=lambda size, text, on_note: ByteTokenizer(),
        load=lambda folder, config: ByteTokenizer(),
    ),
    "bpe": TokenizerType(
        make=train_bpe,
        load=lambda folder, config: bpe_from_json(config["spec"], read_bytes(folder / TOKENIZER_JSON)),
        reads_text=True,
        takes_size=True,
    ),
}
