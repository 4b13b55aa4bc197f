"""The split: duplicates are dropped, whole documents go to one split, and the share is as near as they allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data.chunks import TextChunk
from minigpt.data.pack import assigned_text
from minigpt.data.sources import Source
from minigpt.data.split import DROPPED, TRAIN, VAL, Corpus, assign_documents, choose_documents, read_corpus
from minigpt.errors import DataError


def source(texts: list[str], size: int = 10**6) -> Source:
    """Texts as a source, in chunks of at most `size` characters."""

    def read():
        for text in texts:
            starts = range(0, max(len(text), 1), size)
            yield from (TextChunk(text[i : i + size], i == starts[-1]) for i in starts)

    return Source("texts", "test", read)


def corpus_of(texts: list[str]) -> Corpus:
    return read_corpus([source(texts)], lambda done: None)


@given(texts=st.lists(st.text(st.sampled_from("ab \n"), max_size=4), max_size=30), size=st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_duplicates_and_empty_documents_are_dropped(texts: list[str], size: int):
    corpus = read_corpus([source(texts[:10], size), source(texts[10:], size)], lambda done: None)
    full = [text for text in texts if text.strip()]
    kept = [text for text, keep in zip(texts, corpus.used, strict=True) if keep]
    assert kept == list(dict.fromkeys(full))  # the first of equals, in order
    assert corpus.duplicates == len(full) - len(kept)
    assert corpus.empty == len(texts) - len(full)
    assert corpus.sizes.tolist() == [len(text) for text in texts]
    assert (corpus.n_documents, corpus.text_bytes) == (len(kept), sum(map(len, kept)))


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=60),
    fraction=st.floats(0.01, 0.5),
    seed=st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_the_choice_cannot_be_bettered_by_one_document_more(sizes: list[int], fraction: float, seed: int):
    array = np.array(sizes)
    target = fraction * array.sum()
    chosen = choose_documents(array, target, seed)
    off = abs(array[chosen].sum() - target)
    assert all(abs(array[chosen].sum() + size - target) >= off for size in array[~chosen])


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    fraction=st.floats(0.01, 0.5),
    seed=st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_every_document_is_in_one_split(sizes: list[int], fraction: float, seed: int):
    texts = [f"{number:02d} " + "x" * size for number, size in enumerate(sizes)]
    corpus = corpus_of([*texts, texts[0]])
    assignment = assign_documents(corpus, fraction, seed)
    assert assignment.splits[-1] == DROPPED
    assert set(assignment.splits[:-1].tolist()) <= {TRAIN, VAL}
    total = corpus.text_bytes
    if assignment.method == "document":
        assert len(sizes) >= 10
        val = corpus.sizes[assignment.splits == VAL].sum()
        assert 0.5 * fraction <= val / total <= 1.5 * fraction
        assert assignment.cut_document == -1
    else:
        assert assignment.note
        assert (np.diff(assignment.splits[:-1].astype(int)) >= 0).all()  # the end validates
        before = corpus.sizes[:-1][assignment.splits[:-1] == TRAIN].sum() + assignment.cut_byte
        assert before == total - max(1, round(fraction * total))


def test_a_split_follows_from_its_seed():
    corpus = corpus_of([f"document {number}" for number in range(100)])
    plans = [assign_documents(corpus, 0.1, seed).splits.tobytes() for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


def test_one_giant_among_small_ones_makes_it_the_tail():
    corpus = corpus_of(["x" * 100_000, *(f"small {number}" for number in range(20))])
    assert assign_documents(corpus, 0.1, 0).method == "tail"


@given(
    texts=st.lists(st.text(st.sampled_from("aé \n"), min_size=1, max_size=80), min_size=1, max_size=9, unique=True),
    fraction=st.floats(0.05, 0.5),
    size=st.integers(1, 30),
)
@settings(max_examples=150, deadline=None)
def test_the_tail_is_cut_once_and_nothing_is_lost(texts: list[str], fraction: float, size: int):
    corpus = corpus_of(texts)
    if not corpus.n_documents:
        return
    assignment = assign_documents(corpus, fraction, 0)
    parts = list(assigned_text([source(texts, size)], corpus, assignment))
    kept = [text for text in texts if text.strip()]
    assert "".join(part.text for part in parts) == "".join(kept)
    assert [part.split for part in parts] == sorted(part.split for part in parts)
    assert sum(part.last for part in parts) - len(kept) in (0, 1)  # one document more where one was cut
    assert all(part.n_bytes == len(part.text.encode()) for part in parts)


def test_the_cut_is_at_a_safe_place_near_the_share():
    text = "some words of text\n" * 1000
    corpus = corpus_of([text])
    train, val = assigned_text([source([text])], corpus, assign_documents(corpus, 0.1, 0))
    assert (train.split, val.split) == (TRAIN, VAL)
    assert not train.text[-1].isspace()
    assert val.text[0].isspace()
    assert abs(val.n_bytes - 1900) < 10


@pytest.mark.parametrize("later", [["one", "two", "more"], ["one", "tw"], ["one"], ["one", "two", ""]])
def test_text_that_changes_between_the_readings_is_refused(later: list[str]):
    corpus = corpus_of(["one", "two"])
    with pytest.raises(DataError, match="changed while it was read"):
        list(assigned_text([source(later)], corpus, assign_documents(corpus, 0.1, 0)))
