"""Documents in chunks of bounded size, so that a text of any length passes through the same few megabytes.

A chunk ends where GPT-2's pre-tokenizer splits anyway (`minigpt.tokenizers.last_safe_split`), so that encoding the
chunks one by one gives exactly the ids of the whole. Only where a million characters have no such place (no space, no
line end), a chunk is cut between two arbitrary characters, and one token there may differ.

Where text comes from: sources.py.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from minigpt.errors import DataError
from minigpt.sniff import advice, sniff
from minigpt.tokenizers import last_safe_split

CHUNK_CHARACTERS = 2**18  # 2**20 is no faster and takes 130 MB more
MAX_CHUNK_CHARACTERS = 2**20  # without a safe place to cut: a word of this length is encoded in half a second


class DocumentOrigin(NamedTuple):
    """Where a document comes from."""

    # the file, relative to what the user named (`notes/a.txt`), or what takes its place; never an absolute path
    name: str = ""
    record: int = 0  # the number of the line, row or part in it, from 1; 0 where the whole file is the document

    @property
    def title(self) -> str:
        """What the document is called: its file, and after a colon the number of its record."""
        return f"{self.name}:{self.record}" if self.record else self.name


UNKNOWN = DocumentOrigin()


class TextChunk(NamedTuple):
    """A part of a document."""

    text: str  # its text. The chunks of a document, joined, are the document
    last: bool  # whether the document ends here
    origin: DocumentOrigin = UNKNOWN  # where the document comes from; the same for all its chunks


def text_chunks(parts: Iterable[str], origin: DocumentOrigin = UNKNOWN) -> Iterator[TextChunk]:
    """One document, given in parts cut anywhere, as chunks cut at safe places. There is always a last chunk."""
    return cut_safely(chain((TextChunk(part, False, origin) for part in parts), [TextChunk("", True, origin)]))


def cut_safely(parts: Iterable[TextChunk]) -> Iterator[TextChunk]:
    """Documents cut anywhere, as chunks cut at safe places."""
    held = ""
    for text, last, origin in parts:
        held += text
        if last:
            yield TextChunk(held, True, origin)
            held = ""
        elif len(held) >= CHUNK_CHARACTERS:
            cut = last_safe_split(held)
            if not cut and len(held) >= MAX_CHUNK_CHARACTERS:
                cut = len(held) - 1
            if cut:
                yield TextChunk(held[:cut], False, origin)
                held = held[cut:]


def record_chunks(value: object, where: str, origin: DocumentOrigin = UNKNOWN) -> Iterator[TextChunk]:
    """One document that is in memory already: the field of a record. None is an empty document.

    Args:
        value: the field's value.
        where: the file and line, for the message.
        origin: where the document comes from.

    Raises:
        DataError: the value is not a string, or has a lone surrogate, which JSON can express and UTF-8 cannot.
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
        what = f"The text of {where} contains a lone surrogate, which UTF-8 cannot encode"
        raise DataError(what, got=f"character {error.start}", remedy="Fix or remove the record.") from error
    return text_chunks((text[i : i + CHUNK_CHARACTERS] for i in range(0, len(text), CHUNK_CHARACTERS)), origin)


def split_at(chunks: Iterable[TextChunk], separator: str) -> Iterator[TextChunk]:
    """Each document split at every occurrence of a string, which is dropped: `str.split`, in bounded memory."""
    return cut_safely(_split_anywhere(chunks, separator))


def split_lines(chunks: Iterable[TextChunk]) -> Iterator[TextChunk]:
    r"""Each line as a document, without its end (\n, \r\n or \r). Blank lines are skipped."""
    return cut_safely(_split_anywhere(_with_newlines(chunks), "\n", blanks=False))


def _split_anywhere(chunks: Iterable[TextChunk], separator: str, blanks: bool = True) -> Iterator[TextChunk]:
    """The parts of documents between separators, cut anywhere. The parts of a file are numbered; those of a record keep
    its number. Without `blanks`, white space is not passed on, unless it is longer than a chunk."""
    held, number, begun = "", 1, False
    for text, last, (name, record) in chunks:
        *ended, held = (held + text).split(separator)
        for document in [*ended, held] if last else ended:
            if blanks or begun or (document and not document.isspace()):
                yield TextChunk(document, True, DocumentOrigin(name, record or number))
            number, begun = number + 1, False
        if last:
            held, number = "", 1
            continue
        cut = len(held) + 1 - len(separator)  # the rest may be the beginning of a separator
        if cut > 0 and (blanks or begun or not held.isspace() or cut >= CHUNK_CHARACTERS):
            yield TextChunk(held[:cut], False, DocumentOrigin(name, record or number))
            held, begun = held[cut:], True


def _with_newlines(chunks: Iterable[TextChunk]) -> Iterator[TextChunk]:
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for text, last, origin in chunks:
        yield TextChunk(decoder.decode(text, final=last), last, origin)


def decode_utf8(blocks: Iterable[bytes], where: str) -> Iterator[str]:
    """The text of a UTF-8 file. A byte order mark at its start is dropped; every other character stays as it is.

    Args:
        blocks: the file's bytes, cut anywhere.
        where: the file's name, for the message.

    Raises:
        DataError: the file is not text; the message has the offset of the first byte that shows it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, started, before = 0, False, b""
    for block in chain(filter(None, blocks), [b""]):
        pending = len(decoder.getstate()[0])
        nul = block.find(b"\0")
        try:
            text = decoder.decode(block[:nul] if nul >= 0 else block, final=not block)
        except UnicodeDecodeError as error:
            raise _not_text(where, offset - pending + error.start, error.reason, block or before) from error
        if nul >= 0:
            raise _not_text(where, offset + nul, "a zero byte", block)
        offset, before = offset + len(block), block
        if text:
            yield text if started else text.removeprefix("\ufeff")
            started = True


def _not_text(where: str, offset: int, reason: str, block: bytes) -> DataError:
    found = sniff(block)
    known = found == "8-bit" or found.startswith("utf-")  # a block from the middle of a file tells nothing else
    remedy = advice(found, where) if known else "Fix or replace it: it may be damaged, or contain more than text."
    return DataError(f"{where} is not UTF-8 text", got=f"{reason} at byte {offset:,}", remedy=remedy)
