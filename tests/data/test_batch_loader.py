"""Batches: no token lost, every epoch a permutation, and the same whatever the rank, the world, or the history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.config import IGNORE_INDEX
from minigpt.data import Batch, BatchLoader, TokenFile, TokenFileWriter
from minigpt.errors import ConfigError, DataError

shapes = st.tuples(st.integers(2, 200), st.integers(1, 12), st.integers(1, 7))  # tokens, block size, batch size


def distinct(n: int) -> np.ndarray:
    """Tokens that are all different, and none 0, so that each can be followed."""
    return np.arange(1, n + 1, dtype=np.uint16)


def pairs(batches: list[Batch]) -> list[tuple[int, int]]:
    """All (input, target) of some batches that count."""
    return [
        (int(x), int(y)) for batch in batches for x, y in zip(batch.x.ravel(), batch.y.ravel(), strict=True) if y >= 0
    ]


def epoch_of(batches: BatchLoader, epoch: int) -> list[Batch]:
    first = epoch * batches.steps_per_epoch
    return [batches.batch(first + step) for step in range(batches.steps_per_epoch)]


@given(shape=shapes, seed=st.integers(0, 5), epoch=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_epoch_has_every_target_once(shape: tuple[int, int, int], seed: int, epoch: int):
    n, block_size, batch_size = shape
    n += block_size  # a whole sequence at least
    batches = BatchLoader(distinct(n), block_size, batch_size, seed)
    found = epoch_of(batches, epoch)
    assert sorted(pairs(found)) == [(i, i + 1) for i in range(1, n)]
    for x, y in found:
        assert x.shape == y.shape == (batch_size, block_size)
        assert x.dtype == y.dtype == np.int64
        assert (x >= 0).all()
        assert (y >= IGNORE_INDEX).all()


@given(shape=shapes)
@settings(max_examples=150, deadline=None)
def test_in_order_has_every_target_once_in_order(shape: tuple[int, int, int]):
    n, block_size, batch_size = shape
    batches = BatchLoader(distinct(n), block_size, batch_size)
    found = list(batches.in_order())
    assert len(found) == batches.steps_per_epoch
    assert pairs(found) == [(i, i + 1) for i in range(1, n)]
    assert {batch.x.shape for batch in found} == {(batch_size, block_size)}
    assert pairs(list(batches.in_order(batch_size=3))) == pairs(found)


@given(shape=shapes, world_size=st.integers(1, 4), step=st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_the_ranks_together_are_the_one_process(shape: tuple[int, int, int], world_size: int, step: int):
    n, block_size, per_rank = shape
    batches, *ranks = (
        BatchLoader(distinct(n + block_size), block_size, per_rank * world_size, 3, rank, size)
        for rank, size in ((0, 1), *((rank, world_size) for rank in range(world_size)))
    )
    parts = zip(*(loader.batch(step) for loader in ranks), strict=True)
    for part, all_rows in zip(parts, batches.batch(step), strict=True):
        assert np.array_equal(np.concatenate(part), all_rows)
    validation = [list(loader.in_order()) for loader in ranks]
    assert sorted(pair for rank in validation for pair in pairs(rank)) == pairs(list(batches.in_order()))


def test_a_step_does_not_depend_on_the_steps_before():
    batches = BatchLoader(distinct(5000), 16, 8, seed=1)
    in_a_row = [batches.batch(step) for step in range(100)]
    for step in (99, 3, 50, 0):
        again = BatchLoader(distinct(5000), 16, 8, seed=1).batch(step)
        assert np.array_equal(again.x, in_a_row[step].x)
        assert np.array_equal(again.y, in_a_row[step].y)


def test_epochs_and_seeds_differ():
    epochs = [np.concatenate([b.x for b in epoch_of(BatchLoader(distinct(1000), 4, 5, seed), e)]) for seed, e in EPOCHS]
    assert len({epoch.tobytes() for epoch in epochs}) == len(EPOCHS)


EPOCHS = [(0, 0), (0, 1), (1, 0)]


def test_an_example_by_hand():
    batches = BatchLoader(distinct(10), 4, 2)
    assert (batches.n_sequences, batches.steps_per_epoch) == (3, 2)
    (x0, y0), (x1, y1) = batches.in_order()
    assert x0.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert y0.tolist() == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert x1.tolist() == [[9, 10, 0, 0], [0, 0, 0, 0]]
    assert y1.tolist() == [[10, -1, -1, -1], [-1, -1, -1, -1]]


@given(n_stretches=st.integers(2, 20), segment_length=st.integers(1, 9), block_size=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_targets_across_a_seam_do_not_count(
    tmp_path_factory: pytest.TempPathFactory, n_stretches: int, segment_length: int, block_size: int
):
    path = tmp_path_factory.mktemp("segment_length") / "x.tokens"
    with TokenFileWriter(path, 1000, "0" * 64, segment_length) as writer:
        writer.append(distinct(n_stretches * segment_length))
    shard = TokenFile.open(path)
    wanted = [(i, i + 1) for i in range(1, n_stretches * segment_length) if i % segment_length]
    assert pairs(list(BatchLoader(shard, block_size, 3).in_order())) == wanted
    assert pairs(list(BatchLoader(shard, block_size, 3).in_order(batch_size=2))) == wanted


def test_the_largest_ids_survive():
    tokens = np.array([2**32 - 1, 2**16, 0, 5], dtype=np.uint32)
    (batch,) = BatchLoader(tokens, 3, 1).in_order()
    assert batch.x.tolist() == [[2**32 - 1, 2**16, 0]]
    assert batch.y.tolist() == [[2**16, 0, 5]]


def test_too_few_tokens_are_refused():
    for n in (0, 1):
        with pytest.raises(DataError, match="at least two tokens"):
            BatchLoader(distinct(n), 4, 2)
    short = BatchLoader(distinct(4), 4, 2)
    assert pairs(list(short.in_order())) == [(1, 2), (2, 3), (3, 4)]
    with pytest.raises(DataError, match=r"4 tokens; 5 needed.*block-size to 3"):
        short.batch(0)
    assert BatchLoader(distinct(5), 4, 2).batch(0).x.shape == (2, 4)


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(ConfigError, match="6 sequences, 4 processes"):
        BatchLoader(distinct(100), 4, 6, world_size=4)
    for block_size, batch_size in ((0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ConfigError, match="must be positive"):
            BatchLoader(distinct(100), block_size, batch_size)
