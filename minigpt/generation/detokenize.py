"""From tokens to text that can be shown: whole characters, and nothing of a stop string.

Three things keep a token's text from being shown at once. A token may end inside a character: its bytes wait for the
rest. Its text may be the beginning of a stop string: it waits until that is certain, and a stop string itself is never
shown, whether it ends inside a token or spans several. And the token that stops a text is no part of it.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from minigpt.generation.engine import ENDS_WITHOUT_TEXT, FinishReason, Step
from minigpt.tokenizers import Tokenizer

TextFinishReason: TypeAlias = FinishReason | Literal["stop string"]
"""Why a text ended."""


@dataclass(frozen=True)
class TextPiece:
    """What one token adds to one text.

    Attributes:
        text: what can be shown now; empty for half a character, and for what belongs to a stop string.
        step: the token.
        end: why the text ends with this piece; None if it goes on.
    """

    text: str
    step: Step
    end: TextFinishReason | None = None


def step_bytes(tokenizer: Tokenizer, step: Step) -> bytes:
    """Returns what a token adds to its text: nothing if it is the one that stopped it."""
    return b"" if step.end in ENDS_WITHOUT_TEXT else tokenizer.token_bytes(step.token)


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Returns where the stop string begins that is complete first, of equals the longest; None if there is none."""
    found = [(start + len(string), start) for string in stop if (start := text.find(string)) >= 0]
    return min(found)[1] if found else None


def held_back(text: str, stop: Sequence[str]) -> int:
    """Returns how many characters at a text's end may be the beginning of a stop string."""
    longest = min(len(text), max(map(len, stop), default=1) - 1)
    return next((size for size in range(longest, 0, -1) if any(s.startswith(text[-size:]) for s in stop)), 0)


@dataclass
class Detokenizer:
    """One text as its tokens come: whole characters, up to a stop string."""

    stop: Sequence[str]
    waiting: list[TextPiece] = field(default_factory=list)
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )

    def add(self, step: Step, data: bytes) -> list[TextPiece]:
        """Takes a token and its bytes; returns the pieces that are now certain."""
        self.waiting.append(TextPiece(self.decoder.decode(data, final=step.end is not None), step, step.end))
        text = "".join(piece.text for piece in self.waiting)
        if (cut := first_stop(text, self.stop)) is not None:
            return self._release(cut, stopped=True)
        return self._release(len(text) if step.end else len(text) - held_back(text, self.stop))

    def _release(self, count: int, *, stopped: bool = False) -> list[TextPiece]:
        """Returns the pieces that lie within the first `count` characters; all of them, cut there, when stopped."""
        released = []
        while self.waiting and (stopped or len(self.waiting[0].text) <= count):
            piece = self.waiting.pop(0)
            released.append(replace(piece, text=piece.text[:count]) if stopped else piece)
            count -= len(released[-1].text)
        if stopped:
            released[-1] = replace(released[-1], end="stop string")
        return released
