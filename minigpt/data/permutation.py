"""A shuffled order of n things that is never held in memory.

A Feistel network turns any function of half a number into a one-to-one map of numbers with an even count of
bits, and "cycle walking" (apply it again while the result is too large) narrows that map to range(n). So the
place of the billionth sequence in the fifth epoch costs as much as that of the first, and starting again in
the middle costs nothing. Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002.

Only 64-bit unsigned arithmetic is used, so the order is the same on every machine and in every version of
numpy. It is a shuffle, not a cipher: no secret should rest on it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

N_ROUNDS = 6  # four look random already for large n; the few bits of a small n need more mixing


def mix(values: U64) -> U64:
    """SplitMix64's finaliser: a one-to-one map of 64 bits in which every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Permutation:
    """A one-to-one map of range(n) onto itself, decided by a seed and an epoch.

    Args:
        n: how many things; at least 1.
        seed: any integer; only its lowest 64 bits count.
        epoch: another order for every epoch.
    """

    def __init__(self, n: int, seed: int, epoch: int = 0) -> None:
        assert n >= 1, n
        self.n = n
        self._half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
        keys, epochs = (np.array([number % 2**64], dtype=np.uint64) for number in (seed, epoch))
        self._round_keys = mix(mix(mix(keys) ^ epochs) ^ np.arange(1, N_ROUNDS + 1, dtype=np.uint64))

    def __len__(self) -> int:
        return self.n

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The items at some positions: int64, of the shape of `positions`, all in range(n)."""
        values = np.asarray(positions, dtype=np.uint64)
        assert values.size == 0 or int(values.max()) < self.n, "position out of range"
        shape = values.shape
        values = self._scramble(values.ravel())
        while (outside := np.flatnonzero(values >= self.n)).size:  # on average fewer than three times
            values[outside] = self._scramble(values[outside])
        return values.reshape(shape).astype(np.int64)

    def _scramble(self, values: U64) -> U64:
        bits = np.uint64(self._half_bits)
        mask = np.uint64(2**self._half_bits - 1)
        left, right = values >> bits, values & mask
        for key in self._round_keys:
            left, right = right, left ^ (mix(right ^ key) & mask)
        return (left << bits) | right
