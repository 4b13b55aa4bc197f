"""The data set's own prompts: short passages spread over the validation split, the same for every run on it."""

from __future__ import annotations

from minigpt.data import Dataset, TokenFile
from minigpt.tokenizers import Tokenizer

MAX_CHARACTERS, MIN_CHARACTERS = 32, 12
"""The length of a prompt: at most about eight tokens of a large vocabulary; shorter lines only if no other is near."""

SEARCH_TOKENS = 1024
"""How far from its place a prompt is searched for, in tokens."""


def fixed_prompts(dataset: Dataset, number: int) -> list[str]:
    """Returns passages of the validation split as text, spread evenly over it.

    Each is the beginning of a line or document if possible, and ends with a whole word in languages with spaces. There
    are fewer than `number` if the split is too short, or repeats itself.
    """
    val = dataset.val
    places = [val.n_tokens * (2 * k + 1) // (2 * number) for k in range(number)]
    passages = [_passage(val, dataset.tokenizer, place) for place in places]
    return list(dict.fromkeys(passage for passage in passages if passage))


def _passage(tokens: TokenFile, tokenizer: Tokenizer, place: int) -> str:
    """Returns the beginning of a line near a place, counted in tokens; the longest line if all are too short."""
    if tokens.segment_length:  # the next segment is another text
        place -= place % tokens.segment_length
    ids = tokens.read(place, place + min(SEARCH_TOKENS, tokens.segment_length or SEARCH_TOKENS)).tolist()
    parts = [b"\n" if token == tokenizer.end_of_text else tokenizer.token_bytes(token) for token in ids]
    first, *lines = b"".join(parts).decode("utf-8", errors="ignore").splitlines() or [""]
    lines = [line.strip() for line in lines]
    whole_words = (first.split(maxsplit=1)[1:] or [first])[0].strip()  # the first line may begin inside a word
    long_enough = (line for line in lines if len(line) >= MIN_CHARACTERS)
    return _shortened(next(long_enough, None) or max([*lines, whole_words], key=len))


def _shortened(line: str) -> str:
    """Returns the beginning of a line, in whole words if it has several."""
    if len(line) <= MAX_CHARACTERS:
        return line
    words = line[: MAX_CHARACTERS + 1].rsplit(maxsplit=1)[0]
    return words if MIN_CHARACTERS <= len(words) <= MAX_CHARACTERS else line[:MAX_CHARACTERS].strip()
