"""Contamination, against an implementation that keeps all windows in a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data import TokenFile, TokenFileWriter
from minigpt.data import contamination as module
from minigpt.data.contamination import WINDOW, contamination, window_hashes


def token_file(path: Path, ids: np.ndarray) -> TokenFile:
    with TokenFileWriter(path, 1000, "0" * 64) as writer:
        writer.append(ids)
    return TokenFile.open(path)


def naive(train: np.ndarray, val: np.ndarray) -> tuple[float, int]:
    known = {train[i : i + WINDOW].tobytes() for i in range(len(train) - WINDOW + 1)}
    windows = [val[i : i + WINDOW].tobytes() for i in range(0, len(val) - WINDOW + 1, WINDOW)]
    return (sum(window in known for window in windows) / len(windows) if windows else 0.0), len(windows)


@given(data=st.data(), seed=st.integers(0, 100), chunk=st.sampled_from([1, 7, 32, 1000]))
@settings(max_examples=60, deadline=None)
def test_it_equals_a_set_of_windows(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, seed: int, chunk: int
):
    rng = np.random.default_rng(seed)
    train, val = (rng.integers(0, 1000, data.draw(st.integers(0, 300))).astype("<u2") for _ in range(2))
    for _ in range(data.draw(st.integers(0, 3))):  # quotations
        length = data.draw(st.integers(0, min(len(train), len(val))))
        start = data.draw(st.integers(0, len(train) - length))
        place = data.draw(st.integers(0, len(val) - length))
        val[place : place + length] = train[start : start + length]
    folder = tmp_path_factory.mktemp("overlap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = contamination(token_file(folder / "train", train), token_file(folder / "val", val))
    assert found == pytest.approx(naive(train, val))


def test_windows_that_differ_in_one_place_or_in_order_differ():
    names = np.arange(1, 1001, dtype=np.uint64)  # the worst names: small numbers in a row
    one_other = np.zeros((WINDOW, WINDOW), dtype=int)
    np.fill_diagonal(one_other, 1)
    rotated = np.array([np.roll(np.arange(WINDOW), shift) for shift in range(WINDOW)])
    hashes = [int(window_hashes(names[row])[0]) for row in (*one_other, *rotated)]
    assert len(set(hashes)) == 2 * WINDOW


def test_many_windows_are_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_WINDOWS", 10)
    tokens = np.random.default_rng(0).integers(0, 1000, 100 * WINDOW)
    half = tokens.copy()
    half[: 50 * WINDOW] = 0
    share, n_windows = contamination(token_file(tmp_path / "train", half), token_file(tmp_path / "val", tokens))
    assert (share, n_windows) == (0.5, 10)


def test_progress_ends_with_all_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHUNK", 100)
    tokens = np.random.default_rng(0).integers(0, 1000, 1000)
    both = token_file(tmp_path / "train", tokens)
    done: list[int] = []
    assert contamination(both, both, done.append) == (1.0, 31)
    assert done == sorted(done)
    assert done[-1] == 1000
