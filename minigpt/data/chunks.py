"""Text in bounded pieces, so that a document of any length passes through the same few megabytes.

A piece ends where GPT-2's pre-tokeniser splits anyhow (`minigpt.tokenizers.last_safe_split`): encoding the pieces one
by one
gives exactly the ids of the whole. Only where a million characters hold no such place (no space, no end of line),
a piece is cut between two characters as it comes, and one token there may differ.

Not here: where text comes from (sources.py).
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minigpt.errors import DataError
from minigpt.sniff import advice, sniff
from minigpt.tokenizers import last_safe_split

PIECE_CHARACTERS = 2**18  # 2**20 is no faster and takes 130 MB more
MAX_PIECE_CHARACTERS = 2**20  # where there is no safe place to cut: a word so long is encoded in half a second


class ChunkOrigin(NamedTuple):
    """Where a document comes from, to be shown.

    Attributes:
        name: the file, as seen from where the user's own folder stands (`notes/a.txt`), or what stands for one; never
            an absolute path.
        row: the number of the record in it, from 1: a line, a row, a part; 0 where the whole file is the document.
    """

    name: str
    row: int = 0


NOWHERE = ChunkOrigin("")


class TextChunk(NamedTuple):
    """A part of a document.

    Attributes:
        text: its text. Joined, the pieces of a document are the document.
        last: whether the document ends here.
        origin: where the document comes from; the same for all its pieces.
    """

    text: str
    last: bool
    origin: ChunkOrigin = NOWHERE


def text_chunks(chunks: Iterable[str], origin: ChunkOrigin = NOWHERE) -> Iterator[TextChunk]:
    """One document, given in chunks cut anywhere, as pieces cut at safe places. There is always a last piece."""
    return cut_safely(_as_parts(chunks, origin))


def _as_parts(chunks: Iterable[str], origin: ChunkOrigin) -> Iterator[TextChunk]:
    for chunk in chunks:
        yield TextChunk(chunk, False, origin)
    yield TextChunk("", True, origin)


def cut_safely(parts: Iterable[TextChunk]) -> Iterator[TextChunk]:
    """Documents whose parts are cut anywhere, in pieces that are cut at safe places."""
    held = ""
    for text, last, origin in parts:
        held += text
        if last:
            yield TextChunk(held, True, origin)
            held = ""
        elif len(held) >= PIECE_CHARACTERS:
            cut = last_safe_split(held)
            if not cut and len(held) >= MAX_PIECE_CHARACTERS:
                cut = len(held) - 1
            if cut:
                yield TextChunk(held[:cut], False, origin)
                held = held[cut:]


def record_pieces(value: object, where: str, origin: ChunkOrigin = NOWHERE) -> Iterator[TextChunk]:
    """One document that is in memory already, as the field of a record is. None is an empty document.

    Args:
        value: the field's value.
        where: the file and line, for the message.
        origin: the same, to be shown and kept.

    Raises:
        DataError: it is not a string, or not text (half a surrogate pair, which JSON can say and UTF-8 cannot).
    """
    text = "" if value is None else value
    if not isinstance(text, str):
        raise DataError(
            f"The text of {where} is not a string",
            got=f"{type(value).__name__} {str(value)[:40]}",
            remedy="Name another column with --text-column, or fix the record.",
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text of {where} holds half of a surrogate pair",
            got=f"character {error.start}",
            remedy="Fix or remove the record.",
        ) from error
    return text_chunks((text[i : i + PIECE_CHARACTERS] for i in range(0, len(text), PIECE_CHARACTERS)), origin)


def split_at(pieces: Iterable[TextChunk], separator: str) -> Iterator[TextChunk]:
    """Each document cut into several wherever a string stands, which goes: `str.split`, in bounded memory."""
    return cut_safely(_split_anywhere(pieces, separator))


def split_lines(pieces: Iterable[TextChunk]) -> Iterator[TextChunk]:
    r"""Each line as a document, without its end (\n, \r\n or \r). Lines of nothing but white space are skipped."""
    return cut_safely(_split_anywhere(_with_newlines(pieces), "\n", blanks=False))


def _split_anywhere(pieces: Iterable[TextChunk], separator: str, blanks: bool = True) -> Iterator[TextChunk]:
    """The parts of documents between separators, cut anywhere. Those of a file are numbered; those of a record keep its
    number. Without `blanks`, white space is not passed on, unless it is longer than a piece."""
    held, number, begun = "", 1, False
    for text, last, (name, row) in pieces:
        *ended, held = (held + text).split(separator)
        for document in [*ended, held] if last else ended:
            if blanks or begun or (document and not document.isspace()):
                yield TextChunk(document, True, ChunkOrigin(name, row or number))
            number, begun = number + 1, False
        if last:
            held, number = "", 1
            continue
        cut = len(held) + 1 - len(separator)  # what is left may be the beginning of a separator
        if cut > 0 and (blanks or begun or not held.isspace() or cut >= PIECE_CHARACTERS):
            yield TextChunk(held[:cut], False, ChunkOrigin(name, row or number))
            held, begun = held[cut:], True


def _with_newlines(pieces: Iterable[TextChunk]) -> Iterator[TextChunk]:
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for text, last, origin in pieces:
        yield TextChunk(decoder.decode(text, final=last), last, origin)


def decode_utf8(chunks: Iterable[bytes], where: str) -> Iterator[str]:
    """The text of a UTF-8 file. A byte order mark at its start is dropped; every other character stays as it is.

    Args:
        chunks: the file's bytes, cut anywhere.
        where: the file's name, for the message.

    Raises:
        DataError: the file is not text. Names the offset of the first byte that shows it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, started, before = 0, False, b""
    for chunk in _with_end(chunks):
        pending = len(decoder.getstate()[0])
        nul = chunk.find(b"\0")
        try:
            text = decoder.decode(chunk[:nul] if nul >= 0 else chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _not_text(where, offset - pending + error.start, error.reason, chunk or before) from error
        if nul >= 0:
            raise _not_text(where, offset + nul, "a zero byte", chunk)
        offset, before = offset + len(chunk), chunk
        if text:
            yield text if started else text.removeprefix("\ufeff")
            started = True


def _with_end(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks that are not empty, then an empty one."""
    yield from filter(None, chunks)
    yield b""


def _not_text(where: str, offset: int, reason: str, chunk: bytes) -> DataError:
    found = sniff(chunk)
    known = found == "8-bit" or found.startswith("utf-")  # of a chunk within a file, nothing else is sure
    remedy = advice(found, where) if known else "Fix or replace it: it may be damaged, or hold more than text."
    return DataError(f"{where} is not UTF-8 text", got=f"{reason} at byte {offset:,}", remedy=remedy)
