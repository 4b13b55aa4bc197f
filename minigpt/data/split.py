"""The first reading of the text: which documents there are, and whether each goes to training or validation.

Of each document its size and a 128-bit hash are kept, 25 bytes, so that duplicates can be dropped and the split be
chosen before anything is encoded. Whole documents go to one split each; where there are too few of them for that, the
end of the text becomes validation, and a note says so. The split by sequences is made of tokens: pack.py.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minigpt.data.permutation import Permutation
from minigpt.data.sources import Source

TRAIN, VAL, DROPPED = 0, 1, 2

MIN_DOCUMENTS = 10  # with fewer, whole documents do not make a fair split
MAX_FILLERS = 16


@dataclass(frozen=True)
class Corpus:
    """What the first reading found."""

    sizes: npt.NDArray[np.uint64]  # the UTF-8 bytes of each document in the order of reading, uint64, shape (n,)
    used: npt.NDArray[np.bool_]  # which documents are used, bool, shape (n,)
    duplicates: int  # how many are not, because an equal one came before
    empty: int  # how many are not, because they are blank
    # the number of the first document of the user's own validation files, which come last; n without any
    first_val: int
    also_in_val: int = 0  # how many before it are not used, because an equal one is in those files

    @property
    def n_documents(self) -> int:
        """How many documents are used."""
        return int(self.used.sum())

    @property
    def text_bytes(self) -> int:
        """How many UTF-8 bytes are used."""
        return int(self.sizes[self.used].sum())


@dataclass(frozen=True)
class SplitAssignment:
    """Which split each document goes to."""

    method: str  # `document`, `tail`, `sequence` or `files`
    splits: npt.NDArray[np.uint8]  # TRAIN, VAL or DROPPED for each document in the order of reading, uint8, shape (n,)
    cut_document: int = -1  # the number of the one document that is cut in two, or -1
    cut_byte: int = 0  # about where it is cut; training gets the beginning
    note: str = ""  # what the user should know about it, or an empty string


def read_corpus(
    sources: Sequence[Source], on_progress: Callable[[int], None], val_sources: Sequence[Source] = ()
) -> Corpus:
    """Reads everything once.

    Args:
        sources: what to read, in order.
        on_progress: called with the bytes of text read so far.
        val_sources: the user's own validation files, read last. They are used whole, duplicates included; their
            documents are dropped from the other sources.

    Raises:
        DataError: something cannot be read, or is not text.
    """
    digests, sizes, blanks = bytearray(), array("Q"), array("B")
    starts: list[int] = []  # the number of each source's first document
    total = size = 0
    digest, blank = hashlib.blake2b(digest_size=16), True
    for source in [*sources, *val_sources]:
        starts.append(len(sizes))
        for chunk in source.read():
            content = chunk.text.encode()
            digest.update(content)
            size += len(content)
            blank = blank and (not content or chunk.text.isspace())
            on_progress(total + size)
            if chunk.last:
                digests += digest.digest()
                sizes.append(size)
                blanks.append(blank)
                total, size = total + size, 0
                digest, blank = hashlib.blake2b(digest_size=16), True
    first_val = [*starts, len(sizes)][len(sources)]
    empty = np.frombuffer(blanks, dtype=np.bool_)
    also_in_val, repeated = np.zeros_like(empty), np.zeros_like(empty)
    train, val = np.split(np.frombuffer(digests, dtype="S16"), [first_val])
    also_in_val[:first_val] = np.isin(train, val)
    repeated[:first_val] = _repeated(train.view(np.uint64).reshape(-1, 2))
    return Corpus(
        np.frombuffer(sizes, dtype=np.uint64),
        ~(empty | repeated | also_in_val),
        int((repeated & ~also_in_val & ~empty).sum()),
        int(empty.sum()),
        first_val,
        int((also_in_val & ~empty).sum()),
    )


def _repeated(digests: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which rows of (n, 2) equal an earlier row; bool, shape (n,)."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: the first of equals stays first
    ordered = digests[order]
    repeated = np.zeros(len(digests), dtype=bool)
    repeated[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return repeated


def assign_files(corpus: Corpus) -> SplitAssignment:
    """The user's own files to validation, and everything else to training."""
    return SplitAssignment("files", _splits(corpus, corpus.first_val))


def assign_documents(corpus: Corpus, val_fraction: float, seed: int) -> SplitAssignment:
    """Random whole documents to validation, as near `val_fraction` of the bytes as they allow; otherwise the tail.

    Args:
        corpus: at least one document is used.
        val_fraction: between 0 and 0.5.
        seed: decides which documents.
    """
    numbers = np.flatnonzero(corpus.used)
    if len(numbers) < MIN_DOCUMENTS:
        return _assign_tail(corpus, val_fraction, f"There are fewer than {MIN_DOCUMENTS} documents")
    sizes = corpus.sizes[numbers].astype(np.int64)
    target = val_fraction * corpus.text_bytes
    chosen = choose_documents(sizes, target, seed)
    if not 0.5 * target <= sizes[chosen].sum() <= 1.5 * target:
        return _assign_tail(corpus, val_fraction, "No choice of whole documents comes near the requested share")
    splits = np.full(len(corpus.used), DROPPED, dtype=np.uint8)
    splits[numbers] = np.where(chosen, VAL, TRAIN)
    return SplitAssignment("document", splits)


def choose_documents(sizes: npt.NDArray[np.int64], target: float, seed: int) -> npt.NDArray[np.bool_]:
    """Random documents whose sizes add up to about `target`; bool, shape (n,).

    A shuffled order is followed as far as it fits; the rest is filled with the one document that brings the sum
    nearest, as long as one does.
    """
    order = Permutation(len(sizes), seed)(np.arange(len(sizes)))
    fitting = int(np.searchsorted(np.cumsum(sizes[order]), target, side="right"))
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[order[:fitting]] = True
    rest = order[fitting:]
    for _ in range(min(MAX_FILLERS, len(rest))):
        missing = target - sizes[chosen].sum()
        distances = np.where(chosen[rest], np.inf, np.abs(missing - sizes[rest]))
        best = int(distances.argmin())
        if distances[best] >= abs(missing):
            break
        chosen[rest[best]] = True
    return chosen


def _assign_tail(corpus: Corpus, val_fraction: float, reason: str) -> SplitAssignment:
    ends = np.cumsum(np.where(corpus.used, corpus.sizes, 0).astype(np.int64))
    cut = int(ends[-1]) - max(1, round(val_fraction * int(ends[-1])))
    document = int(np.searchsorted(ends, cut, side="right"))  # the first that extends beyond the cut
    cut_byte = cut - (int(ends[document - 1]) if document else 0)
    note = f"{reason}, so validation is the end of the text (about {val_fraction:.0%})."
    return SplitAssignment("tail", _splits(corpus, document), document if cut_byte else -1, cut_byte, note)


def _splits(corpus: Corpus, first_val: int) -> npt.NDArray[np.uint8]:
    """Training before a document, validation from it on."""
    splits = np.where(np.arange(len(corpus.used)) < first_val, TRAIN, VAL).astype(np.uint8)
    splits[~corpus.used] = DROPPED
    return splits
