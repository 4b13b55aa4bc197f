"""The options of `minigpt generate` that say what text is wanted and how it is shown, and what they mean to a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from minigpt.errors import ConfigError

if TYPE_CHECKING:
    from minigpt.generation.text import TextSettings
    from minigpt.tokenizers import Tokenizer

_Several = Parameter(negative="", show_default=False)
_Flag = Parameter(negative="", show_default=False)


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How the text is chosen, and where it ends. The samplers act in the order in which they stand in samplers.py."""

    max_new_tokens: int = 100
    "The most tokens to add."
    temperature: float = 0.8
    "0 takes the most likely token; below 1 plays safe, above 1 takes risks."
    top_k: int | None = 50
    "Choose among the k most likely tokens only; none chooses among all."
    top_p: float | None = None
    "Choose among the most likely tokens that together have this probability."
    min_p: float | None = None
    "Choose among tokens at least this many times as likely as the most likely one, as 0.05."
    typical_p: float | None = None
    "Choose among tokens of about the expected surprise that together have this probability."
    repetition_penalty: float = 1.0
    "Above 1 makes tokens that are in the text already less likely, as 1.2."
    presence_penalty: float = 0.0
    "Taken off the logits of tokens that are in the text already."
    frequency_penalty: float = 0.0
    "Taken off the logits for each time that a token is in the text already."
    no_repeat_ngram: int | None = None
    "Never let so many tokens in a row come twice."
    ban: Annotated[tuple[str, ...], _Several] = ()
    "Never choose this token; may be repeated. A token is its text with its space, as ' the', or its number, as '#262'."
    bias: Annotated[tuple[str, ...], _Several] = ()
    "TOKEN=NUMBER, as ' the=-2': add the number to the token's logit; may be repeated."
    stop: Annotated[tuple[str, ...], _Several] = ()
    r"End the text before this string; may be repeated. \n in it is a new line, \t a tab."
    stop_token: Annotated[tuple[str, ...], _Several] = ()
    "End the text at this token, as at the end of a document; may be repeated."
    seed: int | None = None
    "The same seed gives the same text; without one it differs each time."

    def settings(self, tokenizer: Tokenizer) -> TextSettings:
        """Returns the options as `minigpt.generation` takes them.

        Raises:
            ConfigError: if a token is none, or a bias no number. Other mistakes are found where they are used.
        """
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "typical_p": self.typical_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": dict(_bias(tokenizer, bias) for bias in self.bias),
            "banned": [token_id(tokenizer, token) for token in self.ban],
            "no_repeat_ngram": self.no_repeat_ngram,
            "stop": [unescaped(string) for string in self.stop],
            "stop_tokens": [tokenizer.end_of_text, *(token_id(tokenizer, token) for token in self.stop_token)],
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Looking for a likely text instead of drawing just one."""

    best_of: int | None = None
    "Make so many texts of each prompt, and show the one with the highest mean log-probability a token."
    beams: int | None = None
    "Search along so many beams instead of drawing, and show the best text."
    length_penalty: float = 1.0
    "How much beams favour long texts: 0 compares sums of log-probabilities, 1 means, above 1 longer texts gain."

    @property
    def texts(self) -> int | None:
        """How many texts are made to choose from; None if there is no search."""
        return self.best_of if self.beams is None else self.beams


@dataclass(frozen=True, kw_only=True)
class ShownOptions:
    """What is shown of a text."""

    show_probabilities: Annotated[bool, _Flag] = False
    "Colour each token by the probability that the model gave it; without colours, print it behind the token."
    explain: Annotated[bool, _Flag] = False
    "Show for each step the five most likely next tokens, and what the samplers left of them."
    as_json: Annotated[bool, Parameter("--json", negative="", show_default=False)] = False
    "Print a line of JSON for each text: prompt, its tokens, text, tokens, logprobs, stopped_by, seed, settings."
    verbose: Annotated[bool, Parameter(("--verbose", "-v"), negative="", show_default=False)] = False
    "Say on standard error what it runs on and why, what rounded weights cost in loss, and the speed."

    @property
    def likelihoods(self) -> bool:
        """Whether anything of this shows how likely each token was."""
        return self.show_probabilities or self.explain or self.as_json


def token_id(tokenizer: Tokenizer, name: str) -> int:
    """Returns the token that a user named by its text, or by its number as #262.

    Raises:
        ConfigError: if it is no token, or several.
    """
    if re.fullmatch(r"#\d{1,9}", name):
        token = int(name[1:])
        if token < tokenizer.vocab_size:
            return token
        raise ConfigError("There is no such token", seen=name, remedy=f"Numbers go up to #{tokenizer.vocab_size - 1}.")
    ids = tokenizer.encode(unescaped(name)).tolist()
    if len(ids) == 1 and ids[0] != tokenizer.unknown:
        return int(ids[0])
    parts = ", ".join(f"#{token} {tokenizer.decode([token])!r}" for token in ids[:8])
    raise ConfigError(
        "This text is not one token" + (f" but {len(ids)}: {parts}" if len(ids) > 1 else ""),
        seen=repr(name),
        remedy="Give one token: most words begin with their space, as ' the'.",
    )


def unescaped(text: str) -> str:
    r"""Returns the text with \n, \t and \\ as the characters that they stand for."""
    return re.sub(r"\\[nt\\]", lambda found: {"n": "\n", "t": "\t", "\\": "\\"}[found[0][1]], text)


def _bias(tokenizer: Tokenizer, text: str) -> tuple[int, float]:
    token, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        token = ""
    if not token:
        raise ConfigError("This is no bias", seen=repr(text), remedy="Give TOKEN=NUMBER, as --bias ' the=-2'.")
    return token_id(tokenizer, token), value
