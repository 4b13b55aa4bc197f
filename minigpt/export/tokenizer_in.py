"""Reads the tokenizer files of other programs, if one of Mini-GPT's tokenizers gives the same ids.

That is the case for byte-level BPE with GPT-2's pre-tokenizer: GPT-2's own, and any whose ids are in the order of its
merges. Mini-GPT's tokenizers have one special token, the end of a text, and add none to a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from minigpt.errors import TokenizerError
from minigpt.export.safe_load import MAX_JSON, quote, read_json
from minigpt.export.tokenizer_out import byte_level_json, gpt2_pairs
from minigpt.files import read_bytes, utf8, why
from minigpt.tokenizers import CONFIG_FILE, END_OF_TEXT, Tokenizer, load_tokenizer
from minigpt.tokenizers.bpe import FILE, bpe_from_json, byte_to_character, vocabulary_from_characters
from minigpt.tokenizers.gpt2 import gpt2_tokenizer

GPT2_SIZE = 50_257

WITHOUT_MERGES = ("char", "byte")
"""Types that their own file describes completely; the merges of the others are always checked."""


def read_tokenizer(folder: Path, vocab_size: int) -> tuple[Tokenizer, list[str]]:
    """Returns the tokenizer that gives the same ids as a folder's files, and notes about it for the user.

    Args:
        folder: the checkpoint's folder.
        vocab_size: the model's vocabulary. Without tokenizer files, GPT-2's number of ids means GPT-2's tokenizer.

    Raises:
        TokenizerError: if there is none, or no tokenizer of Mini-GPT gives the same ids.
        CheckpointError: if a file cannot be read.
    """
    notes: list[str] = []
    settings = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).exists() else {}
    if settings.get("kind") in WITHOUT_MERGES and (own := _exported(folder)):
        return own, []
    if settings.get("add_prefix_space"):
        _refuse("It adds a space before every text", "add_prefix_space true")
    if (folder / FILE).exists():
        content = read_json(folder / FILE)
        tokens, merges, end = _from_json(content)
        notes = _notes(content.get("post_processor"))
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        tokens, merges, end = _from_vocab_and_merges(folder, settings)
    elif vocab_size == GPT2_SIZE:
        return gpt2_tokenizer(), ["no tokenizer found; the model has 50,257 ids, so GPT-2's is used"]
    else:
        raise TokenizerError(
            "No tokenizer found",
            got=f"neither {FILE} nor vocab.json and merges.txt in {folder}",
            remedy="Give the one that the model was trained with: --tokenizer gpt2, byte, or the folder of a run.",
        )
    made = _bpe(tokens, merges, end)
    if settings.get("identity") == made.identity and (own := _exported(folder)):
        made.spec = own.spec  # with the requested number of ids; it may have fewer
    return made, notes


def _exported(folder: Path) -> Tokenizer | None:
    """Returns the tokenizer if `minigpt export` wrote it; None if another program wrote or changed it."""
    try:
        return load_tokenizer(folder)
    except TokenizerError:
        return None


def _refuse(what: str, got: object) -> NoReturn:
    raise TokenizerError(
        f"The checkpoint's tokenizer is not supported. {what}",
        got=got,
        remedy="Byte-level BPE like GPT-2's is. If it gives the same ids as another tokenizer, name that: --tokenizer.",
    )


def _from_json(content: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]], str]:
    """Returns tokens, merges and the special token of a `tokenizer.json`."""
    model, cut = content.get("model"), content.get("pre_tokenizer")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        _refuse("It is not BPE", quote(model.get("type") if isinstance(model, dict) else model))
    if content.get("normalizer"):
        _refuse("It normalizes the text", f"normalizer {quote(content['normalizer'])}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            _refuse("Its BPE differs from GPT-2's", f"{name} {quote(model[name])}")
    if not isinstance(cut, dict) or cut.get("type") != "ByteLevel" or not cut.get("use_regex", True):
        _refuse("Its pre-tokenizer differs from GPT-2's", f"pre_tokenizer {quote(cut)}")
    if cut.get("add_prefix_space"):
        _refuse("It adds a space before every text", "add_prefix_space true")
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        _refuse("added_tokens must be a list of tokens", quote(added))
    if len(added) != 1:
        names = ", ".join(quote(token.get("content")) for token in added[:5]) or "none"
        _refuse("It must have one special token, the end of a text", f"{len(added)}: {names}")
    end, index = added[0].get("content"), added[0].get("id")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list) or not isinstance(end, str):
        _refuse("Its tokens or merges are missing", FILE)
    if vocab.setdefault(end, index) != index:
        _refuse("Its special token has two ids", f"{quote(end)}: {quote(vocab[end])}, {quote(index)}")
    return vocab, [_pair(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges], end


def _notes(after: object) -> list[str]:
    """Returns a note about a `post_processor` that may add tokens; ByteLevel and a template without tokens do not."""
    kind = after.get("type") if isinstance(after, dict) else after
    empty = kind == "TemplateProcessing" and isinstance(after, dict) and after.get("special_tokens") == {}
    if kind in (None, "ByteLevel") or empty:
        return []
    return [f"{FILE} may add tokens to a text (post_processor {quote(kind)}); this run's tokenizer adds none"]


def _from_vocab_and_merges(
    folder: Path, settings: Mapping[str, Any]
) -> tuple[dict[str, int], list[tuple[str, str]], str]:
    """Returns tokens, merges and the special token of `vocab.json` and `merges.txt`."""
    end = settings.get("eos_token", END_OF_TEXT)
    end = end.get("content") if isinstance(end, dict) else end
    if (folder / "added_tokens.json").exists() and (more := read_json(folder / "added_tokens.json").keys() - {end}):
        _refuse("It must have one special token, the end of a text", f"added_tokens.json adds {quote(min(more))}")
    try:
        lines = utf8(read_bytes(folder / "merges.txt", MAX_JSON)).splitlines()
    except (OSError, ValueError) as error:
        _refuse("Its merges cannot be read", why(error))
    merges = [_pair(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return read_json(folder / "vocab.json"), merges, str(end)


def _pair(parts: object) -> tuple[str, str]:
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        _refuse("A merge must be a pair of tokens", quote(parts))
    return parts[0], parts[1]


def _bpe(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], end: str) -> Tokenizer:
    """Returns the tokenizer, after checking that ours, which knows only the order of the ids, encodes the same way.

    It does if each token but bytes and `end` is the result of one merge, ids are in the order of the merges, and the
    merges turn each token's own bytes into that token: then no text reaches a token by another pair.
    """
    from tokenizers import models

    tokens = {END_OF_TEXT if token == end else token: index for token, index in vocab.items()}
    if end not in vocab or len(tokens) != len(vocab):
        _refuse("Its special token is not in its vocabulary", quote(end))
    if (tokens, merges) == gpt2_pairs():
        return gpt2_tokenizer()
    try:
        vocabulary_from_characters(tokens)
    except (ValueError, TypeError) as error:
        _refuse("Its tokens are not spellings of bytes with ids from 0", quote(str(error)))
    characters = set(byte_to_character().values())
    if missing := characters - tokens.keys():
        _refuse("A byte has no token", quote(min(missing)))
    if unknown := {part for pair in merges for part in pair} - tokens.keys():
        _refuse("It merges an unknown token", quote(min(unknown)))
    merged = [tokens.get(first + second) for first, second in merges]
    expected = sorted(index for token, index in tokens.items() if token not in characters and token != END_OF_TEXT)
    if merged != expected:
        got = f"{len(merges)} merges, {len(expected)} tokens longer than a byte"
        _refuse("Its ids are not in the order of its merges, one for each token", got)
    model = models.BPE(dict(tokens), list(merges))
    for token, index in tokens.items():
        if token != END_OF_TEXT and [part.id for part in model.tokenize(token)] != [index]:
            _refuse("Its merges do not turn a token's bytes into that token", quote(token))
    return bpe_from_json(f"bpe:{len(tokens)}", byte_level_json(tokens, merges))
