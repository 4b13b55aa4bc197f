"""The second reading of the text: every document encoded, an end-of-text token after it, all in a row.

The main thread reads and writes, the others encode; at most a few megabytes are under way at any time. The result does
not depend on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minigpt.data.chunks import ChunkOrigin, TextChunk
from minigpt.data.permutation import Permutation
from minigpt.data.sources import Source
from minigpt.data.split import LEFT_OUT, TRAIN, VAL, Corpus, SplitAssignment
from minigpt.data.token_file import TokenFile, TokenFileWriter
from minigpt.errors import DataError
from minigpt.tokenizers import Ids, Tokenizer, last_safe_split, usable_cores

JOB_BYTES = 2**19  # of text to a thread at once: small documents are gathered, or handing them over would cost more
BLOCKS_AT_ONCE = 4096


class PackedPart(NamedTuple):
    """A stretch of text on its way to one side.

    Attributes:
        text: the text.
        side: TRAIN or VAL.
        end: whether an end-of-text token follows.
        n_bytes: its length in UTF-8.
        origin: where its document comes from.
    """

    text: str
    side: int
    end: bool
    n_bytes: int
    origin: ChunkOrigin


class Packed(NamedTuple):
    """The parts of one job, encoded, for one side: ids of shape (n,), and what they count for."""

    ids: Ids
    n_documents: int
    n_bytes: int
    n_unknown: int


def planned_parts(sources: Sequence[Source], corpus: Corpus, plan: SplitAssignment) -> Iterator[PackedPart]:
    """The text once more, each part with its side; what is left out is not among them.

    Raises:
        DataError: a document is not as long as it was in the first reading.
    """
    number = read = 0
    for source in sources:
        for piece in source.read():
            n_bytes = _utf8_length(piece.text)
            side = int(plan.sides[number]) if number < len(plan.sides) else LEFT_OUT
            if number == plan.cut_document:
                yield from _cut_parts(piece, read, plan.cut_byte)
            elif side != LEFT_OUT:
                yield PackedPart(piece.text, side, piece.last, n_bytes, piece.origin)
            read += n_bytes
            if piece.last:
                if number >= len(corpus.sizes) or read != corpus.sizes[number]:
                    raise _changed(source.name)
                number, read = number + 1, 0
    if number != len(corpus.sizes):
        raise _changed(", ".join(source.name for source in sources))


def _cut_parts(piece: TextChunk, read: int, cut_byte: int) -> Iterator[PackedPart]:
    """A piece of the document that is cut in two; `read` bytes of it came before."""
    text, last, origin = piece
    n_bytes = _utf8_length(text)
    if read + n_bytes <= cut_byte:
        yield PackedPart(text, TRAIN, False, n_bytes, origin)
    elif read >= cut_byte:
        yield PackedPart(text, VAL, last, n_bytes, origin)
    else:
        near = len(text.encode()[: cut_byte - read].decode(errors="ignore"))
        # No safe place in this piece: the start of the piece is one, unless it is the document's.
        place = last_safe_split(text[: near + 1]) or (0 if read else near)
        start = text[:place]
        yield PackedPart(start, TRAIN, True, _utf8_length(start), origin)
        yield PackedPart(text[place:], VAL, last, n_bytes - _utf8_length(start), origin)


def _changed(name: str) -> DataError:
    return DataError("The text changed while it was being read", got=name, remedy="Prepare it when it is at rest.")


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def encode_parts(parts: Iterable[PackedPart], tokenizer: Tokenizer) -> Iterator[tuple[Packed, Packed]]:
    """The parts encoded on all cores, in order: for each job what goes to training and to validation."""
    n_threads = usable_cores()
    waiting: deque[Future[tuple[Packed, Packed]]] = deque()
    pool = ThreadPoolExecutor(n_threads)
    try:
        for job in _jobs(parts):
            waiting.append(pool.submit(_encode_job, job, tokenizer))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _jobs(parts: Iterable[PackedPart]) -> Iterator[list[PackedPart]]:
    job: list[PackedPart] = []
    n_bytes = 0
    for part in parts:
        job.append(part)
        n_bytes += part.n_bytes
        if n_bytes >= JOB_BYTES:
            yield job
            job, n_bytes = [], 0
    if job:
        yield job


def _encode_job(job: list[PackedPart], tokenizer: Tokenizer) -> tuple[Packed, Packed]:
    end = np.array([tokenizer.end_of_text], dtype=np.uint32)
    sides: tuple[list[Ids], list[Ids]] = ([], [])
    for part in job:
        sides[part.side].append(tokenizer.encode(part.text))
        if part.end:
            sides[part.side].append(end)
    train, val = (
        Packed(
            ids := np.concatenate(arrays) if arrays else np.empty(0, dtype=np.uint32),
            sum(part.end for part in job if part.side == side),
            sum(part.n_bytes for part in job if part.side == side),
            0 if tokenizer.unknown is None else int((ids == tokenizer.unknown).sum()),
        )
        for side, arrays in enumerate(sides)
    )
    return train, val


def draw_sequences(
    whole: TokenFile, train: TokenFileWriter, val: TokenFileWriter, tokenizer: Tokenizer, val_fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Cuts packed tokens into sequences and sends some, drawn at random, to validation.

    Only whole sequences are drawn; a shorter one at the end trains. All keep their order.

    Args:
        whole: the tokens, of which every `whole.segment_length` are a sequence.
        train: gets the rest.
        val: gets the drawn ones.
        tokenizer: what made the tokens.
        val_fraction: the share to draw; at least one sequence is.
        seed: decides which.

    Returns:
        Which ids occur in training; bool, shape (vocab_size,).
    """
    length = whole.segment_length
    n_whole = whole.n_tokens // length
    drawn = np.zeros(n_whole, dtype=bool)
    if n_whole:
        n_drawn = max(1, round(val_fraction * n_whole))
        drawn[Permutation(n_whole, seed)(np.arange(n_drawn))] = True
    bytes_of = np.array([len(token) for token in tokenizer.vocabulary])
    seen = np.zeros(tokenizer.vocab_size, dtype=bool)

    def send(ids: npt.NDArray[np.unsignedinteger], writer: TokenFileWriter) -> None:
        n_documents = int((ids == tokenizer.end_of_text).sum())
        writer.append(ids, n_documents=n_documents, n_bytes=int(bytes_of[ids].sum()))
        if writer is train:
            seen[ids] = True

    for first in range(0, n_whole, BLOCKS_AT_ONCE):
        mask = drawn[first : first + BLOCKS_AT_ONCE]
        stretch = whole.read(first * length, (first + len(mask)) * length).reshape(len(mask), length)
        send(stretch[~mask].ravel(), train)
        send(stretch[mask].ravel(), val)
    send(whole.read(n_whole * length, whole.n_tokens), train)
    return seen
