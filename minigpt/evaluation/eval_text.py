"""What is to be predicted: tokens in a row, where reading begins anew, and where documents begin.

Two ways to get it. A split of a data set is one long reading, as in training: documents are packed one behind the
other, and the context reaches across their ends. Texts are read one by one: each begins with `end_of_text`, which is
how a document begins in training, so that its first token is predicted too and nothing else is in sight.

Not here: how far the model sees back (windows.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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
"""How much of a document is shown for the reader to know it: of its tokens so many, of their characters so many."""


@dataclass(frozen=True)
class EvalText:
    """Tokens to be predicted.

    Attributes:
        tokens: ids, shape (n_tokens,); may be a memory map.
        readings: where readings begin, rising from 0; nothing before its beginning is in sight in a reading.
        leads: how many tokens at each reading's beginning are context only, at least 1.
        documents: where documents begin, rising from 0.
        names: of the documents: their files, and the numbers of their records; None where nobody knows them.
        bytes_per_token: UTF-8 bytes of text that a token stands for, on average.
        tokenizer: what made the tokens.
        seam: 0, or the length of stretches whose first token is no target (see `TokenFile`).
        notes: what the reader should know about where it comes from, as sentences.
    """

    tokens: Tokens
    readings: Ints
    leads: Ints
    documents: Ints
    names: Sequence[str] | None
    bytes_per_token: float
    tokenizer: Tokenizer
    segment_length: int = 0
    notes: tuple[str, ...] = ()

    def beginning(self, document: int) -> str:
        """Returns the first words of a document."""
        start, *rest = self.documents[document : document + 2]
        ids = self.tokens[start : min([start + BEGINNING_TOKENS, *rest])]
        text = self.tokenizer.decode(ids[ids != self.tokenizer.end_of_text])
        return " ".join(text.rstrip("\ufffd").split())[:BEGINNING_LENGTH]


def split_material(shard: TokenFile, tokenizer: Tokenizer, names: Sequence[str] | None = None) -> EvalText:
    """Returns a split of a data set, as training would read it.

    Args:
        shard: the split.
        tokenizer: what made it.
        names: of its documents, if they are known.

    Raises:
        DataError: if it has fewer than two tokens.
    """
    if shard.n_tokens < 2:
        raise DataError("The split holds nothing to predict", got=shard.path, remedy="Prepare more text.")
    starts = [np.zeros(1, dtype=np.int64), np.flatnonzero(shard.tokens == tokenizer.end_of_text) + 1]
    if shard.segment_length:
        starts.append(np.arange(0, shard.n_tokens, shard.segment_length))
    documents = np.unique(np.concatenate(starts))
    documents = documents[documents < shard.n_tokens]
    return EvalText(
        shard.tokens,
        readings=np.zeros(1, dtype=np.int64),
        leads=np.ones(1, dtype=np.int64),
        documents=documents,
        names=names if names is not None and len(names) == len(documents) else None,  # of other documents, it seems
        bytes_per_token=shard.n_bytes / shard.n_tokens,
        tokenizer=tokenizer,
        segment_length=shard.segment_length,
    )


def joined(parts: Sequence[EvalText]) -> EvalText:
    """Returns splits of a data set as one, each read by itself.

    Where they have seams, the first is made of whole stretches: it is validation, then.
    """
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(len(part.tokens) for part in parts)])
    n_bytes = sum(part.bytes_per_token * len(part.tokens) for part in parts)
    named = all(part.names is not None for part in parts)
    return replace(
        parts[0],
        tokens=np.concatenate([part.tokens for part in parts]),
        readings=np.concatenate([part.readings + start for part, start in zip(parts, ends, strict=False)]),
        leads=np.concatenate([part.leads for part in parts]),
        documents=np.concatenate([part.documents + start for part, start in zip(parts, ends, strict=False)]),
        names=[name for part in parts for name in part.names or ()] if named else None,
        bytes_per_token=n_bytes / ends[-1],
    )


def text_material(
    names: Iterable[str], tokenizer: Tokenizer, reading: SourceOptions = DEFAULT_SOURCE_OPTIONS
) -> EvalText:
    """Returns texts, each to be read by itself.

    Args:
        names: files, folders or other sources, as `minigpt prepare` takes them.
        tokenizer: the model's.
        reading: how the texts are read.

    Raises:
        DataError: if one is not there, is no text, or all are empty.
    """
    begin = np.array([tokenizer.end_of_text], dtype=np.uint32)
    parts: list[npt.NDArray[np.uint32]] = []
    starts: list[int] = []
    titles: list[str] = []
    n_tokens = n_bytes = 0
    with open_sources(names, reading) as sources:
        for source in sources:
            ids = [begin]
            for piece in source.read():
                ids.append(tokenizer.encode(piece.text))
                n_bytes += len(utf8(piece.text))
                if not piece.last:
                    continue
                length = sum(len(part) for part in ids)
                if length > 1:
                    parts += ids
                    starts.append(n_tokens)
                    titles.append(piece.origin.title)
                    n_tokens += length
                ids = [begin]
        left_out = ", ".join(words for source in sources for words in source.skipped)
        notes = (*([f"Left out: {left_out}."] if left_out else []), *source_notes(sources, reading))
    if not parts:
        raise DataError("The text is empty", got=", ".join(names), remedy="Give a text of at least one token.")
    documents = np.array(starts, dtype=np.int64)
    bytes_per_token = n_bytes / (n_tokens - len(documents))
    ones = np.ones_like(documents)
    return EvalText(
        np.concatenate(parts), documents, ones, documents, tuple(titles), bytes_per_token, tokenizer, notes=notes
    )
