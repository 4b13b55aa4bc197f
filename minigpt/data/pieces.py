"""Text in bounded pieces, so that a document of any length passes through the same few megabytes.

A piece ends where GPT-2's pre-tokeniser splits anyhow (`minigpt.tokenizers.safe_cut`): encoding the pieces one by one
gives exactly the ids of the whole. Only where four million characters hold no such place (no space, no end of line),
a piece is cut between two characters as it comes, and one token there may differ.

Not here: where text comes from (sources.py).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minigpt.errors import DataError
from minigpt.tokenizers import safe_cut

PIECE_CHARACTERS = 2**18  # 2**20 is no faster and takes 130 MB more
MAX_PIECE_CHARACTERS = 2**22  # where there is no safe place to cut

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Origin(NamedTuple):
    """Where a document comes from, to be shown.

    Attributes:
        name: the file, as seen from where the user's own folder stands (`notes/a.txt`), or what stands for one; never
            an absolute path.
        row: the number of the record in it, from 1: a line, a row; 0 where the whole file is the document.
    """

    name: str
    row: int = 0


NOWHERE = Origin("")


class Piece(NamedTuple):
    """A part of a document.

    Attributes:
        text: its text. Joined, the pieces of a document are the document.
        last: whether the document ends here.
        origin: where the document comes from; the same for all its pieces.
    """

    text: str
    last: bool
    origin: Origin = NOWHERE


def pieces_of(chunks: Iterable[str], origin: Origin = NOWHERE) -> Iterator[Piece]:
    """One document, given in chunks cut anywhere, as pieces cut at safe places. There is always a last piece."""
    held = ""
    for chunk in chunks:
        held += chunk
        if len(held) < PIECE_CHARACTERS:
            continue
        cut = safe_cut(held)
        if not cut and len(held) >= MAX_PIECE_CHARACTERS:
            cut = len(held) - 1
        if cut:
            yield Piece(held[:cut], last=False, origin=origin)
            held = held[cut:]
    yield Piece(held, last=True, origin=origin)


def record_pieces(text: object, where: str, origin: Origin = NOWHERE) -> Iterator[Piece]:
    """One document that is in memory already, as the field of a record is.

    Args:
        text: the field's value.
        where: the file and line, for the message.
        origin: the same, to be shown and kept.

    Raises:
        DataError: it is no string, or no text (half a surrogate pair, which JSON can say and UTF-8 cannot).
    """
    if not isinstance(text, str):
        raise DataError(
            f"The text of {where} is no string", seen=type(text).__name__, remedy="Name another --text-column."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text of {where} holds half of a surrogate pair",
            seen=f"character {error.start}",
            remedy="Mend or remove the record.",
        ) from error
    return pieces_of((text[i : i + PIECE_CHARACTERS] for i in range(0, len(text), PIECE_CHARACTERS)), origin)


def decode_utf8(chunks: Iterable[bytes], where: str) -> Iterator[str]:
    """The text of a UTF-8 file. A byte order mark at its start is dropped; every other character stays as it is.

    Args:
        chunks: the file's bytes, cut anywhere.
        where: the file's name, for the message.

    Raises:
        DataError: the file is no text. Names the offset of the first byte that shows it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, started, utf16 = 0, False, False
    for chunk in _with_end(chunks):
        utf16 = utf16 or (offset == 0 and chunk[:2] in _UTF16_MARKS)
        pending = len(decoder.getstate()[0])
        nul = chunk.find(b"\0")
        try:
            text = decoder.decode(chunk[:nul] if nul >= 0 else chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _no_text(where, offset - pending + error.start, error.reason, utf16) from error
        if nul >= 0:
            raise _no_text(where, offset + nul, "a zero byte", utf16)
        offset += len(chunk)
        if text:
            yield text if started else text.removeprefix("\ufeff")
            started = True


def _with_end(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks that are not empty, then an empty one."""
    yield from filter(None, chunks)
    yield b""


def _no_text(where: str, offset: int, reason: str, utf16: bool) -> DataError:
    known = "It starts like UTF-16: convert it with `iconv -f utf-16 -t utf-8`." if utf16 else ""
    return DataError(
        f"{where} is no UTF-8 text",
        seen=f"{reason} at byte {offset:,}",
        remedy=known or "Leave the file out (--pattern chooses files of a folder), or convert it to UTF-8.",
    )
