"""What a vocabulary is learned from, and that nothing it is learned from takes for ever, or outlives its reader."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from tokenizers import Regex, pre_tokenizers

from minigpt.errors import TokenizerError
from minigpt.tokenizers import Tokenizer, bpe_train, make_tokenizer
from minigpt.tokenizers.base import WHITE_SPACE

CONTROLS = "\x1c\x1d!"  # white space to Python, letters of a word to the tokenizer


def learned(texts: list[str], size: int = 300) -> tuple[dict[str, int], list[str]]:
    """The vocabulary, and the notes."""
    notes: list[str] = []
    return json.loads(bpe_train.train(size, texts, notes.append))["model"]["vocab"], notes


def words(n: int, letters: str, seed: int = 0) -> str:
    """One word of n letters."""
    return "".join(random.Random(seed).choices(letters, k=n))


@pytest.mark.parametrize("letters", ["a", "ACGT", "-", " ", "\u3000\n", "世界人", CONTROLS, "a-", "0"])
def test_long_words_are_cut(monkeypatch: pytest.MonkeyPatch, letters: str):
    monkeypatch.setattr(bpe_train, "MAX_WORD", 100)
    text = words(5_000, letters)
    parts: list[str] = []
    monkeypatch.setattr(bpe_train, "_train", lambda size, texts: parts.extend(texts))
    notes: list[str] = []
    bpe_train.train(300, ["a few words ", text, " and more"], notes.append)
    assert "".join(parts) == f"a few words {text} and more"
    assert max(map(len, parts)) == 100
    assert "Words of up to 5,000 characters are cut to 100 to learn" in notes[0]


def test_ordinary_text_is_left_as_it_is(many_scripts: str):
    parts, notes = [*bpe_train._bounded([many_scripts, "x" * 1000, ""], str)], []
    assert parts == [many_scripts, "x" * 1000, ""]
    learned([many_scripts, "x" * 1000])
    assert notes == []


def test_what_is_white_is_so_for_the_tokenizer_too():
    split = pre_tokenizers.Split(Regex(r"\s"), "removed")
    theirs = {character for character in map(chr, range(0x3100)) if not split.pre_tokenize_str(character)}
    assert {blank for blank in map(chr, range(0x3100)) if re.fullmatch(f"[{WHITE_SPACE}]", blank)} == theirs


def test_text_without_words_counts_for_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bpe_train, "MAX_BYTES", 16_000_000)
    texts = iter([words(1_000_000, "ACGT"), words(1_000_000, "ACGT"), "never read"])
    notes: list[str] = []
    parts = list(bpe_train._bounded(texts, notes.append))
    assert sum(map(len, parts)) == 1_000_000
    assert notes[0] == "The vocabulary is learned from the first 1 MB of the training text."
    texts = iter(["some words " * 100_000] * 3)
    assert len(list(bpe_train._bounded(texts, notes.append))) == 3


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """However little there is to learn from, a process of its own does it; they are listed."""
    monkeypatch.setattr(bpe_train, "MAX_IN_PROCESS", -1)
    processes: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **rest: object) -> None:
            super().__init__(*args, **rest)  # type: ignore[call-overload]
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    yield processes
    assert all(process.poll() is not None for process in processes)


def test_another_process_learns_the_same(elsewhere: list[object], many_scripts: str, monkeypatch: pytest.MonkeyPatch):
    texts = [many_scripts, "", "half \ud800 a pair", "end"]
    there = learned(texts, 600)
    assert len(elsewhere) == 1
    monkeypatch.setattr(bpe_train, "MAX_IN_PROCESS", 10**9)
    assert there == learned(texts, 600)
    assert len(elsewhere) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
@pytest.mark.usefixtures("elsewhere")
def test_what_ends_the_reading_ends_the_process(error: type[BaseException]):
    def texts() -> Iterator[str]:
        yield "some words " * 100_000
        raise error

    with pytest.raises(error):
        bpe_train.train(300, texts(), str)


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.stdin.buffer.read(100); raise SystemExit(3)"])
@pytest.mark.usefixtures("elsewhere")
def test_a_process_that_was_ended_is_told(monkeypatch: pytest.MonkeyPatch, code: str):
    monkeypatch.setattr(bpe_train, "_CHILD", code)
    with pytest.raises(TokenizerError, match=r"ended from outside.*exit code 3.*memory"):
        bpe_train.train(300, ["some words " * 100_000] * 3, str)


PROGRAM = """
import random
from minigpt.tokenizers import make_tokenizer
letters = bytes(b"ACGT"[byte % 4] for byte in range(256))
text = random.Random(0).randbytes(10_000_000).translate(letters).decode()
make_tokenizer("bpe:9000", [text], lambda note: print("begun", flush=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_learning_ends_with_the_program(number: signal.Signals):
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"begun\n"
    program.send_signal(number)
    _, errors = program.communicate(timeout=20)  # until the other process, which has this pipe too, has ended
    assert program.returncode == -number if number == signal.SIGKILL else b"KeyboardInterrupt" in errors


def by_hand(tokenizer: Tokenizer, word: bytes) -> list[int]:
    """A word's ids, one merge after the other: the pair that makes the earliest token, the leftmost of equals."""
    ids = {token: index for index, token in enumerate(tokenizer.vocabulary) if token}
    parts = [bytes([byte]) for byte in word]
    while len(parts) > 1:
        rank, place = min((ids.get(a + b, 10**9), i) for i, (a, b) in enumerate(pairwise(parts)))
        if rank == 10**9:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [ids[part] for part in parts]


@pytest.mark.parametrize("spec", ["gpt2", "bpe:600"])
@pytest.mark.parametrize("letters", ["a", "ab", "ACGT", "-", "世界人", "0"])
def test_long_words_are_encoded_as_short_ones_are(tokenizers: dict[str, Tokenizer], spec: str, letters: str):
    for n in (98, 99, 100, 101, 500):  # tiktoken takes another way from 100 bytes on
        word = words(n, letters, n)
        assert tokenizers[spec].encode(word).tolist() == by_hand(tokenizers[spec], word.encode())


@pytest.mark.parametrize("spec", ["gpt2", "bpe:600"])
@pytest.mark.parametrize("letters", ["a", "ACGT", "-", "世界人", " "])
def test_a_very_long_word_is_encoded_in_time(tokenizers: dict[str, Tokenizer], spec: str, letters: str):
    word = words(300_000, letters)  # the square of its length would be minutes
    assert tokenizers[spec].decode(tokenizers[spec].encode(word)) == word


def test_a_tokenizer_of_long_words_says_all_of_them():
    notes: list[str] = []
    remember: Callable[[str], None] = notes.append
    tokenizer = make_tokenizer("bpe:300", [words(50_000, "ACGT")], remember)
    assert tokenizer.decode(tokenizer.encode(words(9_000, "ACGT", 1))) == words(9_000, "ACGT", 1)
    assert len(notes) == 1
