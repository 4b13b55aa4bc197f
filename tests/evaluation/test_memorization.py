"""Copied passages: what the search finds is what a look at every position finds."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minigpt.evaluation.memorization as memorization
from minigpt.data import TokenFile
from minigpt.data.token_file import TokenFileWriter
from minigpt.evaluation.memorization import CopiedRun, CopyStats, find_copies


def token_file(folder: Path, ids: list[int], vocab_size: int = 5, segment_length: int = 0) -> TokenFile:
    path = folder / "train.tokens"
    path.unlink(missing_ok=True)
    with TokenFileWriter(path, vocab_size, "00" * 32, segment_length) as writer:
        writer.append(np.array(ids, dtype=np.uint32), n_documents=1, n_bytes=len(ids))
    return TokenFile.open(path)


def copies(train: TokenFile, sample: list[int]) -> CopyStats:
    [found] = find_copies(train, [sample])
    return found


def segments(ids: list[int], segment_length: int) -> list[list[int]]:
    return [ids[i : i + segment_length] for i in range(0, len(ids), segment_length)] if segment_length else [ids]


def occurs(text: list[int], wanted: list[int], segment_length: int) -> bool:
    return any(
        part[i : i + len(wanted)] == wanted
        for part in segments(text, segment_length)
        for i in range(len(part) - len(wanted) + 1)
    )


def naive_copies(text: list[int], sample: list[int], segment_length: int) -> list[tuple[int, int]]:
    """Start and length of all runs that are in no longer one."""
    found, reach = [], 0
    for start in range(len(sample)):
        end = max(start, reach)
        while end < len(sample) and occurs(text, sample[start : end + 1], segment_length):
            end += 1
        if end > max(start, reach):
            found.append((start, end - start))
        reach = max(reach, end)
    return found


def naive_share(text: list[int], sample: list[int], n: int, segment_length: int) -> float | None:
    grams = [sample[i : i + n] for i in range(len(sample) - n + 1)]
    return sum(occurs(text, gram, segment_length) for gram in grams) / len(grams) if grams else None


@st.composite
def texts(draw, n_ids: int) -> list[int]:
    """Words of a few kinds, some said many times: ties of every length."""
    phrases = draw(st.lists(st.lists(st.integers(0, n_ids - 1), min_size=1, max_size=9), min_size=1, max_size=4))
    order = draw(st.lists(st.tuples(st.integers(0, len(phrases) - 1), st.integers(1, 9)), max_size=4))
    return [token for which, times in order for token in phrases[which] * times]


@st.composite
def cases(draw) -> tuple[list[int], list[int], int]:
    n_ids = draw(st.integers(1, 4))
    text = draw(texts(n_ids))
    start = draw(st.integers(0, len(text)))
    sample = draw(st.one_of(texts(n_ids), st.just(text[start : start + 60])))
    ending = draw(st.lists(st.integers(0, n_ids), max_size=4))
    return text, (sample + ending)[:80], draw(st.sampled_from([0, 0, 1, 3, 16, 50]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(cases(), min_size=1, max_size=3),
    st.sampled_from([5, 300, 2**15, 2**30]),
    st.integers(1, 10),
    st.sampled_from([3, 40, 2**17]),
)
def test_equal_to_a_look_at_every_position(tmp_path, monkeypatch, several, vocab_size, n, at_once):
    monkeypatch.setattr(memorization, "TOKENS_AT_ONCE", at_once)
    text, _, segment_length = several[0]
    samples = [sample for _, sample, _ in several]
    train = token_file(tmp_path, text, vocab_size, segment_length)
    for sample, found in zip(samples, find_copies(train, samples), strict=True):
        runs = found.runs(1)
        assert [run[:2] for run in runs] == naive_copies(text, sample, segment_length)
        assert found.runs(n) == [run for run in runs if run.length >= n]
        assert found.share(n) == naive_share(text, sample, n, segment_length)
        assert found.longest == max(runs, key=lambda run: run.length, default=CopiedRun())
        for start, length, position in runs:
            assert text[position : position + length] == sample[start : start + length]
            assert not segment_length or position // segment_length == (position + length - 1) // segment_length


def test_the_longest_of_many_positions_and_starts(tmp_path):
    rng = np.random.default_rng(0)
    boilerplate = rng.integers(0, 4, size=100).tolist()
    text = [token for length in (60, 90, 80, 100, 70) for token in [*boilerplate[:length], 4]] + [3] * 500
    train = token_file(tmp_path, text)
    assert copies(train, boilerplate).longest == CopiedRun(0, 100, 61 + 91 + 81)
    assert copies(train, [4, 4, *boilerplate[5:95], 4, 4]).longest == CopiedRun(2, 90, 61 + 91 + 81 + 5)
    assert copies(train, [3] * 400).longest[:2] == (0, 400)
    assert copies(train, [3] * 600).longest[1] == 500
    assert copies(train, [2, 2, 2, *[3] * 300]).longest[1] >= 300


def test_all_copies_of_a_sample_in_order(tmp_path):
    text = np.random.default_rng(0).integers(0, 50, size=3000).tolist()
    train = token_file(tmp_path, text, vocab_size=50)
    sample = [*text[100:180], 77, 77, *text[1000:1070], *text[95:135], -1, *text[5:12], *text[2960:]]
    found = copies(train, sample)
    assert found.runs() == [CopiedRun(*run) for run in ((0, 80, 100), (82, 70, 1000), (152, 40, 95), (200, 40, 2960))]
    assert found.longest == found.runs()[0]
    assert copies(train, [77] * 40).runs() == copies(train, []).runs() == []


def test_unknown_ids_are_found_nowhere(tmp_path):
    whole = [0, 1, 2, 3] * 20
    train = token_file(tmp_path, whole)
    assert copies(train, [-1, 5, 99, 2**40]).longest == CopiedRun()
    assert copies(train, [9, 1, 2, -1, 3]).longest[:2] == (1, 2)
    assert copies(train, [0, 1, 2, 3, 4]).share(n=2) == 0.75
    assert copies(train, [*whole, -1, -1]).longest == CopiedRun(0, 80, 0)
    assert copies(train, [-1, *whole, -1]).longest == CopiedRun(1, 80, 0)


def test_nothing_in_the_samples_or_in_the_text(tmp_path):
    empty = token_file(tmp_path, [])
    assert find_copies(empty, []) == []
    assert (copies(empty, [1]).longest, copies(empty, [1]).share(), copies(empty, [1] * 8).share()) == (
        CopiedRun(),
        None,
        0.0,
    )
    one = token_file(tmp_path, [1])
    assert (copies(one, []).longest, copies(one, []).share()) == (CopiedRun(), None)
    assert copies(one, [1]).longest == CopiedRun(0, 1, 0)


def test_memory_does_not_grow_with_the_text_however_skewed(tmp_path):
    rng = np.random.default_rng(0)
    skewed = np.where(rng.random(1_000_000) < 0.7, 0, rng.integers(1, 5, 1_000_000))
    skewed[250_000:750_000] = 0  # half of the text is one token
    train = token_file(tmp_path, skewed)
    tracemalloc.start()
    [found] = find_copies(train, [skewed[100:200]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.longest == CopiedRun(0, 100, 100)
    assert peak < 40_000_000
