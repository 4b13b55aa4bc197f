"""Our own vocabulary against Hugging Face's tokenizers, which trained it and can encode with it too."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFace

from minigpt.tokenizers import Tokenizer, bpe_train, make_tokenizer


def hugging_face(tokenizer: Tokenizer, folder: Path) -> HuggingFace:
    """Hugging Face's reading of what a tokenizer saves."""
    tokenizer.save(folder)
    read = HuggingFace.from_file(str(folder / "tokenizer.json"))
    read.encode_special_tokens = True  # text is text: `<|endoftext|>` in it is no token
    return read


def noise(seed: int, letters: str, blanks: str, n: int = 60_000) -> str:
    """Text with so few letters that every merge meets every other."""
    chance = random.Random(seed)
    return "".join(chance.choice(blanks) if chance.random() < 0.06 else chance.choice(letters) for _ in range(n))


NOISES = {
    "two letters": noise(0, "ab", " "),
    "three letters": noise(1, "abc", " \n"),
    "rows of the same": "aaaaaaaaaa aaa aa" * 500 + "a" * 1001 + " " * 300 + "b" + "\n\n\n x" * 100,
    "accents": noise(2, "éèêëeаеё", " "),
}


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("size", [300, 2000])
def test_tiktoken_and_hugging_face_agree(name: str, size: int, many_scripts: str, tmp_path: Path):
    tokenizer = make_tokenizer(f"bpe:{size}", [NOISES[name]])
    other = hugging_face(tokenizer, tmp_path)
    for text in (*NOISES.values(), many_scripts):
        assert tokenizer.encode(text).tolist() == other.encode(text).ids


@pytest.fixture(scope="module")
def both(many_scripts: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, HuggingFace]:
    """A vocabulary of all the texts here, read by both."""
    tokenizer = make_tokenizer("bpe:3000", [many_scripts, *NOISES.values()])
    return tokenizer, hugging_face(tokenizer, tmp_path_factory.mktemp("bpe"))


@given(
    text=st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
        st.text(st.sampled_from("abcéаGodmrning' \n😀"), max_size=200),
    )
)
@settings(max_examples=200, deadline=None)
def test_tiktoken_and_hugging_face_agree_on_any_text(both: tuple[Tokenizer, HuggingFace], text: str):
    assert both[0].encode(text).tolist() == both[1].encode(text).ids


def test_hugging_face_finds_the_special_token(both: tuple[Tokenizer, HuggingFace]):
    tokenizer, other = both
    assert other.get_vocab_size() == tokenizer.vocab_size
    assert other.token_to_id("<|endoftext|>") == tokenizer.end_of_text == 0
    assert tokenizer.end_of_text not in other.encode("a<|endoftext|>b").ids
    other.encode_special_tokens = False
    assert tokenizer.end_of_text in other.encode("a<|endoftext|>b").ids


def test_training_is_deterministic_in_and_between_processes(many_scripts: str, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_bytes(many_scripts.encode())
    code = (
        "import sys; from minigpt.tokenizers import make_tokenizer\n"
        f"text = open({str(text)!r}, encoding='utf-8', newline='').read()\n"
        "print(make_tokenizer('bpe:600', [text]).identity)"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    first, second = (make_tokenizer("bpe:600", [many_scripts]) for _ in range(2))
    assert first.identity == second.identity == elsewhere
    first.save(tmp_path / "1")
    second.save(tmp_path / "2")
    assert (tmp_path / "1/tokenizer.json").read_bytes() == (tmp_path / "2/tokenizer.json").read_bytes()


def test_a_small_text_gives_fewer_ids():
    tokenizer = make_tokenizer("bpe:5000", ["a few words, a few words only"])
    assert 257 < tokenizer.vocab_size < 300
    assert tokenizer.spec == "bpe:5000"
    assert make_tokenizer("bpe:5000", []).vocab_size == 257


def test_the_size_is_the_number_of_ids(both: tuple[Tokenizer, HuggingFace]):
    assert both[0].vocab_size == 3000


def test_training_stops_reading_at_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bpe_train, "MAX_BYTES", 10)
    texts, notes = iter(["12345", "67890", "never read"]), []
    make_tokenizer("bpe:300", texts, notes.append)
    assert next(texts) == "never read"
    assert notes == ["The vocabulary is learned from the first 0 MB of the training text."]
