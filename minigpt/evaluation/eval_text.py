"""The tokens to be predicted, and where documents begin in them.

A split of a data set is one sequence, as in training: documents follow one another, and the context reaches across
their ends. Texts are read one by one: each begins with `end_of_text`, as a document does in training, so that its first
token is predicted too, without any other context.

Not here: how much context each prediction gets (windows.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minigpt.data import TokenFile
from minigpt.data.sources import open_sources, source_notes
from minigpt.data.token_file import Tokens
from minigpt.errors import DataError
from minigpt.source_options import DEFAULT_SOURCE_OPTIONS, SourceOptions
from minigpt.tokenizers import Tokenizer, utf8

Ints = npt.NDArray[np.int64]

BEGINNING_TOKENS, BEGINNING_LENGTH = 40, 60
"""How much of a document is shown to identify it: at most this many tokens, and this many characters of them."""


@dataclass(frozen=True)
class EvalText:
    """Tokens to be predicted.

    Attributes:
        tokens: ids, shape (n_tokens,); may be a memory map.
        sequences: where sequences begin, increasing from 0; the context never reaches back beyond a beginning.
        leads: the number of tokens at each sequence's beginning that are context only, at least 1.
        documents: where documents begin, increasing from 0.
        names: of the documents: their files, and the numbers of their records; None if unknown.
        bytes_per_token: mean number of UTF-8 bytes of text per token.
        tokenizer: the one that made the tokens.
        segment_length: 0, or the length of segments whose first token is not a target (see `TokenFile`).
        notes: what the reader should know about the text's origin, as sentences.
    """

    tokens: Tokens
    sequences: Ints
    leads: Ints
    documents: Ints
    names: Sequence[str] | None
    bytes_per_token: float
    tokenizer: Tokenizer
    segment_length: int = 0
    notes: tuple[str, ...] = ()

    def beginning(self, document: int) -> str:
        """Returns the first words of a document."""
        return first_words(self.tokenizer, self.tokens, *self.documents[document : document + 2].tolist())


def first_words(tokenizer: Tokenizer, tokens: npt.NDArray[Any], start: int, end: int | None = None) -> str:
    """Returns the first words of a document whose tokens begin at `start`."""
    stop = start + BEGINNING_TOKENS
    ids = np.asarray(tokens[start : stop if end is None else min(stop, end)])
    ids = ids[1:] if len(ids) and ids[0] == tokenizer.end_of_text else ids  # it begins a text of its own
    if ends := np.flatnonzero(ids == tokenizer.end_of_text).tolist():
        ids = ids[: ends[0]]
    return " ".join(tokenizer.decode(ids).rstrip("\ufffd").split())[:BEGINNING_LENGTH]


def text_of_split(split: TokenFile, tokenizer: Tokenizer, names: Sequence[str] | None = None) -> EvalText:
    """Returns a split of a data set, as training reads it.

    Args:
        split: the split.
        tokenizer: the one that made it.
        names: of its documents, if known.

    Raises:
        DataError: if it has fewer than two tokens.
    """
    if split.n_tokens < 2:
        raise DataError("The split contains nothing to predict", got=split.path, remedy="Prepare more text.")
    starts = [np.zeros(1, dtype=np.int64), np.flatnonzero(split.tokens == tokenizer.end_of_text) + 1]
    if split.segment_length:
        starts.append(np.arange(0, split.n_tokens, split.segment_length))
    documents = np.unique(np.concatenate(starts))
    documents = documents[documents < split.n_tokens]
    return EvalText(
        split.tokens,
        sequences=np.zeros(1, dtype=np.int64),
        leads=np.ones(1, dtype=np.int64),
        documents=documents,
        names=names if names is not None and len(names) == len(documents) else None,  # else of other documents
        bytes_per_token=split.n_bytes / split.n_tokens,
        tokenizer=tokenizer,
        segment_length=split.segment_length,
    )


def join(texts: Sequence[EvalText]) -> EvalText:
    """Returns splits of a data set as one text, each a sequence of its own.

    If they have segments, the first split must consist of whole ones, as the validation split does.
    """
    if len(texts) == 1:
        return texts[0]
    ends = np.cumsum([0, *(len(text.tokens) for text in texts)])
    n_bytes = sum(text.bytes_per_token * len(text.tokens) for text in texts)
    named = all(text.names is not None for text in texts)
    return replace(
        texts[0],
        tokens=np.concatenate([text.tokens for text in texts]),
        sequences=np.concatenate([text.sequences + start for text, start in zip(texts, ends, strict=False)]),
        leads=np.concatenate([text.leads for text in texts]),
        documents=np.concatenate([text.documents + start for text, start in zip(texts, ends, strict=False)]),
        names=[name for text in texts for name in text.names or ()] if named else None,
        bytes_per_token=float(n_bytes / ends[-1]),
    )


def text_of_sources(
    names: Iterable[str], tokenizer: Tokenizer, options: SourceOptions = DEFAULT_SOURCE_OPTIONS
) -> EvalText:
    """Returns texts, each document a sequence of its own.

    Args:
        names: files, folders or other sources, as `minigpt prepare` takes them.
        tokenizer: the model's.
        options: how the texts are read.

    Raises:
        DataError: if a source is missing or not text, or all are empty.
    """
    begin = np.array([tokenizer.end_of_text], dtype=np.uint32)
    tokens: list[npt.NDArray[np.uint32]] = []
    starts: list[int] = []
    titles: list[str] = []
    n_tokens = n_bytes = 0
    with open_sources(names, options) as sources:
        for source in sources:
            document = [begin]
            for piece in source.read():
                document.append(tokenizer.encode(piece.text))
                n_bytes += len(utf8(piece.text))
                if not piece.last:
                    continue
                if (length := sum(map(len, document))) > 1:
                    tokens += document
                    starts.append(n_tokens)
                    titles.append(piece.origin.title)
                    n_tokens += length
                document = [begin]
        skipped = ", ".join(words for source in sources for words in source.skipped)
        notes = (*([f"Skipped: {skipped}."] if skipped else []), *source_notes(sources, options))
    if not tokens:
        raise DataError("The text is empty", got=", ".join(names), remedy="Give a text of at least one token.")
    documents = np.array(starts, dtype=np.int64)
    return EvalText(
        np.concatenate(tokens),
        sequences=documents,
        leads=np.ones_like(documents),
        documents=documents,
        names=tuple(titles),
        bytes_per_token=n_bytes / (n_tokens - len(documents)),
        tokenizer=tokenizer,
        notes=notes,
    )
