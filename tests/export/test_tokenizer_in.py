"""Tokenizers that other programs wrote: the same ids as theirs, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GPT2Tokenizer

from minigpt.errors import CheckpointError, MiniGPTError, TokenizerError
from minigpt.export.exporting import export_run
from minigpt.export.tokenizer_in import read_tokenizer
from minigpt.export.tokenizer_out import byte_level_json, save_tokenizer
from minigpt.tokenizers import END_OF_TEXT, load_tokenizer, make_tokenizer
from minigpt.tokenizers.bpe import byte_to_character
from tests.export.conftest import make_run
from tests.tokenizers.conftest import GREETINGS, MANY_SCRIPTS


@pytest.fixture(scope="module")
def gpt2_files(tmp_path_factory) -> Path:
    """A folder with GPT-2's tokenizer in every form; tests only read it."""
    folder = tmp_path_factory.mktemp("gpt2")
    save_tokenizer(make_tokenizer("gpt2"), folder, 1024)
    (folder / "tokenizer_config.json").unlink()
    return folder


def trained(end: str = "</s>", first: bool = True, size: int = 400) -> Tokenizer:
    """A byte-level BPE as many a project trains one, its special token at the front or at the end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[end] if first else [],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([MANY_SCRIPTS * 3], trainer)
    if not first:
        tokenizer.add_special_tokens([AddedToken(end, special=True, normalized=False)])
    return tokenizer


def content(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())


def write(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "form", ["tokenizer.json", "vocab.json and merges.txt", "by transformers", "old merges", "none"]
)
def test_gpt2s_own_is_recognised_in_each_form(gpt2_files, tmp_path, form):
    if form == "by transformers":
        GPT2Tokenizer.from_pretrained(gpt2_files).save_pretrained(tmp_path)
    elif form == "tokenizer.json":
        shutil.copy(gpt2_files / form, tmp_path)
    elif form == "old merges":  # each pair as one string, as tokenizers wrote them until 2024
        old = json.loads((gpt2_files / "tokenizer.json").read_text("utf-8"))
        old["model"]["merges"] = [" ".join(pair) for pair in old["model"]["merges"]]
        write(tmp_path, old)
    elif form != "none":
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(gpt2_files / name, tmp_path)
    tokenizer, notes = read_tokenizer(tmp_path, 50_257)
    assert tokenizer.identity == make_tokenizer("gpt2").identity
    assert tokenizer.spec == "gpt2"
    assert len(notes) == (form == "none")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("pair_of_files", [False, True])
def test_any_byte_level_encoding_gives_the_same_ids(tmp_path, first, pair_of_files):
    theirs = trained(first=first)
    if pair_of_files:
        model = content(theirs)["model"]
        model["vocab"].setdefault("</s>", len(model["vocab"]))
        (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
        (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    else:
        write(tmp_path, content(theirs))
    mine, _ = read_tokenizer(tmp_path, 0)
    theirs.encode_special_tokens = True
    for text in [*GREETINGS, MANY_SCRIPTS, "a</s>b", "", "  \n\n x", "".join(map(chr, range(1, 0x3000)))]:
        assert mine.encode(text).tolist() == theirs.encode(text).ids, text
    assert mine.vocab_size == theirs.get_vocab_size()
    assert mine.end_of_text == theirs.token_to_id("</s>")
    mine.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").identity == mine.identity


@pytest.mark.parametrize("spec", ["gpt2", "bpe:300", "byte", "char"])
def test_what_transformers_saved_again_is_still_ours(tmp_path, spec):
    folder = export_run(make_run(tmp_path / "run", spec), tmp_path / "hf")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    own = load_tokenizer(tmp_path / "run" / "tokenizer")
    again, _ = read_tokenizer(tmp_path / "again", own.vocab_size)
    assert again.identity == own.identity


def change(path: str, value: Any):
    """Sets a place in tokenizer.json, such as `model.dropout`."""

    def apply(content: dict[str, Any]) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            content = content[parent]
        content[name] = value

    return apply


def swap_two_ids(content: dict[str, Any]) -> None:
    vocab = content["model"]["vocab"]
    one, other = list(vocab)[-2:]
    vocab[one], vocab[other] = vocab[other], vocab[one]


def make_a_token_twice(content: dict[str, Any]) -> None:
    merges = content["model"]["merges"]
    merges.append(merges[-1])


def lose_a_byte(content: dict[str, Any]) -> None:
    vocab = content["model"]["vocab"]
    vocab["ĀĀĀĀ"] = vocab.pop("Ā")


PAD = {"id": 400, "content": "\x1b[31mPAD", "special": True, "normalized": False}

WRONG = {
    "another kind": (change("model.type", "WordPiece"), "not BPE.*WordPiece"),
    "a list": (change("model", []), "not BPE"),
    "lower case": (change("normalizer", {"type": "Lowercase"}), "normalizes the text.*Lowercase"),
    "no pre-tokeniser": (change("pre_tokenizer", None), "pre-tokenizer differs.*None"),
    "Llama's cut": (
        change("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "x"}}),
        "pre-tokenizer differs.*Split",
    ),
    "no words": (change("pre_tokenizer.use_regex", False), "pre-tokenizer differs"),
    "a space": (change("pre_tokenizer.add_prefix_space", True), "space before every text"),
    "chance": (change("model.dropout", 0.1), r"dropout 0\.1"),
    "a suffix": (change("model.end_of_word_suffix", "</w>"), "end_of_word_suffix"),
    "no special": (change("added_tokens", []), "0: none"),
    "two specials": (change("added_tokens", [PAD, PAD]), r"2: '\\x1b\[31mPAD'"),
    "specials that are none": (change("added_tokens", ["x"]), "must be a list of tokens"),
    "a special with another id": (change("added_tokens", [{"content": "</s>", "id": 5}]), "two ids"),
    "no tokens": (change("model.vocab", None), "tokens or merges are missing"),
    "words for ids": (change("model.vocab.h", "zero"), "not spellings of bytes"),
    "a large id": (change("model.vocab.h", 10**12), "not spellings of bytes"),
    "Chinese": (change("model.vocab.早", 400), "not spellings of bytes"),
    "half a pair": (change("model.vocab.\ud800", 400), "not spellings of bytes"),
    "no pairs": (change("model.merges", [["a"]]), "must be a pair"),
    "strange pairs": (change("model.merges", [["a", "zzzzzz"]]), "unknown token"),
    "no merges": (change("model.merges", []), "order of its merges"),
    "another order": (swap_two_ids, "order of its merges"),
    "a merge twice": (make_a_token_twice, "order of its merges"),
    "a byte that is none": (lose_a_byte, "A byte has no token"),
}


@pytest.mark.parametrize(("damage", "words"), WRONG.values(), ids=WRONG)
def test_unsupported_tokenizers_are_refused_by_name(tmp_path, damage, words):
    file = content(trained())
    damage(file)
    with pytest.raises(TokenizerError, match=words):
        read_tokenizer(write(tmp_path, file), 400)


def test_merges_that_bytes_alone_would_not_show_are_refused(tmp_path):
    """Two ways to `abc`: by `ab` first, as the bytes go, or by `bc`, as the last merge says. Ours would take either."""
    tokens = {character: byte for byte, character in byte_to_character().items()}
    merges = [("a", "b"), ("b", "c"), ("a", "bc")]
    tokens |= {"".join(pair): 256 + place for place, pair in enumerate(merges)} | {END_OF_TEXT: 259}
    write(tmp_path, json.loads(byte_level_json(tokens, merges)))
    with pytest.raises(TokenizerError, match=r"turn a token's bytes into that token.*'abc'"):
        read_tokenizer(tmp_path, 260)


def test_an_option_beside_the_file_counts(tmp_path):
    write(tmp_path, content(trained()))
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    with pytest.raises(TokenizerError, match="space before every text"):
        read_tokenizer(tmp_path, 400)


def test_tokens_added_beside_the_pair_of_files_are_refused(gpt2_files, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(gpt2_files / name, tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"[PAD]": 50257}')
    with pytest.raises(TokenizerError, match=r"\[PAD\]"):
        read_tokenizer(tmp_path, 50_258)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a": ' * 100_000])
def test_tokenizer_json_must_be_an_object(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"Cannot read tokenizer\.json"):
        read_tokenizer(tmp_path, 400)


def test_a_normaliser_of_tokenizers_is_seen(tmp_path):
    theirs = trained()
    theirs.normalizer = normalizers.NFC()
    with pytest.raises(TokenizerError, match="NFC"):
        read_tokenizer(write(tmp_path, content(theirs)), 400)


def claim(folder: Path, **changed: Any) -> Path:
    """A folder whose `tokenizer_config.json` and vocabulary claim to be ours."""
    make_tokenizer("bpe:300", [MANY_SCRIPTS]).save(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    return folder


def test_a_vocabulary_that_claims_to_be_ours_is_checked_all_the_same(tmp_path):
    tokens = {"a": 0, "b": 1, END_OF_TEXT: 2}
    claim(tmp_path, files={}, identity="0")
    write(tmp_path, json.loads(byte_level_json(tokens, [])))
    with pytest.raises(TokenizerError, match="A byte has no token"):
        read_tokenizer(tmp_path, 3)
    with pytest.raises(TokenizerError, match="254 of the 256 bytes"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("spec", ["bpe:\x1b]0;owned\x07", "bpe:", "bpe:3\n", "bpe:" + "9" * 5000, "gpt2", 3, None])
def test_an_invalid_spec_is_refused_and_escaped(tmp_path, spec):
    with pytest.raises(TokenizerError, match="damaged") as caught:
        load_tokenizer(claim(tmp_path, spec=spec))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("changed", [{"identity": "\x1b[31m"}, {"files": {"\x1b[31m": ""}}, {"kind": "\x1b[31m"}])
def test_untrusted_names_are_escaped(tmp_path, changed):
    with pytest.raises(TokenizerError, match=r"x1b\[31m") as caught:
        load_tokenizer(claim(tmp_path, **changed))
    assert str(caught.value).isprintable()


def test_json_without_end_is_a_damaged_tokenizer(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"a": ' * 100_000)
    with pytest.raises(TokenizerError, match="damaged"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["merges.txt", "vocab.json", "tokenizer.json", "tokenizer_config.json"])
def test_only_regular_files_are_read_as_tokenizers(gpt2_files, tmp_path, name):
    for kept in {"merges.txt", "vocab.json"} - {name}:
        shutil.copy(gpt2_files / kept, tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / name)  # whoever opens it waits forever
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(MiniGPTError, match="not a regular file"):
        read_tokenizer(tmp_path, 50_257)
    if name == "tokenizer_config.json":
        with pytest.raises(TokenizerError, match="not a regular file"):
            load_tokenizer(tmp_path)


def test_a_file_too_long_is_not_read(gpt2_files, tmp_path):
    shutil.copy(gpt2_files / "vocab.json", tmp_path)
    with (tmp_path / "merges.txt").open("wb") as file:
        file.truncate(10_000_001)
    with pytest.raises(TokenizerError, match="more than 10,000,000 bytes"):
        read_tokenizer(tmp_path, 50_257)


def test_tokens_put_around_a_text_are_noted(tmp_path):
    theirs = trained()
    theirs.post_processor = processors.ByteLevel()
    assert read_tokenizer(write(tmp_path, content(theirs)), 400)[1] == []
    theirs.post_processor = processors.TemplateProcessing("</s> $A", special_tokens=[("</s>", 0)])
    assert "TemplateProcessing" in read_tokenizer(write(tmp_path, content(theirs)), 400)[1][0]
