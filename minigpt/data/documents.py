"""What the documents of a split are called: `val.documents` beside `val.tokens`, a text file to be looked into.

    "notes/a.txt"       a line for a file that is a document, as JSON writes a string
    "stories.jsonl"     or for one that holds records, and beneath it lines with the records' numbers:
    17                  the 17th line of that file
    21 3                the 21st, 22nd and 23rd

They are in the order of the tokens; about two bytes a document for records, else the length of the name. Names are as
the sources say (`pieces.ChunkOrigin`): none tells where the user's folders are.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from minigpt.data.chunks import ChunkOrigin
from minigpt.errors import DataError
from minigpt.files import read_lines, why

SUFFIX = ".documents"


class DocumentsWriter:
    """Writes the file document by document; what is in memory is one line.

    Args:
        path: the file to make; it must not exist.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="ascii", newline="\n")
        self._name, self._row, self._count = "", 0, 0  # the line that is not written yet: rows of a file

    def add(self, origin: ChunkOrigin) -> None:
        """Adds a document."""
        if self._count and origin == (self._name, self._row + self._count):
            self._count += 1
            return
        same_file = self._count and origin.name == self._name
        self._write_rows()
        if not origin.row or not same_file:
            self._file.write(json.dumps(_readable(origin.name)) + "\n")
        if origin.row:
            self._name, self._row, self._count = origin.name, origin.row, 1

    def _write_rows(self) -> None:
        if self._count:
            self._file.write(f"{self._row} {self._count}\n" if self._count > 1 else f"{self._row}\n")
        self._count = 0

    def __enter__(self) -> DocumentsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._write_rows()


class Documents(Sequence[str]):
    """The names of a split's documents, in their order: `a.txt`, `stories.jsonl:17`."""

    def __init__(self, lines: Iterator[str], n_documents: int) -> None:
        """Reads lines of a file.

        Raises:
            ValueError: they are not what `DocumentsWriter` writes, or not of so many documents.
        """
        self._names: list[str] = []
        starts, rows = array("q"), array("q")
        n, whole = 0, False  # documents so far; whether the last name is a document of its own
        for line in lines:
            if line.startswith('"'):
                row, count, whole = 0, 1, True
                name = _readable(str(json.loads(line)))
            else:
                row, count = map(int, [*line.split(), "1"][:2])
                if not self._names or row < 1 or count < 1:
                    raise ValueError(f"no document: {line[:40]!r}")
                name = self._names[-1]
                if whole:  # its name was no document, but its records are
                    n, whole = n - 1, False
                    for column in (self._names, starts, rows):
                        column.pop()
            if n + count > n_documents:
                raise ValueError(f"more than {n_documents:,} documents")
            self._names.append(name)
            starts.append(n)
            rows.append(row)
            n += count
        if n != n_documents:
            raise ValueError(f"{n:,} documents, not {n_documents:,}")
        self._starts, self._rows = np.frombuffer(starts, dtype=np.int64), np.frombuffer(rows, dtype=np.int64)
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, number: int) -> str:  # type: ignore[override]  # no slices
        if not 0 <= number < self._n:
            raise IndexError(number)
        place = int(np.searchsorted(self._starts, number, side="right")) - 1
        row = int(self._rows[place])
        return title(ChunkOrigin(self._names[place], row and row + number - int(self._starts[place])))


def _readable(name: str) -> str:
    """A name without what is no character: on the disk it may be of any bytes."""
    return name.encode(errors="replace").decode()


def title(origin: ChunkOrigin) -> str:
    """What a document is called: its file, and the number of its record behind a colon."""
    return f"{origin.name}:{origin.row}" if origin.row else origin.name


def read_documents(path: Path, n_documents: int) -> Documents | None:
    """The names in a file, or None if there is none.

    Raises:
        DataError: it is damaged, or of other documents.
    """
    if not path.exists():
        return None
    try:
        *lines, rest = read_lines(path)
        if rest:
            raise ValueError("it is cut short")
        return Documents((line.decode("ascii") for line in lines), n_documents)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} is damaged",
            got=why(error),
            remedy="Remove it, and documents are called by their first words; or prepare the data again.",
        ) from error
