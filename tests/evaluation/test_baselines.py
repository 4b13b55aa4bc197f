"""Unigram and bigram, against the formulas written out with dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from minigpt.data import TokenFile, TokenFileWriter
from minigpt.evaluation import baselines as module
from minigpt.evaluation.baselines import baselines

SIZE = 30
D = 0.75


def shard(folder: Path, ids: np.ndarray, segment_length: int = 0) -> TokenFile:
    with TokenFileWriter(folder / "train.tokens", SIZE, "00" * 32, segment_length) as writer:
        writer.append(ids.astype(np.uint32), n_documents=1, n_bytes=len(ids))
    return TokenFile.open(folder / "train.tokens")


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    """400 tokens of 25 kinds, a few of them often: five ids never occur."""
    return np.random.default_rng(0).geometric(0.15, size=400).clip(max=25) - 1


def naive(ids: np.ndarray, segment_length: int = 0):
    """The two probabilities as functions, one pair at a time."""
    pairs = [(int(v), int(w)) for i, (v, w) in enumerate(pairwise(ids), 1) if not segment_length or i % segment_length]
    count, pair_count = Counter(ids.tolist()), Counter(pairs)
    behind, before = defaultdict(set), defaultdict(set)
    for v, w in pairs:
        behind[v].add(w)
        before[w].add(v)
    firsts = Counter(v for v, _ in pairs)
    kinds_of_pairs = len(pair_count)

    def unigram(w: int) -> float:
        return max(count[w] - D, 0) / len(ids) + D * len(count) / len(ids) / SIZE

    def follower(w: int) -> float:
        return max(len(before.get(w, ())) - D, 0) / kinds_of_pairs + D * len(before) / kinds_of_pairs / SIZE

    def bigram(v: int, w: int) -> float:
        if not firsts[v]:
            return follower(w)
        return max(pair_count[v, w] - D, 0) / firsts[v] + D * len(behind.get(v, ())) / firsts[v] * follower(w)

    return count, unigram, bigram


@pytest.mark.parametrize("segment_length", [0, 16])
@pytest.mark.parametrize(("pairs_at_once", "tokens_at_once"), [(2**23, 2**21), (50, 64), (1, 1)])
def test_equal_to_the_formulas(ids, tmp_path, monkeypatch, segment_length, pairs_at_once, tokens_at_once):
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", pairs_at_once)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", tokens_at_once)
    previous, targets = (part.ravel() for part in np.meshgrid(np.arange(SIZE), np.arange(SIZE)))
    found = baselines(shard(tmp_path, ids, segment_length), previous, targets)
    count, unigram, bigram = naive(ids, segment_length)
    for i, (v, w) in enumerate(zip(previous.tolist(), targets.tolist(), strict=True)):
        assert found.count[i] == count[w]
        assert found.unigram[i] == pytest.approx(-math.log(unigram(w)), rel=1e-6)
        assert found.bigram[i] == pytest.approx(-math.log(bigram(v, w)), rel=1e-6)


def test_each_sums_to_one(ids, tmp_path):
    previous, targets = (part.ravel() for part in np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"))
    found = baselines(shard(tmp_path, ids), previous, targets)
    np.testing.assert_allclose(np.exp(-found.bigram).reshape(SIZE, SIZE).sum(axis=1), 1, rtol=1e-5)
    assert np.exp(-found.unigram[:SIZE]).sum() == pytest.approx(1, rel=1e-5)


def test_one_token_of_training_is_enough(tmp_path):
    found = baselines(shard(tmp_path, np.array([3])), np.array([3, 0]), np.array([3, 0]))
    assert found.count.tolist() == [1, 0]
    np.testing.assert_allclose(found.bigram, math.log(SIZE), rtol=1e-6)
    np.testing.assert_allclose(np.exp(-found.unigram), [0.25 + 0.75 / SIZE, 0.75 / SIZE], rtol=1e-6)


def test_an_alternating_text_is_easy_for_the_bigram_only(tmp_path):
    text = np.tile([1, 2], 500)
    found = baselines(shard(tmp_path, text), text[:-1], text[1:])
    assert found.bigram.mean() < 0.01
    assert found.unigram.mean() == pytest.approx(math.log(2), abs=0.01)
