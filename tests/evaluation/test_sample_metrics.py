"""Figures of samples, against sacrebleu and values worked out by hand; words in several scripts."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minigpt.evaluation.known_words as words_module
from minigpt.data import Dataset, TokenFile, prepare
from minigpt.data.token_file import TokenFileWriter
from minigpt.evaluation.known_words import known_words, whole_words, word_units
from minigpt.evaluation.memorization import CopiedRun
from minigpt.evaluation.sample_metrics import (
    distinct,
    longest_loop,
    real_samples,
    repetition,
    sample_metrics,
    self_bleu,
)
from minigpt.tokenizers import Tokenizer
from minigpt.tokenizers.byte_char import ByteTokenizer


def test_words_of_several_scripts():
    assert word_units("Don’t STOP, block_size=3!") == ["don't", "stop", ",", "block_size", "=", "3", "!"]
    assert word_units("naïve cafe\u0301 हिन्दी Straße") == ["naïve", "cafe\u0301", "हिन्दी", "strasse"]
    assert word_units("我爱GPT。カナ ที่นี่") == ["我", "爱", "gpt", "。", "カ", "ナ", "ที่", "นี่"]
    assert word_units(" \n\t") == []


def test_whole_words_without_numbers():
    assert whole_words("alf a word, 1984 x1 and ha") == ["a", "word", "x1", "and"]
    assert whole_words(" whole words.") == ["whole", "words"]
    assert whole_words("word") == whole_words("don'") == whole_words("42 + 1") == whole_words("") == []
    assert whole_words(" 我爱你们。好 no1看 ") == ["我爱", "爱你", "你们", "好", "no1", "看"]
    assert whole_words(" ที่นี่ ") == ["ที่นี่"]  # two characters with their marks
    assert whole_words("th\ufffd and \ufffd") == ["and"]


def token_file(folder: Path, segments: list[bytes], segment_length: int = 0) -> TokenFile:
    tokenizer = ByteTokenizer()
    path = folder / "train.tokens"
    path.unlink(missing_ok=True)
    with TokenFileWriter(path, tokenizer.vocab_size, tokenizer.identity, segment_length) as writer:
        for data in segments:
            writer.append(
                np.array([*data, tokenizer.end_of_text][: None if not segment_length else len(data)], dtype=np.uint32)
            )
    return TokenFile.open(path)


TEXTS = st.text(alphabet="abé’'_1 \n.我好กี่हि\u0301", max_size=40)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, max_size=4), TEXTS, st.integers(1, 30), st.sampled_from([1, 10, 2**20]))
def test_known_words_are_those_of_the_whole_text(tmp_path, monkeypatch, documents, other, at_once, max_seen):
    monkeypatch.setattr(words_module, "TOKENS_AT_ONCE", at_once)  # cuts characters of two bytes and more
    monkeypatch.setattr(words_module, "MAX_SEEN", max_seen)
    train = token_file(tmp_path, [document.encode() for document in documents])
    inside = {word for document in documents for word in whole_words(f"\n{document}\n")}
    wanted = inside | set(whole_words(f" {other} ")) | {"zebra"}
    assert known_words(train, ByteTokenizer(), wanted) == inside


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, st.integers(1, 20), st.integers(1, 30))
def test_a_segments_end_cuts_words(tmp_path, monkeypatch, text, segment_length, at_once):
    monkeypatch.setattr(words_module, "TOKENS_AT_ONCE", at_once)
    train = token_file(tmp_path, [text.encode()], segment_length)
    segments = [
        text.encode()[i : i + segment_length].decode(errors="replace")
        for i in range(0, len(text.encode()), segment_length)
    ]
    # The first word of all is whole, as is one at the end that a segment's end does not cut.
    inside = {word for number, part in enumerate(segments) for word in whole_words("\n" * (number == 0) + part)}
    wanted = {word for word in {*inside, *whole_words(f" {text} ")} if "\ufffd" not in word}
    assert known_words(train, ByteTokenizer(), wanted) == inside & wanted


def test_a_million_letters_without_a_space_are_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(words_module, "TOKENS_AT_ONCE", 100)
    monkeypatch.setattr(words_module, "MAX_WORD", 300)
    train = token_file(tmp_path, [b"x" * 1000 + b" tail " + "我爱你好".encode() * 200 + b" end"])
    longest = max(len(text) for _, text in words_module._texts(train, ByteTokenizer()))
    assert longest < 500
    parts_of_words = {"x" * n for n in range(1, 300)}
    there = {"tail", "我爱", "爱你", "你好", "好我", "end"}
    assert known_words(train, ByteTokenizer(), {*there, *parts_of_words, "我你"}) == there


def test_memory_is_bounded_when_long_strings_never_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(words_module, "TOKENS_AT_ONCE", 10_000)
    letters = np.random.default_rng(0).integers(97, 123, 2_000_000, dtype=np.uint8)
    letters[::1_000] = 10
    train = token_file(tmp_path, [letters.tobytes()])
    known_words(train, ByteTokenizer(), {"not here"})  # what is collected once is there
    tracemalloc.start()
    assert known_words(train, ByteTokenizer(), {"not here"}) == set()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000  # of the text, 2 MB


def test_progress_ends_when_all_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(words_module, "TOKENS_AT_ONCE", 10)
    train, told = token_file(tmp_path, [b"the cat sat on the mat " * 10]), []
    assert known_words(train, ByteTokenizer(), ["sat"], lambda *state: told.append(state)) == {"sat"}
    assert told == [(10, 231), (20, 231)]
    assert known_words(train, ByteTokenizer(), []) == set()


def test_distinct():
    samples = [list("aab"), list("ab"), []]
    assert [distinct(samples, n) for n in (1, 2, 3)] == [2 / 5, 2 / 3, 1.0]
    assert distinct(samples, 4) is None


def test_repetition():
    assert repetition(list("abcdabcd")) == pytest.approx(1 / 5)
    assert repetition(["a"] * 13) == pytest.approx(9 / 10)
    assert repetition(list("abcd")) == 0
    assert repetition(list("abc")) is None


def test_longest_loop():
    assert longest_loop(list("xyz" + "abc" * 4 + "q")) == 12
    assert longest_loop(list("aabb")) == 0
    assert longest_loop(list("no no") + ["a"] * 3) == 3
    assert longest_loop(["a"]) == 0
    assert longest_loop([]) is None
    assert longest_loop(list("0123456789") * 3 + ["0"]) == 31


SENTENCES = [
    "the cat sat on the mat and the dog sat on the cat",
    "the cat sat on the mat",
    "a dog and a cat sat on a mat and slept all day long",
    "colourless green ideas sleep furiously tonight",
    "the the the the the",
]


def test_self_bleu_is_sacrebleus():
    theirs = [
        sacrebleu.sentence_bleu(
            sentence, SENTENCES[:i] + SENTENCES[i + 1 :], smooth_method="floor", smooth_value=0.1, tokenize="none"
        ).score
        / 100
        for i, sentence in enumerate(SENTENCES)
    ]
    assert self_bleu([sentence.split() for sentence in SENTENCES]) == pytest.approx(sum(theirs) / 5, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=4, max_size=12), min_size=2, max_size=5))
def test_self_bleu_is_sacrebleus_whatever_the_samples(samples):
    lines = [" ".join(sample) for sample in samples]
    theirs = [
        sacrebleu.sentence_bleu(
            line, lines[:i] + lines[i + 1 :], smooth_method="floor", smooth_value=0.1, tokenize="none"
        ).score
        for i, line in enumerate(lines)
    ]
    assert self_bleu(samples) == pytest.approx(np.mean(theirs) / 100, rel=1e-6)


def test_self_bleu_at_its_ends():
    assert self_bleu([list("abcdef")] * 3) == pytest.approx(1)
    assert self_bleu([list("abcdef"), list("ghijkl")]) < 0.05
    assert self_bleu([list("abcdef"), list("abc")]) is None
    assert self_bleu([]) is None


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("figures")
    rng = np.random.default_rng(0)
    vocabulary = [a + b for a in "bdfglmnprst" for b in ("a", "ee", "oo", "ing", "at")]
    lines = [" ".join(rng.choice(vocabulary, size=12)) + "." for _ in range(200)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare([str(folder / "text.txt")], folder / "data", tokenizer="char")
    return Dataset.open(folder / "data")


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text).tolist()


def test_figures_of_groups(dataset):
    tokenizer, told = dataset.tokenizer, []
    copied = dataset.train.tokens[100:180].tolist()
    groups = {
        "copies": [copied, copied],
        "loops": [encode(tokenizer, " boo bing" * 10 + ".")],
        "unknown": [encode(tokenizer, " tingoo deet noon.")],
        "nothing": [],
        "empty": [[], encode(tokenizer, " ")],
    }
    figures = sample_metrics(groups, dataset, lambda phase, done, total: told.append((phase, done <= total)))
    assert figures["copies"].longest_copy == figures["copies"].mean_longest_copy == 80
    assert figures["copies"].copied_share == figures["copies"].known_words == 1
    assert figures["copies"].self_bleu == pytest.approx(1)
    position = figures["copies"].copied[1].longest.position
    assert dataset.train.tokens[position : position + 80].tolist() == copied

    assert (figures["loops"].loop, figures["loops"].n_words) == (20, 21)
    assert figures["loops"].repetition == pytest.approx(15 / 18)
    assert figures["loops"].distinct_1 == pytest.approx(3 / 21)
    assert figures["loops"].self_bleu is None
    assert figures["unknown"].known_words == 0
    assert figures["unknown"].loop == 0

    nothing, empty = figures["nothing"], figures["empty"]
    for name in ("distinct_1", "self_bleu", "repetition", "loop", "known_words", "copied_share"):
        assert getattr(nothing, name) is getattr(empty, name) is None
    assert (nothing.n_samples, nothing.longest_copy, nothing.mean_longest_copy) == (0, None, None)
    assert (empty.n_samples, empty.n_words) == (2, 0)
    assert (empty.copied[0].longest, empty.copied[0].share()) == (CopiedRun(), None)
    assert empty.longest_copy == 1  # the space
    assert set(told) == {("copies", True), ("words", True)}


def test_real_samples_are_evenly_spread_and_in_one_piece(tmp_path):
    text = bytes(range(100))
    samples = real_samples(token_file(tmp_path, [text], segment_length=1000), 4, 10)
    assert [(sample[0], len(sample)) for sample in samples] == [(0, 10), (30, 10), (60, 10), (90, 10)]
    samples = real_samples(token_file(tmp_path, [text], segment_length=16), 5, 12)
    assert all(sample == list(range(sample[0], sample[0] + 12)) for sample in samples)
    assert all(sample[0] // 16 == sample[-1] // 16 for sample in samples)
    assert len(samples) == 5
    samples = real_samples(token_file(tmp_path, [text], segment_length=16), 3, 50)
    assert [len(sample) for sample in samples] == [16, 16, 16]
    assert real_samples(token_file(tmp_path, [text], segment_length=1000), 500, 60) == [list(range(60))]
    assert real_samples(token_file(tmp_path, [], segment_length=16), 5, 12) == []


def test_real_text_looks_real(dataset):
    real = real_samples(dataset.val, 5, 60)
    figures = sample_metrics({"real": real}, dataset)["real"]
    assert figures.known_words == 1
    assert figures.loop == 0
    assert 0 < figures.copied_share < 1
    assert not math.isclose(figures.self_bleu, 1)
