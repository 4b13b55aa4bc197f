"""Where the end of a text also occurs in the training text: the longest such end, and what follows it there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.unsignedinteger[Any]]


def longest_match(training: Tokens, ids: npt.NDArray[np.int64]) -> tuple[int, npt.NDArray[np.int64]]:
    """Returns the length of the longest end of `ids` that occurs in the training tokens, and where each place ends.

    One pass over the training tokens, then over the places only.

    Returns:
        The number of tokens, 0 if not even the last occurs; and the positions after each occurrence, rising.
    """
    ends = np.flatnonzero(np.asarray(training) == ids[-1]) + 1
    if not len(ends):
        return 0, ends
    length = 1
    while length < len(ids):
        longer = ends[ends > length]
        longer = longer[training[longer - length - 1] == ids[-length - 1]]
        if not len(longer):
            break
        ends, length = longer, length + 1
    return length, ends


def followers(training: Tokens, ends: npt.NDArray[np.int64], count: int) -> list[tuple[int, int]]:
    """Returns the most frequent tokens at some positions of the training tokens, each with its number."""
    return Counter(training[ends[ends < len(training)]].tolist()).most_common(count)
