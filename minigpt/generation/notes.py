"""What a model cannot read of a prompt, and a stop string that no text can reach: said, and no reason not to go on.

Each note is a sentence under a name of its own, for people and for programs. Not here: where they are shown (cli).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence, Set
from typing import Literal, TypeAlias

from minigpt.generation.text import SamplingRequest, prompt_ids
from minigpt.text_utils import escaped, pluralize, quoted
from minigpt.tokenizers import END_OF_TEXT, BytePairTokenizer, Tokenizer, utf8

Form: TypeAlias = Literal["NFC", "NFD"]
FORMS: dict[Form, str] = {
    "NFC": "a letter and its accent are one character",
    "NFD": "an accent is a character of its own",
}
"""Unicode's two ways to write the same letter."""

FEW = 5
"""So many characters are shown."""


def prompt_notes(tokenizer: Tokenizer, prompt: str, context: int) -> dict[str, str]:
    """Returns what of a prompt a model does not see as its reader does; each sentence begins with "the prompt".

    Args:
        tokenizer: the model's.
        prompt: the text to continue.
        context: the most tokens that the model sees at once.
    """
    notes = {}
    if unknown := _unknown(tokenizer, prompt):
        shown = ", ".join(quoted(escaped(utf8(character))) for character in unknown[:FEW])
        more = f" and {len(unknown) - FEW} more" if len(unknown) > FEW else ""
        notes["unknown_characters"] = (
            f"the prompt holds {shown}{more}, which the vocabulary lacks: the model sees the same sign for all such"
        )
    elif "\ufffd" in prompt:
        notes["replaced_bytes"] = "the prompt holds U+FFFD, which stands for bytes that are no character"
    if found := _better_form(tokenizer, prompt):
        notes["other_form"] = (
            f"the prompt would be closer to the training text in Unicode's form {found}, in which {FORMS[found]}"
        )
    if prompt.endswith(" ") and isinstance(tokenizer, BytePairTokenizer):
        notes["trailing_space"] = (
            "the prompt ends with a space, and in this vocabulary words bring theirs along: leave the last one out"
        )
    if END_OF_TEXT in prompt:
        notes["end_of_text"] = (
            f"the prompt spells {END_OF_TEXT}, which is plain text there and not the token; an empty prompt begins a "
            "new document"
        )
    if (length := len(prompt_ids(tokenizer, prompt))) > context:
        notes["context"] = f"the prompt has {length:,} tokens; the model sees the last {context:,} of them"
    return notes


def notes_of_all(tokenizer: Tokenizer, prompts: Sequence[str], context: int) -> list[str]:
    """Returns the notes on several prompts: of each kind the first, with how many more there are."""
    found = [prompt_notes(tokenizer, prompt, context) for prompt in prompts]
    notes = []
    for kind in dict.fromkeys(kind for each in found for kind in each):
        numbers = [number for number, each in enumerate(found, start=1) if kind in each]
        note, more = found[numbers[0] - 1][kind], len(numbers) - 1
        if len(prompts) > 1:
            note = note.replace("the prompt", f"prompt {numbers[0]:,}", 1)
        notes.append(note + (f" ({pluralize(more, 'other prompt')} likewise)" if more else ""))
    return notes


def stop_notes(tokenizer: Tokenizer, request: SamplingRequest) -> dict[str, str]:
    """Returns at which stop strings a text that is asked for can never end, and why; empty if at all of them."""
    found = [f"{quoted(escaped(utf8(each)))} ({why})" for each, why in _never_reached(tokenizer, request)]
    return {"never_stops": f"no text can stop at {', '.join(found)}"} if found else {}


def _unknown(tokenizer: Tokenizer, text: str) -> list[str]:
    """Returns the different characters that the vocabulary lacks."""
    if tokenizer.unknown is None:
        return []
    return [character for character in dict.fromkeys(text) if tokenizer.unknown in tokenizer.encode(character)]


def _better_form(tokenizer: Tokenizer, prompt: str) -> Form | None:
    """Returns the normal form of which the vocabulary says that the training text had it; None if it says nothing."""

    def cost(text: str) -> int:
        if tokenizer.unknown is not None:
            return int((tokenizer.encode(text) == tokenizer.unknown).sum())
        return len(tokenizer.encode(text)) if isinstance(tokenizer, BytePairTokenizer) else 0

    costs = {form: cost(unicodedata.normalize(form, prompt)) for form in FORMS} if not prompt.isascii() else {}
    best = min(costs, key=lambda form: costs[form], default=None)
    return best if best and costs[best] < cost(prompt) else None


def _never_reached(tokenizer: Tokenizer, request: SamplingRequest) -> Iterator[tuple[str, str]]:
    most, bias = request.max_new_tokens, request.sampling.logit_bias or {}
    if not (most and request.stop):
        return
    never = {*request.stop_tokens, *request.sampling.banned, *(t for t, value in bias.items() if value == -math.inf)}
    pieces = {piece for token, piece in enumerate(tokenizer.vocabulary) if token not in never}
    for string in request.stop:
        if string == END_OF_TEXT or "\ufffd" in string:  # the token ends each text; any broken character is shown so
            continue
        if (before := _complete_before(string, request.stop)) is not None:
            yield string, f"it would stop at {quoted(escaped(utf8(before)))} before"
            continue
        fewest = fewest_tokens(pieces, utf8(string), most)
        if fewest == math.inf:
            yield string, "no tokens that may be chosen spell it"
        elif fewest > most:
            yield string, f"it takes {pluralize(int(fewest), 'token')}, and there are at most {most:,}"


def _complete_before(string: str, others: Sequence[str]) -> str | None:
    """Returns the first stop string that is complete in each text before this one is."""
    return next((other for other in others if other in string[:-1]), None)


def fewest_tokens(pieces: Set[bytes], text: bytes, enough: int) -> float:
    """Returns how few tokens can spell a text, which may begin inside the first and end inside the last of them.

    Args:
        pieces: the tokens' bytes.
        text: at least one byte.
        enough: any number up to this one may be returned where this many are known to do.

    Returns:
        The number; infinity if no tokens can.
    """
    size = len(text)
    if size <= enough and all(bytes([byte]) in pieces for byte in text):
        return size
    if any(text in piece for piece in pieces):
        return 1
    longest = max(map(len, pieces), default=0)
    ends = {piece[-length:] for piece in pieces for length in range(1, len(piece) + 1)}
    begins = {piece[:length] for piece in pieces for length in range(1, len(piece) + 1)}
    least = [1.0 if 0 < place <= longest and text[:place] in ends else math.inf for place in range(size + 1)]
    least[size] = math.inf
    for place in range(1, size):
        for end in range(place + 1, min(place + longest, size) + 1):
            if text[place:end] in (begins if end == size else pieces):
                least[end] = min(least[end], least[place] + 1)
    return least[size]
