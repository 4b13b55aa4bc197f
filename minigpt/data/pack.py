"""The second reading of the text: each document encoded, followed by an end-of-text token, all in a row.

The main thread reads and writes, the others encode; a few megabytes at a time are in flight. The result does not depend
on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minigpt.data.chunks import DocumentOrigin, TextChunk
from minigpt.data.dataset import TRAIN_FILE, VAL_FILE
from minigpt.data.document_names import SUFFIX, DocumentNamesWriter
from minigpt.data.permutation import Permutation
from minigpt.data.sources import Source
from minigpt.data.split import DROPPED, TRAIN, VAL, Corpus, SplitAssignment
from minigpt.data.token_file import TokenFile, TokenFileWriter
from minigpt.errors import DataError
from minigpt.tokenizers import Ids, Tokenizer, last_safe_split, usable_cores

JOB_BYTES = 2**19  # of text to a thread at once: handing over small documents one by one would cost more
SEGMENTS_AT_ONCE = 4096


class AssignedText(NamedTuple):
    """A stretch of text on its way to one split."""

    text: str  # the text
    split: int  # TRAIN or VAL
    last: bool  # whether a document ends here, so that an end-of-text token follows
    n_bytes: int  # its length in UTF-8
    origin: DocumentOrigin  # where its document comes from


class EncodedText(NamedTuple):
    """What one job encoded for one split: ids of shape (n,), and the counts they stand for."""

    ids: Ids
    n_documents: int
    n_bytes: int
    n_unknown: int


class PackCounts(NamedTuple):
    """What packing counted."""

    ids_in_train: int  # how many different ids occur in training
    unknown_characters: int  # how many characters the vocabulary does not have


def assigned_text(sources: Sequence[Source], corpus: Corpus, assignment: SplitAssignment) -> Iterator[AssignedText]:
    """The text once more, each part with its split, without the dropped documents.

    Raises:
        DataError: a document is not as long as in the first reading.
    """
    number = position = 0
    for source in sources:
        for chunk in source.read():
            n_bytes = _utf8_length(chunk.text)
            split = int(assignment.splits[number]) if number < len(assignment.splits) else DROPPED
            if number == assignment.cut_document:
                yield from _cut(chunk, position, assignment.cut_byte)
            elif split != DROPPED:
                yield AssignedText(chunk.text, split, chunk.last, n_bytes, chunk.origin)
            position += n_bytes
            if chunk.last:
                if number >= len(corpus.sizes) or position != corpus.sizes[number]:
                    raise _changed(source.name)
                number, position = number + 1, 0
    if number != len(corpus.sizes):
        raise _changed(", ".join(source.name for source in sources))


def _cut(chunk: TextChunk, position: int, cut_byte: int) -> Iterator[AssignedText]:
    """A chunk, which begins at byte `position`, of the document that is cut in two."""
    text, last, origin = chunk
    n_bytes = _utf8_length(text)
    if position + n_bytes <= cut_byte:
        yield AssignedText(text, TRAIN, False, n_bytes, origin)
    elif position >= cut_byte:
        yield AssignedText(text, VAL, last, n_bytes, origin)
    else:
        near = len(text.encode()[: cut_byte - position].decode(errors="ignore"))
        # Without a safe place in this chunk, the start of the chunk is one, unless it is the document's.
        place = last_safe_split(text[: near + 1]) or (0 if position else near)
        start = text[:place]
        yield AssignedText(start, TRAIN, True, _utf8_length(start), origin)
        yield AssignedText(text[place:], VAL, last, n_bytes - _utf8_length(start), origin)


def _changed(name: str) -> DataError:
    return DataError("The text changed while it was read", got=name, remedy="Prepare it while nothing changes it.")


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _encode(parts: Iterable[AssignedText], tokenizer: Tokenizer) -> Iterator[tuple[EncodedText, EncodedText]]:
    """The parts encoded on all cores, in order: for each job what goes to training and to validation."""
    n_threads = usable_cores()
    waiting: deque[Future[tuple[EncodedText, EncodedText]]] = deque()
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


def _jobs(parts: Iterable[AssignedText]) -> Iterator[list[AssignedText]]:
    job: list[AssignedText] = []
    n_bytes = 0
    for part in parts:
        job.append(part)
        n_bytes += part.n_bytes
        if n_bytes >= JOB_BYTES:
            yield job
            job, n_bytes = [], 0
    if job:
        yield job


def _encode_job(job: list[AssignedText], tokenizer: Tokenizer) -> tuple[EncodedText, EncodedText]:
    end = np.array([tokenizer.end_of_text], dtype=np.uint32)
    arrays: tuple[list[Ids], list[Ids]] = ([], [])
    for part in job:
        arrays[part.split].append(tokenizer.encode(part.text))
        if part.last:
            arrays[part.split].append(end)
    train, val = (
        EncodedText(
            ids := np.concatenate(arrays[split]) if arrays[split] else np.empty(0, dtype=np.uint32),
            sum(part.last for part in job if part.split == split),
            sum(part.n_bytes for part in job if part.split == split),
            0 if tokenizer.unknown is None else int((ids == tokenizer.unknown).sum()),
        )
        for split in (TRAIN, VAL)
    )
    return train, val


def pack_documents(folder: Path, parts: Iterable[AssignedText], tokenizer: Tokenizer) -> PackCounts:
    """Encodes the parts, and writes the token files and the names of their documents into a folder."""
    occurs, n_unknown = np.zeros(tokenizer.vocab_size, dtype=bool), 0
    paths = [folder / TRAIN_FILE, folder / VAL_FILE]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(TokenFileWriter(path, tokenizer.vocab_size, tokenizer.identity)) for path in paths
        ]
        names = [stack.enter_context(DocumentNamesWriter(path.with_suffix(SUFFIX))) for path in paths]

        def named() -> Iterator[AssignedText]:
            for part in parts:
                if part.last:
                    names[part.split].add(part.origin)
                yield part

        for encoded in _encode(named(), tokenizer):
            for writer, text in zip(writers, encoded, strict=True):
                writer.append(text.ids, n_documents=text.n_documents, n_bytes=text.n_bytes)
                n_unknown += text.n_unknown
            occurs[encoded[TRAIN].ids] = True
    return PackCounts(int(occurs.sum()), n_unknown)


def pack_sequences(
    folder: Path, parts: Iterable[AssignedText], tokenizer: Tokenizer, length: int, val_fraction: float, seed: int
) -> PackCounts:
    """Encodes the parts, cuts the tokens into sequences, and sends some of these, drawn at random, to validation.

    Only whole sequences are drawn; a shorter one at the end trains. All stay in order. Documents have no names then.

    Args:
        folder: where to write the token files.
        parts: the text.
        tokenizer: what encodes it.
        length: of a sequence, in tokens.
        val_fraction: the share to draw; at least one sequence is.
        seed: decides which.
    """
    size, identity = tokenizer.vocab_size, tokenizer.identity
    whole, n_unknown = folder / "all.tokens", 0
    with TokenFileWriter(whole, size, identity, length) as writer:
        for text, _ in _encode(parts, tokenizer):
            writer.append(text.ids, n_documents=text.n_documents, n_bytes=text.n_bytes)
            n_unknown += text.n_unknown
    with (
        TokenFileWriter(folder / TRAIN_FILE, size, identity, length) as train,
        TokenFileWriter(folder / VAL_FILE, size, identity, length) as val,
    ):
        occurs = _draw_sequences(TokenFile.open(whole, verify=False), train, val, tokenizer, val_fraction, seed)
    whole.unlink()
    return PackCounts(int(occurs.sum()), n_unknown)


def _draw_sequences(
    whole: TokenFile, train: TokenFileWriter, val: TokenFileWriter, tokenizer: Tokenizer, val_fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Returns which ids occur in training; bool, shape (vocab_size,)."""
    length = whole.segment_length
    n_whole = whole.n_tokens // length
    drawn = np.zeros(n_whole, dtype=bool)
    if n_whole:
        n_drawn = max(1, round(val_fraction * n_whole))
        drawn[Permutation(n_whole, seed)(np.arange(n_drawn))] = True
    bytes_of = np.array([len(token) for token in tokenizer.vocabulary])
    occurs = np.zeros(tokenizer.vocab_size, dtype=bool)

    def send(ids: npt.NDArray[np.unsignedinteger], writer: TokenFileWriter) -> None:
        n_documents = int((ids == tokenizer.end_of_text).sum())
        writer.append(ids, n_documents=n_documents, n_bytes=int(bytes_of[ids].sum()))
        if writer is train:
            occurs[ids] = True

    for first in range(0, n_whole, SEGMENTS_AT_ONCE):
        mask = drawn[first : first + SEGMENTS_AT_ONCE]
        stretch = whole.read(first * length, (first + len(mask)) * length).reshape(len(mask), length)
        send(stretch[~mask].ravel(), train)
        send(stretch[mask].ravel(), val)
    send(whole.read(n_whole * length, whole.n_tokens), train)
    return occurs
