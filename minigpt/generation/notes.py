"""Notes on prompts and stop strings: what a model does not see as its reader does, and what it can never write.

Each note is a sentence with a name, for people and programs; none stops the work. Where they are shown is up to the
command line and the report.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal, TypeAlias

from minigpt.generation.text import prompt_ids
from minigpt.sampling_params import SamplingParams
from minigpt.text_utils import escaped, pluralize, quoted
from minigpt.tokenizers import END_OF_TEXT, BytePairTokenizer, Tokenizer, utf8

NormalForm: TypeAlias = Literal["NFC", "NFD"]
NORMAL_FORMS: dict[NormalForm, str] = {
    "NFC": "a letter and its accent are one character",
    "NFD": "an accent is a separate character",
}
"""Unicode's two ways to write the same letter."""

SHOWN_CHARACTERS = 5
"""How many unknown characters are named."""


def prompt_notes(tokenizer: Tokenizer, prompt: str, context: int) -> dict[str, str]:
    """Returns what of a prompt a model does not see as its reader does; each sentence begins with "the prompt".

    Args:
        tokenizer: the model's.
        prompt: the text to continue.
        context: the maximum number of tokens that the model sees at once.
    """
    notes = {}
    if unknown := _unknown_characters(tokenizer, prompt):
        shown = ", ".join(map(_quoted, unknown[:SHOWN_CHARACTERS]))
        more = f" and {len(unknown) - SHOWN_CHARACTERS} more" if len(unknown) > SHOWN_CHARACTERS else ""
        notes["unknown_characters"] = (
            f"the prompt contains {shown}{more}, which the vocabulary lacks: the model sees one token for all of them"
        )
    elif "\ufffd" in prompt:
        notes["replaced_bytes"] = "the prompt contains U+FFFD, the replacement for bytes that are not valid UTF-8"
    if form := _better_form(tokenizer, prompt):
        notes["other_form"] = (
            f"the prompt would be closer to the training text in Unicode's form {form}, in which {NORMAL_FORMS[form]}"
        )
    if prompt.endswith(" ") and isinstance(tokenizer, BytePairTokenizer):
        notes["trailing_space"] = (
            "the prompt ends with a space, but in this vocabulary a space belongs to the word after it: remove it"
        )
    if END_OF_TEXT in prompt:
        notes["end_of_text"] = (
            f"the prompt contains {END_OF_TEXT} as plain text, which is not the token; an empty prompt begins a new "
            "document"
        )
    if (length := len(prompt_ids(tokenizer, prompt))) > context:
        notes["context"] = f"the prompt has {length:,} tokens; the model sees the last {context:,} of them"
    return notes


def notes_of_all(tokenizer: Tokenizer, prompts: Sequence[str], context: int) -> list[str]:
    """Returns the notes on several prompts: the first of each kind, and how many more there are."""
    found = [prompt_notes(tokenizer, prompt, context) for prompt in prompts]
    notes = []
    for kind in dict.fromkeys(kind for each in found for kind in each):
        numbers = [number for number, each in enumerate(found, start=1) if kind in each]
        note, more = found[numbers[0] - 1][kind], len(numbers) - 1
        if len(prompts) > 1:
            note = note.replace("the prompt", f"prompt {numbers[0]:,}", 1)
        notes.append(note + (f" (also {pluralize(more, 'other prompt')})" if more else ""))
    return notes


def stop_notes(tokenizer: Tokenizer, params: SamplingParams) -> dict[str, str]:
    """Returns which stop strings no text can reach, and why; empty if all of them can be reached."""
    stop = params.stop_strings
    reasons = {}
    for string in stop:
        if earlier := next((other for other in stop if other in string[:-1]), None):
            reasons[string] = f"the text stops at {_quoted(earlier)} first"
        elif string != END_OF_TEXT and "\ufffd" not in string and _unknown_characters(tokenizer, string):
            reasons[string] = "the vocabulary lacks some of its characters"
    listed = ", ".join(f"{_quoted(string)} ({reason})" for string, reason in reasons.items())
    return {"never_stops": f"no text can stop at {listed}"} if reasons else {}


def _quoted(text: str) -> str:
    return quoted(escaped(utf8(text)))


def _unknown_characters(tokenizer: Tokenizer, text: str) -> list[str]:
    """Returns the different characters that the vocabulary lacks."""
    if tokenizer.unknown is None:
        return []
    return [character for character in dict.fromkeys(text) if tokenizer.unknown in tokenizer.encode(character)]


def _better_form(tokenizer: Tokenizer, prompt: str) -> NormalForm | None:
    """Returns the normal form of the training text, if the vocabulary shows it and the prompt differs from it."""

    def cost(text: str) -> int:
        if tokenizer.unknown is not None:
            return int((tokenizer.encode(text) == tokenizer.unknown).sum())
        return len(tokenizer.encode(text)) if isinstance(tokenizer, BytePairTokenizer) else 0

    costs = {form: cost(unicodedata.normalize(form, prompt)) for form in NORMAL_FORMS} if not prompt.isascii() else {}
    best = min(costs, key=lambda form: costs[form], default=None)
    return best if best and costs[best] < cost(prompt) else None
