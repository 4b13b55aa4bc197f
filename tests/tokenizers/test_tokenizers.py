"""What holds for every tokenizer: nothing is lost, pieces equal the whole, and what was saved is what is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.errors import TokenizerError
from minigpt.tokenizers import (
    TOKENIZER_TYPES,
    CharTokenizer,
    Tokenizer,
    last_safe_split,
    load_tokenizer,
    make_tokenizer,
)

SAYS_EVERYTHING = ["gpt2", "byte", "bpe:600"]
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
# Few characters, so that the rules about white space, apostrophes and ends of text meet each other often.
tricky_text = st.text(st.sampled_from("a'sé1. \n\r\t\u00a0\u3000\x1c😀"), max_size=60)


def test_the_table_is_what_is_tested(tokenizers: dict[str, Tokenizer]):
    assert {tokenizer.kind for tokenizer in tokenizers.values()} == set(TOKENIZER_TYPES)


def test_many_scripts_come_back_byte_for_byte(tokenizer: Tokenizer, many_scripts: str):
    ids = tokenizer.encode(many_scripts)
    assert ids.dtype == np.uint32
    assert ids.ndim == 1
    assert tokenizer.decode_bytes(ids) == many_scripts.encode()
    assert tokenizer.decode(ids) == many_scripts


@pytest.mark.parametrize("spec", SAYS_EVERYTHING)
@given(text=any_text)
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back(tokenizers: dict[str, Tokenizer], spec: str, text: str):
    tokenizer = tokenizers[spec]
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert (ids < tokenizer.vocab_size).all()
    assert tokenizer.end_of_text not in ids


@given(known=any_text, text=any_text)
@settings(max_examples=100, deadline=None)
def test_char_says_what_it_knows_and_marks_the_rest(known: str, text: str):
    tokenizer = CharTokenizer.from_text([known])
    assert tokenizer.decode(tokenizer.encode(known)) == known
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == "".join(c if c in known else "\ufffd" for c in text)
    assert int((ids == tokenizer.unknown).sum()) == sum(c not in known for c in text)


def test_the_end_of_text_is_never_read_from_text(tokenizer: Tokenizer):
    text = "a<|endoftext|>b"
    ids = tokenizer.encode(text)
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes(tokenizer.end_of_text) == b""
    assert tokenizer.decode([*ids, tokenizer.end_of_text]) == text


@given(text=st.one_of(tricky_text, any_text), data=st.data())
@settings(max_examples=300, deadline=None)
def test_pieces_cut_at_safe_places_equal_the_whole(tokenizers: dict[str, Tokenizer], text: str, data: st.DataObject):
    start, end = "", text
    while cut := last_safe_split(end[: data.draw(st.integers(0, len(end)))]):
        start, piece, end = start + end[:cut], end[:cut], end[cut:]
        for tokenizer in tokenizers.values():
            apart = np.concatenate([tokenizer.encode(piece), tokenizer.encode(end)])
            np.testing.assert_array_equal(apart, tokenizer.encode(piece + end))
    assert start + end == text


def test_safe_cut_finds_the_last_place_however_far_away():
    assert last_safe_split("one two three") == 7
    assert last_safe_split("one" + " " * 100_000) == 3
    assert last_safe_split("word " + "x" * 100_000) == 4
    assert (
        last_safe_split(" " * 1000) == last_safe_split("x" * 1000) == last_safe_split("") == last_safe_split(" x") == 0
    )


def test_half_a_surrogate_pair_becomes_the_replacement_character(tokenizers: dict[str, Tokenizer]):
    for tokenizer in tokenizers.values():
        assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_bytes_that_are_no_character_become_the_replacement_character(tokenizers: dict[str, Tokenizer]):
    byte = tokenizers["byte"]
    assert byte.decode(byte.encode("é")[:1]) == "\ufffd"


def test_an_id_outside_the_vocabulary_is_refused(tokenizer: Tokenizer):
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(TokenizerError, match=f"got: {token}"):
            tokenizer.decode([token])


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, many_scripts: str, tmp_path: Path):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.spec, loaded.identity, loaded.vocab_size) == (
        tokenizer.spec,
        tokenizer.identity,
        tokenizer.vocab_size,
    )
    assert (loaded.end_of_text, loaded.unknown) == (tokenizer.end_of_text, tokenizer.unknown)
    np.testing.assert_array_equal(loaded.encode(many_scripts), tokenizer.encode(many_scripts))


def test_identities_differ(tokenizers: dict[str, Tokenizer]):
    others = [CharTokenizer("abc"), CharTokenizer("abd"), make_tokenizer("bpe:300", ["other words altogether"])]
    identities = {tokenizer.identity for tokenizer in [*tokenizers.values(), *others]}
    assert len(identities) == len(tokenizers) + len(others)


def test_damage_is_refused(tokenizer: Tokenizer, tmp_path: Path):
    whole = tmp_path / "whole"
    tokenizer.save(whole)
    for file in whole.iterdir():
        for name, change in {
            "missing": None,
            "empty": b"",
            "no_json": b"\xff\xfe{",
            "not_an_object": b"[1, 2]",
            "cut": file.read_bytes()[:-20],
        }.items():
            broken = tmp_path / f"{file.name}_{name}"
            shutil.copytree(whole, broken)
            if change is None:
                (broken / file.name).unlink()
            else:
                (broken / file.name).write_bytes(change)
            with pytest.raises(TokenizerError):
                load_tokenizer(broken)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"identity": "0" * 64}, "not the one that was saved"),
        ({"format": 99}, "newer"),
        ({"kind": "nothing"}, "damaged"),
        ({"files": {"../../secret": "0"}}, "missing"),
        ({"characters": "abcd"}, "not the one that was saved"),
        ({"characters": 5}, "damaged"),
    ],
)
def test_a_changed_configuration_is_refused(tmp_path: Path, changes: dict[str, object], words: str):
    CharTokenizer("abc").save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), encoding="utf-8")
    with pytest.raises(TokenizerError, match=words):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gpt", "Did you mean gpt2"),
        ("bytes", "Did you mean byte"),
        ("bpe", "bpe:8192"),
        ("bpe:many", "bpe:8192"),
        ("bpe:-5", "bpe:8192"),
        ("bpe:٣٠٠٠", "bpe:8192"),
        ("bpe:256", "257 or more"),
        ("char:5", "Write just char"),
        ("", "Choose one of"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_right_one(spec: str, words: str):
    with pytest.raises(TokenizerError, match=words):
        make_tokenizer(spec, ["text"])
