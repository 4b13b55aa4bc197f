"""Copying: what the index finds is what a look at every place finds; files that are not to be trusted; memory."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minigpt.evaluation.memorization as copying
import minigpt.evaluation.suffix_array as suffixes
import minigpt.evaluation.suffix_array_file as index_file
from minigpt.data import TokenFile
from minigpt.data.token_file import TokenFileWriter
from minigpt.errors import DataError
from minigpt.evaluation.memorization import CopiedRun, CopyIndex
from minigpt.evaluation.suffix_array import suffix_array


@pytest.fixture(autouse=True)
def _no_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shard(folder: Path, ids: list[int], vocab_size: int = 5, segment_length: int = 0) -> TokenFile:
    path = folder / "train.tokens"
    path.unlink(missing_ok=True)
    with TokenFileWriter(path, vocab_size, "00" * 32, segment_length) as writer:
        writer.append(np.array(ids, dtype=np.uint32), n_documents=1, n_bytes=len(ids))
    return TokenFile.open(path)


def stretches(ids: list[int], segment_length: int) -> list[list[int]]:
    return [ids[i : i + segment_length] for i in range(0, len(ids), segment_length)] if segment_length else [ids]


def stands(text: list[int], wanted: list[int], segment_length: int) -> bool:
    return any(
        part[i : i + len(wanted)] == wanted
        for part in stretches(text, segment_length)
        for i in range(len(part) - len(wanted) + 1)
    )


def naive_longest(text: list[int], sample: list[int], segment_length: int) -> int:
    best = 0
    for start in range(len(sample)):
        while start + best < len(sample) and stands(text, sample[start : start + best + 1], segment_length):
            best += 1
    return best


def naive_copies(text: list[int], sample: list[int], segment_length: int) -> list[tuple[int, int]]:
    """Start and length of all runs that are in no longer one."""
    found, reach = [], 0
    for start in range(len(sample)):
        end = max(start, reach)
        while end < len(sample) and stands(text, sample[start : end + 1], segment_length):
            end += 1
        if end > max(start, reach):
            found.append((start, end - start))
        reach = max(reach, end)
    return found


def naive_share(text: list[int], sample: list[int], n: int, segment_length: int) -> float | None:
    grams = [sample[i : i + n] for i in range(len(sample) - n + 1)]
    return sum(stands(text, gram, segment_length) for gram in grams) / len(grams) if grams else None


@st.composite
def texts(draw, n_kinds: int) -> list[int]:
    """Words of a few kinds, some said many times: ties of every length."""
    phrases = draw(st.lists(st.lists(st.integers(0, n_kinds - 1), min_size=1, max_size=9), min_size=1, max_size=4))
    order = draw(st.lists(st.tuples(st.integers(0, len(phrases) - 1), st.integers(1, 9)), max_size=4))
    return [token for which, times in order for token in phrases[which] * times]


@st.composite
def cases(draw) -> tuple[list[int], list[int], int]:
    n_kinds = draw(st.integers(1, 4))
    text = draw(texts(n_kinds))
    start = draw(st.integers(0, len(text)))
    sample = draw(st.one_of(texts(n_kinds), st.just(text[start : start + 60])))
    ending = draw(st.lists(st.integers(0, n_kinds), max_size=4))
    return text, (sample + ending)[:80], draw(st.sampled_from([0, 0, 1, 3, 16, 50]))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases(), st.sampled_from([3, 4, 8, 32]), st.integers(1, 10), st.sampled_from([3, 40, 2**21]))
def test_equal_to_a_look_at_every_place(tmp_path, monkeypatch, case, depth, n, at_once):
    text, sample, segment_length = case
    monkeypatch.setattr(suffixes, "DEPTH", depth)
    monkeypatch.setattr(suffixes, "PLACES_AT_ONCE", at_once)
    monkeypatch.setattr(suffixes, "TOKENS_AT_ONCE", 5 * at_once)
    monkeypatch.setattr(copying, "_PLACES_AT_ONCE", at_once)
    monkeypatch.setattr(copying, "_QUERIES_AT_ONCE", at_once)
    monkeypatch.setattr(suffixes, "BINS", 2**4)
    # Ids of 22 bits and more: two tokens make a word, so that parts are told apart by several words.
    train = shard(tmp_path, text, vocab_size=2**22, segment_length=segment_length)
    index = CopyIndex.open(train)
    n = min(n, index.depth)
    (start, length, place), share = index.copied(sample, n)
    assert length == naive_longest(text, sample, segment_length)
    assert share == naive_share(text, sample, n, segment_length)
    assert (index.longest(sample), index.share(sample, n)) == (CopiedRun(start, length, place), share)
    if length:
        assert text[place : place + length] == sample[start : start + length]
        assert not segment_length or place // segment_length == (place + length - 1) // segment_length
    else:
        assert (start, place) == (0, None)
    runs = index.copies(sample, 1)
    assert [run[:2] for run in runs] == naive_copies(text, sample, segment_length)
    assert index.copies(sample, n) == [run for run in runs if run.length >= n]
    for start, length, place in runs:
        assert text[place : place + length] == sample[start : start + length]
        assert not segment_length or place // segment_length == (place + length - 1) // segment_length


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(texts(3), texts(1)), st.sampled_from([0, 1, 7]), st.integers(3, 40), st.sampled_from([4, 2**13]))
def test_tiny_parts_give_the_order_of_one_part(tmp_path, monkeypatch, text, segment_length, at_once, bins):
    train = shard(tmp_path, text, vocab_size=2**22, segment_length=segment_length)
    whole = np.concatenate([np.empty(0, dtype=np.int64), *suffix_array(train, tmp_path)])
    monkeypatch.setattr(suffixes, "PLACES_AT_ONCE", at_once)
    monkeypatch.setattr(suffixes, "TOKENS_AT_ONCE", 100)
    monkeypatch.setattr(suffixes, "BINS", bins)
    pieces = list(suffix_array(train, tmp_path))
    assert all(len(piece) <= max(at_once, 100) for piece in pieces)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".tokens"]
    np.testing.assert_array_equal(np.concatenate([np.empty(0, dtype=np.int64), *pieces]), whole)

    def behind(place: int) -> list[int]:
        end = min(len(text), (place // segment_length + 1) * segment_length) if segment_length else len(text)
        return text[place:end][:32]

    assert whole.tolist() == sorted(range(len(text)), key=lambda place: (behind(place), place))


def test_the_longest_of_many_places_and_starts_far_beyond_the_depth(tmp_path):
    rng = np.random.default_rng(0)
    boilerplate = rng.integers(0, 4, size=100).tolist()
    text = [token for length in (60, 90, 80, 100, 70) for token in [*boilerplate[:length], 4]] + [3] * 500
    index = CopyIndex.open(shard(tmp_path, text))
    assert index.longest(boilerplate) == CopiedRun(0, 100, 61 + 91 + 81)
    assert index.longest([4, 4, *boilerplate[5:95], 4, 4]) == CopiedRun(2, 90, 61 + 91 + 81 + 5)
    assert index.longest([3] * 400)[:2] == (0, 400)
    assert index.longest([3] * 600)[1] == 500
    assert index.longest([2, 2, 2, *[3] * 300])[1] >= 300


def test_all_copies_of_a_sample_in_order(tmp_path):
    text = np.random.default_rng(0).integers(0, 50, size=3000).tolist()
    index = CopyIndex.open(shard(tmp_path, text, vocab_size=50))
    sample = [*text[100:180], 77, 77, *text[1000:1070], *text[95:135], -1, *text[5:12], *text[2960:]]
    runs = [run for run in index.copies(sample) if run.place is not None]
    assert [(run.start, run.length, run.place) for run in runs] == [
        *((0, 80, 100), (82, 70, 1000), (152, 40, 95), (200, 40, 2960)),
    ]
    assert index.longest(sample) == runs[0]
    assert index.copies([77] * 40) == index.copies([]) == []


def test_unknown_ids_are_found_nowhere(tmp_path):
    index = CopyIndex.open(shard(tmp_path, [0, 1, 2, 3] * 20))
    assert index.longest([-1, 5, 99, 2**40]) == CopiedRun()
    assert index.longest([9, 1, 2, -1, 3])[:2] == (1, 2)
    assert index.share([0, 1, 2, 3, 4], n=2) == 0.75
    whole = [0, 1, 2, 3] * 20
    assert index.longest([*whole, -1, -1]) == index.longest([-1, *whole, -1])._replace(start=0) == CopiedRun(0, 80, 0)


def test_nothing_in_the_sample_or_in_the_text(tmp_path):
    index = CopyIndex.open(shard(tmp_path, []))
    assert (index.longest([1]), index.share([1]), index.share([1] * 8)) == (CopiedRun(), None, 0.0)
    index = CopyIndex.open(shard(tmp_path, [1]))
    assert (index.longest([]), index.share([]), index.longest([1])) == (CopiedRun(), None, CopiedRun(0, 1, 0))


def test_the_document_of_a_place(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_PLACES_AT_ONCE", 2)
    index = CopyIndex.open(shard(tmp_path, [0, 1, 2, 4, 3, 3, 3, 3, 4, 2]))
    assert [index.document(place, end_of_text=4) for place in range(10)] == [0, 0, 0, 0, 4, 4, 4, 4, 4, 9]
    index = CopyIndex.open(shard(tmp_path, [0, 4, 1, 2, 3, 3, 3, 3, 4, 2, 4], segment_length=5))
    assert [index.document(place, end_of_text=4) for place in range(11)] == [0, 0, 2, 2, 2, 5, 5, 5, 5, 9, 10]


TEXT = np.random.default_rng(0).integers(0, 5, size=1000).tolist()


def test_it_is_built_once(tmp_path):
    train, told = shard(tmp_path, TEXT), []
    first = CopyIndex.open(train, lambda done, total: told.append((done, total)))
    again = CopyIndex.open(train, lambda done, total: pytest.fail("built again"))
    assert told[-1] == (1000, 1000)
    assert first.path == again.path == tmp_path / "train.index"
    np.testing.assert_array_equal(first.places, again.places)
    assert {path.name for path in tmp_path.iterdir()} == {"train.tokens", "train.index"}


@pytest.mark.parametrize("where", [0, 8, 12, 16, 24, 28, 40, 70, 100, 126, 128, 128 + 4 * 999])
def test_a_damaged_index_is_built_anew(tmp_path, where):
    train = shard(tmp_path, TEXT)
    path = CopyIndex.open(train).path
    whole = path.read_bytes()
    path.write_bytes(whole[:where] + bytes([whole[where] ^ 1]) + whole[where + 1 :])
    assert CopyIndex.open(train).longest(TEXT[:100])[1] == 100
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"MINIIDX\n", bytes(128 + 4000), b"x" * 5000])
def test_what_is_no_index_is_replaced(tmp_path, content):
    train = shard(tmp_path, TEXT)
    (tmp_path / "train.index").write_bytes(content)
    assert CopyIndex.open(train).longest(TEXT[:100])[1] == 100


def test_an_index_of_other_tokens_is_built_anew(tmp_path):
    path = CopyIndex.open(shard(tmp_path, TEXT[::-1])).path
    other = path.read_bytes()
    assert CopyIndex.open(shard(tmp_path, TEXT)).longest(TEXT[:100])[1] == 100
    assert path.read_bytes() != other


def test_an_index_of_the_same_tokens_with_seams_is_another(tmp_path):
    assert CopyIndex.open(shard(tmp_path, TEXT)).longest(TEXT[:100])[1] == 100
    assert CopyIndex.open(shard(tmp_path, TEXT, segment_length=50)).longest(TEXT[:100])[1] == 50


def test_a_place_outside_the_text_is_not_believed_whatever_the_checksums(tmp_path):
    train = shard(tmp_path, TEXT)
    path = CopyIndex.open(train).path
    places = np.fromfile(path, dtype="<u4", offset=128)
    places[7] = 2**31
    path.write_bytes(index_file._header(train, hashlib.sha256(places).digest()) + places.tobytes())
    assert CopyIndex.open(train).places.max() == 999


def test_programs_that_build_at_once_do_not_meet(tmp_path):
    train, found = shard(tmp_path, TEXT), []
    threads = [threading.Thread(target=lambda: found.append(CopyIndex.open(train))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [index.longest(TEXT[:100])[1] for index in found] == [100] * 6
    assert {path.name for path in tmp_path.iterdir()} == {"train.tokens", "train.index"}


def refuse(folder: Path, monkeypatch) -> None:
    """Files below a folder cannot be made, as on a disk that is read-only (the tests may run as root)."""
    monkeypatch.setattr(index_file, "_build", lambda path, *rest: _refused(folder, path, *rest))


def _refused(folder: Path, path: Path, *rest: object, build=index_file._build) -> None:
    if path.is_relative_to(folder):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    build(path, *rest)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    train = shard(tmp_path / "data", TEXT)
    refuse(tmp_path / "data", monkeypatch)
    index = CopyIndex.open(train)
    assert index.path == tmp_path / "cache" / "minigpt" / f"{train.sha256}.index"
    assert CopyIndex.open(train, lambda done, total: pytest.fail("built again")).path == index.path
    refuse(tmp_path, monkeypatch)
    assert CopyIndex.open(train).path == index.path
    index.path.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", "no/home")  # relative paths count for nothing
    with pytest.raises(DataError, match="data: Read-only"):
        CopyIndex.open(train)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"could not be written .*Read-only.*4,128 bytes"):
        CopyIndex.open(train)


def test_an_interrupted_build_leaves_nothing(tmp_path):
    train = shard(tmp_path, TEXT)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CopyIndex.open(train, interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["train.tokens"]


def test_every_place_is_looked_at_a_few_times_however_long_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(suffixes, "PLACES_AT_ONCE", 500)
    monkeypatch.setattr(suffixes, "TOKENS_AT_ONCE", 1000)
    looks: list[int] = []
    words = suffixes.IndexedText.words
    monkeypatch.setattr(
        suffixes.IndexedText,
        "words",
        lambda text, places, number: (looks.append(len(places)), words(text, places, number))[1],
    )
    for n in (10_000, 80_000):
        looks.clear()
        rng = np.random.default_rng(0)
        train = shard(tmp_path, (rng.zipf(1.3, n) % 50_257).tolist(), vocab_size=50_257)
        assert sum(map(len, suffix_array(train, tmp_path))) == n
        assert sum(looks) < 8 * n  # one pass a part would be 20 at 10,000, and 160 at 80,000


def test_memory_of_building_is_bounded_however_skewed_the_tokens(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    skewed = np.where(rng.random(200_000) < 0.7, 0, rng.integers(1, 5, 200_000))
    skewed[50_000:150_000] = 0  # half of the places are alike
    train = shard(tmp_path, skewed)
    monkeypatch.setattr(suffixes, "PLACES_AT_ONCE", 5_000)
    monkeypatch.setattr(suffixes, "TOKENS_AT_ONCE", 5_000)
    monkeypatch.setattr(suffixes, "BINS", 2**12)
    tracemalloc.start()
    pieces = [len(piece) for piece in suffix_array(train, tmp_path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(pieces) == 200_000
    assert max(pieces) <= 5_000
    assert peak < 1_250_000  # 250 bytes a place of a part; the list of all places alone is 1.6 MB
