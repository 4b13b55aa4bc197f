"""What the documents of a split are called: `val.documents` next to `val.tokens`, a text file.

    "notes/a.txt"       the name of a file, as a JSON string, and below it its documents:
    0                   the file itself
    "stories.jsonl"
    17                  the record in line 17
    21 3                the records in lines 21, 22 and 23

They are in the order of the tokens. Names are relative to what the user named (`chunks.DocumentOrigin`): none tells
where the user's folders are.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from minigpt.data.chunks import DocumentOrigin
from minigpt.errors import DataError
from minigpt.files import read_lines, why

SUFFIX = ".documents"


class DocumentNamesWriter:
    """Writes the file document by document; one line at a time is in memory.

    Args:
        path: the file to make; it must not exist.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="ascii", newline="\n")
        self._name: str | None = None
        self._record = self._count = 0  # the line that is not written yet

    def add(self, origin: DocumentOrigin) -> None:
        """Adds a document."""
        if origin.name == self._name and self._record and origin.record == self._record + self._count:
            self._count += 1
            return
        self._write_records()
        if origin.name != self._name:
            self._file.write(json.dumps(_encodable(origin.name)) + "\n")
        self._name, self._record, self._count = origin.name, origin.record, 1

    def _write_records(self) -> None:
        if self._count:
            self._file.write(f"{self._record} {self._count}\n" if self._count > 1 else f"{self._record}\n")

    def __enter__(self) -> DocumentNamesWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._write_records()


class DocumentNames(Sequence[str]):
    """The names of a split's documents, in their order: `a.txt`, `stories.jsonl:17`."""

    def __init__(self, lines: Iterator[str], n_documents: int) -> None:
        """Reads the lines of a file.

        Raises:
            ValueError: they are not what `DocumentNamesWriter` writes, or not of this number of documents.
        """
        self._names: list[str] = []
        self._files, self._records = array("I"), array("Q")  # of each document: which name, and which record
        for line in lines:
            if line.startswith('"'):
                self._names.append(_encodable(str(json.loads(line))))
                continue
            record, count = map(int, [*line.split(), "1"][:2])
            if not self._names or record < 0 or count < 1 or (count > 1 and not record):
                raise ValueError(f"not a document: {line[:40]!r}")
            if len(self) + count > n_documents:
                raise ValueError(f"more than {n_documents:,} documents")
            self._files.extend([len(self._names) - 1] * count)
            self._records.extend(range(record, record + count))
        if len(self) != n_documents:
            raise ValueError(f"{len(self):,} documents, not {n_documents:,}")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> str:  # type: ignore[override]  # no slices
        if number < 0:
            raise IndexError(number)
        return DocumentOrigin(self._names[self._files[number]], self._records[number]).title


def _encodable(name: str) -> str:
    """A name without lone surrogates: file systems allow any bytes."""
    return name.encode(errors="replace").decode()


def read_document_names(path: Path, n_documents: int) -> DocumentNames | None:
    """The names in a file, or None if it does not exist.

    Raises:
        DataError: it is damaged, or of other documents.
    """
    if not path.exists():
        return None
    try:
        *lines, rest = read_lines(path)
        if rest:
            raise ValueError("it is cut short")
        return DocumentNames((line.decode("ascii") for line in lines), n_documents)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} is damaged",
            got=why(error),
            remedy="Remove it, and documents are called by their first words; or prepare the data again.",
        ) from error
