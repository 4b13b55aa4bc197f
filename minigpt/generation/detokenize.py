"""From tokens to text that can be shown: whole characters, and nothing of a stop string.

Three things keep a token's text from being shown at once. The token may end inside a character: its bytes wait for the
rest. Its text may be the beginning of a stop string: it waits until that is certain. And a stop token or a stop string,
whether it ends inside a token or spans several, is never shown.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import replace

from minigpt.generation.outputs import StepOutput
from minigpt.tokenizers import Tokenizer


def first_stop(text: str, stop: Sequence[str]) -> str | None:
    """Returns the stop string that is complete first in a text, of equals the longest; None if there is none."""
    found = [(text.find(string) + len(string), -len(string), string) for string in stop if string in text]
    return min(found)[2] if found else None


def n_held_back(text: str, stop: Sequence[str]) -> int:
    """Returns how many characters at the end of a text may be the beginning of a stop string."""
    longest = min(len(text), max(map(len, stop), default=1) - 1)
    return next((size for size in range(longest, 0, -1) if any(s.startswith(text[-size:]) for s in stop)), 0)


class Detokenizer:
    """The text of one request as its tokens come: whole characters, up to a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.waiting: list[StepOutput] = []
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, output: StepOutput) -> list[StepOutput]:
        """Takes the next token; returns it and those before it with their text, as far as that is certain."""
        data = b"" if output.finish_reason == "stop" else self.tokenizer.token_bytes(output.token)
        text = self.decoder.decode(data, final=output.finish_reason is not None)
        self.waiting.append(replace(output, text=text))
        text = "".join(each.text for each in self.waiting)
        if (stop := first_stop(text, self.stop)) is not None:
            return self._cut(text.find(stop), stop)
        shown = len(text) if output.finish_reason else len(text) - n_held_back(text, self.stop)
        released = []
        while self.waiting and len(self.waiting[0].text) <= shown:
            released.append(self.waiting.pop(0))
            shown -= len(released[-1].text)
        return released

    def _cut(self, size: int, stop: str) -> list[StepOutput]:
        """Returns all waiting outputs, their text cut to `size` characters; the last one ends the text."""
        released = []
        for output in self.waiting:
            released.append(replace(output, text=output.text[:size]))
            size -= len(released[-1].text)
        released[-1] = replace(released[-1], finish_reason="stop", stop_reason=stop)
        self.waiting = []
        return released
