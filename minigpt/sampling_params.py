"""How a text is generated: the settings that Python callers, the engine and the command line share.

The string under a field is its help on the command line. Nothing heavy is imported here, so that the help is quick.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

from minigpt.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the tokens of a text are chosen, and where it ends.

    The samplers act in the order in which they are defined in minigpt/generation/samplers.py.
    """

    max_new_tokens: int = 100
    "The most tokens to add."
    temperature: float = 0.8
    "0 always takes the most likely token; below 1 is more predictable, above 1 more varied."
    top_k: int | None = 50
    "Choose only among the k most likely tokens; none chooses among all."
    top_p: float | None = None
    "Choose only among the most likely tokens that together have this probability."
    min_p: float | None = None
    "Choose only among tokens at least this many times as likely as the most likely one, for example 0.05."
    typical_p: float | None = None
    "Choose only among tokens close to the expected surprise that together have this probability."
    repetition_penalty: float = 1.0
    "Above 1 makes tokens that already occur in the text less likely, for example 1.2."
    presence_penalty: float = 0.0
    "Subtracted from the logits of tokens that already occur in the text."
    frequency_penalty: float = 0.0
    "Subtracted from a token's logit once for each time that it occurs in the text."
    logit_bias: Mapping[int, float] | None = None
    "Token ids to what is added to their logits; -inf bans a token."
    banned_tokens: Sequence[int] = ()
    "Token ids that are never chosen."
    no_repeat_ngram: int | None = None
    "Never repeat a sequence of this many tokens."
    stop: str | Sequence[str] = ()
    "Strings that end the text; they are searched for in the new text only, and not shown."
    stop_tokens: Sequence[int] | None = None
    "Token ids that end the text; None for the tokenizer's end of text."
    seed: int | None = None
    "The same seed gives the same text on the same machine; without one, each text is different."

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, also if there is only one."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken: below a temperature of 1e-6 no other has a chance."""
        return self.temperature < 1e-6

    @property
    def filters(self) -> tuple[object, ...]:
        """All settings of the samplers, hashable: texts for which they are equal can be sampled together."""
        names = ("temperature", "top_k", "top_p", "min_p", "typical_p", "no_repeat_ngram")
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        bias = tuple(sorted((self.logit_bias or {}).items()))
        return (*(getattr(self, name) for name in names), *penalties, bias, tuple(self.banned_tokens))

    def never_chosen(self) -> set[int]:
        """Returns the ids of all tokens that are banned, by name or by their bias."""
        return {*self.banned_tokens, *(t for t, bias in (self.logit_bias or {}).items() if bias == -math.inf)}

    def problems(self, vocab_size: int | None = None) -> Iterator[str]:
        """Yields each mistake as a sentence with its fix; token ids are checked if the vocabulary size is known."""
        for name in ("max_new_tokens", "top_k", "no_repeat_ngram", "seed"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Integral):
                yield f"{name.replace('_', '-')} is {value!r}; give a whole number such as 20"
                return
        if self.max_new_tokens < 0:
            yield f"max-new-tokens is {self.max_new_tokens}; give 0 or more"
        if not 0 <= self.temperature <= 1e6:
            yield f"temperature is {self.temperature}; give 0 (greedy) or a positive number such as 0.8"
        if self.top_k is not None and self.top_k < 1:
            yield f"top-k is {self.top_k}; give a positive number, or none for all tokens"
        for name, value in (("top-p", self.top_p), ("typical-p", self.typical_p)):
            if value is not None and not 0 < value <= 1:
                yield f"{name} is {value}; give a probability above 0, up to 1"
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            yield f"min-p is {self.min_p}; give a number from 0 to 1"
        if not 0.01 <= self.repetition_penalty <= 100:
            yield f"repetition-penalty is {self.repetition_penalty}; give a number such as 1.2, from 0.01 to 100"
        for name, value in (("presence", self.presence_penalty), ("frequency", self.frequency_penalty)):
            if not abs(value) <= 1000:
                yield f"{name}-penalty is {value}; give a number such as 0.5, from -1000 to 1000"
        if self.no_repeat_ngram is not None and self.no_repeat_ngram < 1:
            yield f"no-repeat-ngram is {self.no_repeat_ngram}; give a positive number such as 3, or none for no limit"
        if "" in self.stop_strings:
            yield "a stop string is empty, and would stop every text at once; leave it out"
        if self.seed is not None and not 0 <= self.seed < 2**63:
            yield f"the seed is {self.seed}; give a number from 0 to 2^63 - 1"
        for token, value in (self.logit_bias or {}).items():
            if not abs(value) <= 1000 and value != -math.inf:
                yield f"the bias of token {token} is {value}; give a number from -1000 to 1000, or -inf to ban it"
        yield from self._token_problems(vocab_size)

    def _token_problems(self, vocab_size: int | None) -> Iterator[str]:
        for token in (*(self.logit_bias or ()), *self.banned_tokens, *(self.stop_tokens or ())):
            if not 0 <= token < (vocab_size or math.inf):
                last = vocab_size - 1 if vocab_size else "that of the last token"
                yield f"token {token} does not exist; ids go from 0 to {last}"
        if vocab_size and len(self.never_chosen()) >= vocab_size:
            yield "every token is banned; leave at least one"

    def check(self, vocab_size: int | None = None) -> None:
        """Raises ConfigError if a setting cannot work."""
        if mistakes := list(self.problems(vocab_size)):
            raise ConfigError("Invalid sampling settings", remedy="; ".join(mistakes) + ".")
