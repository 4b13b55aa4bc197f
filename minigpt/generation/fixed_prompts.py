"""Passages of a data set to continue: short, spread over the validation split, the same for every run on it.

Not here: continuing them (sample_log.py).
"""

from __future__ import annotations

from minigpt.data import Dataset, TokenFile
from minigpt.tokenizers import Tokenizer

MOST_CHARACTERS = 32
"""Of a passage: about eight tokens of a large vocabulary."""

FEWEST_CHARACTERS = 12
"""A line with fewer is passed over, if a longer one is near."""

SEARCHED = 1024
"""A passage begins a line or a document within so many tokens of its place, if there is one."""


def fixed_prompts(dataset: Dataset, number: int) -> list[str]:
    """Returns passages of the validation split, as text, spread evenly over it.

    Each is the beginning of a line or document where there is one, and ends with a whole word where words are told
    apart by spaces. There are fewer than `number` if the split is too short for so many, or repeats itself.
    """
    shard = dataset.val
    places = [shard.n_tokens * (2 * k + 1) // (2 * number) for k in range(number)]
    passages = [_passage(shard, dataset.tokenizer, place) for place in places]
    return list(dict.fromkeys(passage for passage in passages if passage))


def _passage(shard: TokenFile, tokenizer: Tokenizer, place: int) -> str:
    """Returns the beginning of a line near a place, counted in tokens; of lines too short, the longest."""
    if shard.segment_length:  # what follows a seam is another text
        place -= place % shard.segment_length
    ids = shard.read(place, place + min(SEARCHED, shard.segment_length or SEARCHED)).tolist()
    parts = [b"\n" if token == tokenizer.end_of_text else tokenizer.token_bytes(token) for token in ids]
    first, *lines = b"".join(parts).decode("utf-8", errors="ignore").splitlines() or [""]
    lines = [line.strip() for line in lines]
    long_enough = (line for line in lines if len(line) >= FEWEST_CHARACTERS)
    return _shortened(next(long_enough, None) or max([*lines, _from_a_word(first)], key=len))


def _from_a_word(text: str) -> str:
    """Returns a text without the word that it may begin inside of."""
    return (text.split(maxsplit=1)[1:] or [text])[0].strip()


def _shortened(line: str) -> str:
    """Returns the beginning of a line, with whole words if it has several."""
    if len(line) <= MOST_CHARACTERS:
        return line
    words = line[: MOST_CHARACTERS + 1].rsplit(maxsplit=1)[0]
    return words if FEWEST_CHARACTERS <= len(words) <= MOST_CHARACTERS else line[:MOST_CHARACTERS].strip()
