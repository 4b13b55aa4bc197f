"""How much of the validation text also occurs in the training text: the share of its 32-token windows that do.

A loss on text that was trained on measures memory, not prediction. Preparing drops exact duplicates of whole documents;
quotations, licences and reprints remain, and are measured here.

Validation's windows do not overlap; training's begin at every position. Both become 64-bit numbers by a rolling hash,
computed for a whole stretch of tokens at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from minigpt.data.permutation import U64, mix
from minigpt.data.token_file import TokenFile, Tokens
from minigpt.tokenizers import usable_cores

WINDOW = 32  # a power of two, for `window_hashes`; some 25 words of English, which do not coincide by chance
MAX_WINDOWS = 1_000_000
CHUNK = 2**18  # tokens at once: what is worked on stays in the cache
WINDOWS_AT_ONCE = 2**13
TABLE_BITS = 24
_BASE = 0x9E3779B97F4A7C15  # odd, so that multiplying by it loses nothing


def contamination(
    train: TokenFile, val: TokenFile | Tokens, on_progress: Callable[[int], None] = lambda n_tokens: None
) -> tuple[float, int]:
    """The share of validation's windows that occur anywhere in the training tokens.

    Args:
        train: the training tokens, read in stretches.
        val: the validation tokens, or those of any text.
        on_progress: called with the number of training tokens done.

    Returns:
        The share, from 0 to 1, and how many windows it is a share of: at most a million, evenly spaced. Without any
        window, (0.0, 0).
    """
    n_tokens, read = (val.n_tokens, val.read) if isinstance(val, TokenFile) else (len(val), lambda a, b: val[a:b])
    starts = np.arange(0, n_tokens - WINDOW + 1, WINDOW, dtype=np.int64)
    if len(starts) > MAX_WINDOWS:
        starts = starts[np.linspace(0, len(starts) - 1, MAX_WINDOWS).astype(np.int64)]
    if not len(starts):
        return 0.0, 0
    names = mix(np.arange(train.vocab_size, dtype=np.uint64) ^ np.uint64(_BASE))  # a random number for every id
    wanted, window_of = np.unique(_hashes_at(read, starts, names), return_inverse=True)
    found = np.zeros(len(wanted), dtype=bool)
    # 24 bits of a hash tell most windows apart, with one access to a table that fits the cache.
    shift = np.uint64(64 - TABLE_BITS)
    possible = np.zeros(2**TABLE_BITS, dtype=bool)
    possible[wanted >> shift] = True

    def look_up(start: int) -> int:
        hashes = window_hashes(names[train.read(start, start + CHUNK + WINDOW - 1)])
        hashes = hashes[possible[hashes >> shift]]
        places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        found[places[wanted[places] == hashes]] = True  # all threads write the same True
        return start

    pool = ThreadPoolExecutor(usable_cores())
    try:
        for start in pool.map(look_up, range(0, max(0, train.n_tokens - WINDOW + 1), CHUNK)):
            on_progress(min(start + CHUNK, train.n_tokens))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return float(found[window_of].mean()), len(starts)


def window_hashes(names: U64) -> U64:
    """The hash of the window that starts at each position.

    Args:
        names: a number for each token, shape (n,).

    Returns:
        uint64, shape (n - 31,), or empty: the sum of names[i + j] * BASE^(31 - j), modulo 2^64. Two neighbouring
        windows make one of twice the width, so 32 tokens take five steps.
    """
    hashes, width = names, 1
    while width < WINDOW:
        hashes = hashes[:-width] * np.uint64(pow(_BASE, width, 2**64)) + hashes[width:]
        width *= 2
    return hashes


def _hashes_at(read: Callable[[int, int], Tokens], starts: npt.NDArray[np.int64], names: U64) -> U64:
    """The hashes of some windows only, shape (len(starts),), in stretches so that memory stays small."""
    powers = np.array([pow(_BASE, WINDOW - 1 - j, 2**64) for j in range(WINDOW)], dtype=np.uint64)
    hashes = []
    for part in np.array_split(starts, -(-len(starts) // WINDOWS_AT_ONCE)):
        stretch = read(int(part[0]), int(part[-1]) + WINDOW)
        places = (part - part[0])[:, None] + np.arange(WINDOW)  # (part, WINDOW)
        hashes.append((names[stretch[places]] * powers).sum(axis=1, dtype=np.uint64))  # (part,)
    return np.concatenate(hashes)
