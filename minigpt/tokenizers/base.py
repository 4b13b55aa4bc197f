"""What a tokenizer is: text to token ids and back.

A tokenizer is a table of byte strings, one per id, and a way to cut text into entries of that table. What follows from
the table alone (decoding, identity, saving) is here; the types of tokenizers differ in the cutting.

Special tokens are never parsed from text: `<|endoftext|>` in a document is thirteen ordinary characters, and the id
`end_of_text` occurs only where the program puts it, between documents.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigpt.errors import TokenizerError

Ids = npt.NDArray[np.uint32]

OnNote = Callable[[str], None]
"""Called with a sentence that the user should know."""

CONFIG_FILE = "tokenizer_config.json"
FORMAT = 1
END_OF_TEXT, UNKNOWN = "<|endoftext|>", "<|unknown|>"  # the names of the two tokens without a text

WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, as a character class, which is what `\\s` means to tokenizers; Python's has four more."""

_SAFE_PLACE = re.compile(r"\S(?=[ \n\r\t])")


def usable_cores() -> int:
    """The number of CPU cores this process may use; a container may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of a text. A lone surrogate, which has none, becomes U+FFFD, as in tiktoken."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def last_safe_split(text: str) -> int:
    """The last place where a text may be cut in two so that encoding the parts equals encoding the whole.

    That is a place between a character that is not white space and one that is: GPT-2's pre-tokenizer always splits
    there (in what it splits off, only the first character can be white space followed by something else), and the
    other tokenizers do not look at neighbours at all. The first part never ends in white space, so that no rule about
    the end of the text applies to it.

    Returns:
        An index with `0 < index < len(text)`, or 0 if there is no such place.
    """
    for tail in (256, 65_536, len(text)):  # nearly always found at once; the last round makes it certain
        places = [place.end() for place in _SAFE_PLACE.finditer(text, max(0, len(text) - tail))]
        if places:
            return places[-1]
    return 0


class Tokenizer(ABC):
    """Text to ids and back."""

    spec: str  # what the user asked for: `gpt2`, `char`, `byte`, `bpe:8192`
    vocabulary: Sequence[bytes]  # the bytes of each id; `end_of_text` has none (`b""`)
    end_of_text: int  # the id that separates documents
    files: Mapping[str, bytes] = {}  # what this type saves besides `tokenizer_config.json`, by name
    fields: Mapping[str, object] = {}  # what it adds to `tokenizer_config.json`
    unknown: int | None = None  # the id for what the vocabulary does not have, or None if it has everything

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of a text: uint32, shape (n_tokens,). Never contains `end_of_text`."""

    @property
    def kind(self) -> str:
        """The part of `spec` before the colon, a key of `TOKENIZER_TYPES`."""
        return self.spec.partition(":")[0]

    @property
    def vocab_size(self) -> int:
        """The number of ids, `end_of_text` included."""
        return len(self.vocabulary)

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) of everything that decides the ids. Equal identities encode each text equally."""
        digest = hashlib.sha256(f"minigpt tokenizer {FORMAT} {self.kind} {self.end_of_text}\n".encode())
        for token in self.vocabulary:
            digest.update(len(token).to_bytes(4, "little") + token)
        return digest.hexdigest()

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id; `end_of_text` has none.

        Raises:
            TokenizerError: there is no such id.
        """
        if not 0 <= token < self.vocab_size:
            raise TokenizerError(
                f"A token id is outside the vocabulary of {self.spec}",
                got=int(token),
                remedy=f"Its ids are 0 to {self.vocab_size - 1}; is it the right tokenizer?",
            )
        return self.vocabulary[token]

    def decode_bytes(self, ids: Iterable[int] | Ids) -> bytes:
        """The bytes of several ids, joined. They need not be whole characters."""
        return b"".join(self.token_bytes(int(token)) for token in ids)

    def decode(self, ids: Iterable[int] | Ids) -> str:
        """The text of several ids; bytes that are not whole characters become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `tokenizer_config.json`, and other files of this type, into a folder, which is made if it is missing.

        `minigpt.tokenizers.load_tokenizer` reads it back.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (path / name).write_bytes(content)
        config = {
            "format": FORMAT,
            "kind": self.kind,
            "spec": self.spec,
            "identity": self.identity,
            "vocab_size": self.vocab_size,
            "end_of_text": self.end_of_text,
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()},
            **self.fields,
        }
        (path / CONFIG_FILE).write_bytes(json.dumps(config, indent=2).encode() + b"\n")
