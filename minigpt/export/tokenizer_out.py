"""Mini-GPT's tokenizers as files that Hugging Face's programs read, giving the same ids.

`tokenizer.json` describes the encoding, `tokenizer_config.json` the rest, both for `AutoTokenizer` and for our own
`load_tokenizer`. Special tokens in a text are ordinary characters, here by `split_special_tokens`. A new type of
tokenizer needs a function and a line in `WRITERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt.errors import TokenizerError
from minigpt.files import read_json
from minigpt.tokenizers import CONFIG_FILE, END_OF_TEXT, UNKNOWN, CharTokenizer, Tokenizer
from minigpt.tokenizers.bpe import FILE, byte_to_character
from minigpt.tokenizers.gpt2 import gpt2_file

FIELDS: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    **dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT),
    "unk_token": None,
    "padding_side": "left",
    "clean_up_tokenization_spaces": False,
    "split_special_tokens": True,
}
"""What `AutoTokenizer` needs in addition to `tokenizer.json`."""


def save_tokenizer(tokenizer: Tokenizer, folder: Path, block_size: int) -> None:
    """Writes a tokenizer into a folder, for `AutoTokenizer` and for `load_tokenizer`.

    Args:
        tokenizer: the tokenizer.
        folder: an existing folder.
        block_size: the context length of its model.

    Raises:
        TokenizerError: if its type has no entry in `WRITERS`.
    """
    if tokenizer.kind not in WRITERS:
        raise TokenizerError(
            "This type of tokenizer cannot be exported",
            got=tokenizer.spec,
            remedy=f"Types that can: {', '.join(WRITERS)}.",
        )
    tokenizer.save(folder)
    for name, content in WRITERS[tokenizer.kind](tokenizer).items():
        (folder / name).write_bytes(content)
    own = read_json(folder / CONFIG_FILE)
    text = json.dumps({**own, **FIELDS, "model_max_length": block_size}, indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8", newline="\n")


def gpt2_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns GPT-2's tokens with their ids, and its merges in order."""
    lines = gpt2_file("vocab.bpe").decode().splitlines()[1:]  # the first line is the version
    merges = [(first, second) for first, second in (line.split(" ") for line in lines if line)]
    return json.loads(gpt2_file("encoder.json")), merges


def byte_level_json(tokens: Mapping[str, int], merges: Sequence[tuple[str, str]], use_regex: bool = True) -> bytes:
    """Returns the `tokenizer.json` of a byte-level BPE.

    Args:
        tokens: the id of every token, in GPT-2's spelling of bytes, `END_OF_TEXT` included.
        merges: the merges in order.
        use_regex: whether the text is split into words first.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    backend = Backend(models.BPE(dict(tokens), list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    backend.decoder = decoders.ByteLevel()
    return _finished(backend)


def _finished(backend: Any) -> bytes:
    from tokenizers import AddedToken

    backend.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return str(backend.to_str(pretty=True)).encode()


def _gpt2(tokenizer: Tokenizer) -> dict[str, bytes]:
    return {
        FILE: byte_level_json(*gpt2_pairs()),
        "vocab.json": gpt2_file("encoder.json"),
        "merges.txt": gpt2_file("vocab.bpe"),
    }


def _byte(tokenizer: Tokenizer) -> dict[str, bytes]:
    """A BPE without merges."""
    tokens = {character: byte for byte, character in byte_to_character().items()}
    return {FILE: byte_level_json(tokens | {END_OF_TEXT: tokenizer.end_of_text}, [], use_regex=False)}


def _char(tokenizer: Tokenizer) -> dict[str, bytes]:
    """A vocabulary of words, each of them one character."""
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    assert isinstance(tokenizer, CharTokenizer)
    tokens = {character: index for index, character in enumerate(tokenizer.characters)}
    tokens |= {END_OF_TEXT: tokenizer.end_of_text, UNKNOWN: tokenizer.vocab_size - 1}
    backend = Backend(models.WordLevel(tokens, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    replacement = tokenizer.token_bytes(tokens[UNKNOWN]).decode()
    backend.decoder = decoders.Sequence([decoders.Replace(UNKNOWN, replacement), decoders.Fuse()])
    return {FILE: _finished(backend)}


WRITERS: dict[str, Callable[[Tokenizer], Mapping[str, bytes]]] = {
    "gpt2": _gpt2,
    "char": _char,
    "byte": _byte,
    "bpe": lambda tokenizer: {},  # it saves its own tokenizer.json
}
