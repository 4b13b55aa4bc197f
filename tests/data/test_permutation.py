"""The shuffled order: one-to-one for every n, and the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data.permutation import Permutation


@given(n=st.integers(1, 3000), seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_it_is_one_to_one(n: int, seed: int, epoch: int):
    assert np.array_equal(np.sort(Permutation(n, seed, epoch)(np.arange(n))), np.arange(n))


@given(n=st.integers(1, 2**40), seed=st.integers(0, 2**64 - 1), data=st.data())
@settings(max_examples=100, deadline=None)
def test_one_place_is_found_without_the_others(n: int, seed: int, data: st.DataObject):
    places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True))
    permutation = Permutation(n, seed)
    together = permutation(places)
    assert [int(permutation(place)) for place in places] == together.tolist()
    assert len(set(together.tolist())) == len(places)
    assert ((together >= 0) & (together < n)).all()
    assert permutation(np.array([places])).shape == (1, len(places))


def test_the_order_is_fixed_for_all_time():
    # A change here means that a resumed run sees other batches than it would have: raise the version of checkpoints.
    assert Permutation(1000, 42, 3)(np.arange(8)).tolist() == [758, 788, 819, 143, 669, 866, 619, 865]
    assert Permutation(10**12, 7)(np.arange(3)).tolist() == [388272942096, 184855215832, 475469568888]


def test_seeds_and_epochs_give_other_orders():
    orders = {tuple(Permutation(50, seed, epoch)(np.arange(50))) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


@pytest.mark.parametrize("n", [3, 4])
def test_all_orders_of_a_few_things_are_about_as_frequent(n: int):
    orders, counts = np.unique([Permutation(n, seed)(np.arange(n)) for seed in range(2400)], axis=0, return_counts=True)
    assert len(orders) == {3: 6, 4: 24}[n]
    assert counts.min() > 0.6 * 2400 / len(orders)


def test_neighbours_are_scattered():
    order = Permutation(10_000, 5)(np.arange(10_000))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05
