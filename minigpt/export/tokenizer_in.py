"""A stranger's tokenizer files as one of our tokenizers, if it gives the same ids; else refused by name.

Byte-pair encodings of bytes, cut the way of GPT-2, are understood: GPT-2's own, and any whose ids are in the order of
its merges. Ours knows one special token, the end of a text, and puts none around a text by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from minigpt.errors import TokenizerError
from minigpt.export.safe_load import MOST_JSON, read_json, shown_name
from minigpt.export.tokenizer_out import byte_level_json, gpt2_pairs
from minigpt.files import read_bytes, utf8, why
from minigpt.tokenizers import CONFIG_FILE, END_OF_TEXT, Tokenizer, load_tokenizer
from minigpt.tokenizers.bpe import byte_to_character, vocabulary_from_characters
from minigpt.tokenizers.bpe_train import FILE, bpe_from_json
from minigpt.tokenizers.gpt2 import gpt2_tokenizer

GPT2_SIZE = 50_257

NO_PAIRS = ("char", "byte")
"""Kinds whose own file says all; the pairs of the others must be looked at, whoever wrote them."""


def read_tokenizer(folder: Path, vocab_size: int) -> tuple[Tokenizer, list[str]]:
    """Returns our tokenizer that gives the ids which a folder's files give, and what the user should know of it.

    Args:
        folder: the checkpoint's folder.
        vocab_size: how many ids its model knows. A folder without a tokenizer and with GPT-2's number gets GPT-2's.

    Raises:
        TokenizerError: if there is none, or ours cannot give the same ids.
        CheckpointError: if a file cannot be read.
    """
    notes: list[str] = []
    said = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).exists() else {}
    if said.get("kind") in NO_PAIRS and (own := _own(folder)):
        return own, []
    if said.get("add_prefix_space"):
        _refuse("It puts a space before every text", "add_prefix_space true")
    if (folder / FILE).exists():
        content = read_json(folder / FILE)
        tokens, merges, end = _from_json(content)
        notes = _notes(content.get("post_processor"))
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        tokens, merges, end = _from_pair_of_files(folder, said)
    elif vocab_size == GPT2_SIZE:
        return gpt2_tokenizer(), ["the folder holds no tokenizer; a model of 50,257 ids is taken to mean GPT-2's"]
    else:
        raise TokenizerError(
            "The folder holds no tokenizer",
            got=f"neither {FILE} nor vocab.json and merges.txt in {folder}",
            remedy="Name the one that the model was trained with: --tokenizer gpt2, byte, or the folder of a run.",
        )
    made = _byte_pairs(tokens, merges, end)
    if said.get("identity") == made.identity and (own := _own(folder)):
        made.spec = own.spec  # the number of ids that was asked for; it may have fewer
    return made, notes


def _own(folder: Path) -> Tokenizer | None:
    """Returns the tokenizer that `minigpt export` wrote, unless another program wrote or changed it."""
    try:
        return load_tokenizer(folder)
    except TokenizerError:
        return None


def _refuse(what: str, seen: object) -> NoReturn:
    raise TokenizerError(
        f"The checkpoint's tokenizer cannot be imported. {what}",
        got=seen,
        remedy="Byte-level BPE as GPT-2's can. If it gives the ids of one of ours all the same, say so: --tokenizer.",
    )


def _from_json(content: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]], str]:
    """Returns tokens, merges and the special token of a `tokenizer.json`."""
    model, cut = content.get("model"), content.get("pre_tokenizer")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        _refuse("It is no byte-pair encoding", shown_name(model.get("type") if isinstance(model, dict) else model))
    if content.get("normalizer"):
        _refuse("It changes the text before cutting it", f"normalizer {shown_name(content['normalizer'])}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            _refuse("Its encoding is not GPT-2's", f"{name} {shown_name(model[name])}")
    if not isinstance(cut, dict) or cut.get("type") != "ByteLevel" or not cut.get("use_regex", True):
        _refuse("It does not cut text as GPT-2's does", f"pre_tokenizer {shown_name(cut)}")
    if cut.get("add_prefix_space"):
        _refuse("It puts a space before every text", "add_prefix_space true")
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        _refuse("Its added tokens are no list of tokens", shown_name(added))
    if len(added) != 1:
        names = ", ".join(shown_name(token.get("content")) for token in added[:5]) or "none"
        _refuse("It has not one special token, the end of a text", f"{len(added)}: {names}")
    end, index = added[0].get("content"), added[0].get("id")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list) or not isinstance(end, str):
        _refuse("It lacks its tokens or merges", FILE)
    if vocab.setdefault(end, index) != index:
        _refuse("Its special token has two ids", f"{shown_name(end)}: {shown_name(vocab[end])}, {shown_name(index)}")
    return vocab, [_pair(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges], end


def _notes(after: object) -> list[str]:
    """Returns what should be known of a `post_processor`; ByteLevel and a template of the text alone add nothing."""
    kind = after.get("type") if isinstance(after, dict) else after
    empty = kind == "TemplateProcessing" and isinstance(after, dict) and after.get("special_tokens") == {}
    if kind in (None, "ByteLevel") or empty:
        return []
    return [f"{FILE} may put tokens around a text (post_processor {shown_name(kind)}): this run's tokenizer puts none"]


def _from_pair_of_files(folder: Path, said: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]], str]:
    """Returns tokens, merges and the special token of `vocab.json` and `merges.txt`, GPT-2's own form."""
    end = said.get("eos_token", END_OF_TEXT)
    end = end.get("content") if isinstance(end, dict) else end
    if (folder / "added_tokens.json").exists() and (more := read_json(folder / "added_tokens.json").keys() - {end}):
        _refuse("It has not one special token, the end of a text", f"added_tokens.json adds {shown_name(min(more))}")
    try:
        lines = utf8(read_bytes(folder / "merges.txt", MOST_JSON)).splitlines()
    except (OSError, ValueError) as error:
        _refuse("Its merges cannot be read", why(error))
    merges = [_pair(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return read_json(folder / "vocab.json"), merges, str(end)


def _pair(parts: object) -> tuple[str, str]:
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        _refuse("A merge is no pair of tokens", shown_name(parts))
    return parts[0], parts[1]


def _byte_pairs(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], end: str) -> Tokenizer:
    """Returns the tokenizer, after making sure that ours, which knows the order of the ids alone, encodes alike.

    It does if each token but bytes and `end` is the result of one merge, ids are in the order of the merges, and the
    merges turn each token's own bytes into that token: then a stretch of text that could become a token by another
    pair never comes to that pair, whatever stands around it.
    """
    from tokenizers import models

    tokens = {END_OF_TEXT if token == end else token: index for token, index in vocab.items()}
    if end not in vocab or len(tokens) != len(vocab):
        _refuse("Its special token is not one of its tokens", shown_name(end))
    if (tokens, merges) == gpt2_pairs():
        return gpt2_tokenizer()
    try:
        vocabulary_from_characters(tokens)
    except (ValueError, TypeError) as error:
        _refuse("Its tokens are not numbered spellings of bytes", shown_name(str(error)))
    characters = set(byte_to_character().values())
    if missing := characters - tokens.keys():
        _refuse("It cannot say every byte", f"{shown_name(min(missing))} is missing")
    if unknown := {part for pair in merges for part in pair} - tokens.keys():
        _refuse("It merges what is no token", shown_name(min(unknown)))
    merged = [tokens.get(first + second) for first, second in merges]
    expected = sorted(index for token, index in tokens.items() if token not in characters and token != END_OF_TEXT)
    if merged != expected:
        seen = f"{len(merges)} merges, {len(expected)} tokens longer than a byte"
        _refuse("Its ids are not in the order of its merges, each token made by one", seen)
    model = models.BPE(dict(tokens), list(merges))
    for token, index in tokens.items():
        if token != END_OF_TEXT and [part.id for part in model.tokenize(token)] != [index]:
            _refuse("Its merges do not make a token of its own bytes", shown_name(token))
    return bpe_from_json(f"bpe:{len(tokens)}", byte_level_json(tokens, merges))
