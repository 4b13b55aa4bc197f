"""The options of `minigpt generate` that say what text is wanted and how it is shown, and what they mean to a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from minigpt.errors import ConfigError
from minigpt.text_utils import escaped, quoted, unescaped

if TYPE_CHECKING:
    from minigpt.generation.text import SamplingParams
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
    "Never repeat a sequence of this many tokens."
    ban: Annotated[tuple[str, ...], _Several] = ()
    "Never choose this token: its text with its space, as ' the', its number, '#262', or '<|endoftext|>'; repeatable."
    bias: Annotated[tuple[str, ...], _Several] = ()
    "TOKEN=NUMBER, as ' the=-2': add the number to the token's logit; may be repeated."
    stop: Annotated[tuple[str, ...], _Several] = ()
    r"End the text before this string; may be repeated. \n in it is a new line, \t a tab, \u00e9 an é."
    stop_token: Annotated[tuple[str, ...], _Several] = ()
    "End the text at this token, as at the end of a document; may be repeated."
    seed: int | None = None
    "The same seed gives the same text, on the same machine; without one it differs each time."

    def settings(self, tokenizer: Tokenizer) -> SamplingParams:
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
            "stop": [unescape(string, "--stop") for string in self.stop],
            "stop_tokens": [tokenizer.end_of_text, *(token_id(tokenizer, token) for token in self.stop_token)],
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Looking for a likely text instead of drawing just one."""

    best_of: int | None = None
    "Make this many texts of each prompt, and show the one with the highest mean log-probability per token."
    beams: int | None = None
    "Search along this many beams instead of drawing, and show the best text."
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
    "Show for each step the five most likely next tokens, the chosen one, and what the samplers left of them."
    as_json: Annotated[bool, Parameter("--json", negative="", show_default=False)] = False
    "Print a line of JSON for each text: prompt, text, tokens, logprobs, stopped_by, seed, notes, settings."
    verbose: Annotated[bool, Parameter(("--verbose", "-v"), negative="", show_default=False)] = False
    "Say on standard error what it runs on and why, what rounded weights cost in loss, and the speed."

    @property
    def likelihoods(self) -> bool:
        """Whether anything of this shows how likely each token was."""
        return self.show_probabilities or self.explain or self.as_json


def token_id(tokenizer: Tokenizer, name: str) -> int:
    """Returns the token that a user named: by its text, by its number as #262, or as `token_name` shows it.

    Raises:
        ConfigError: if it is no token, or several.
    """
    if re.fullmatch(r"#\d{1,9}", name):
        token = int(name[1:])
        if token < tokenizer.vocab_size:
            return token
        raise ConfigError("There is no such token", got=name, remedy=f"Numbers go up to #{tokenizer.vocab_size - 1}.")
    if name in (special := _special(tokenizer)):
        return special[name]
    data = _meant(name)
    if data and data in tokenizer.vocabulary:
        return tokenizer.vocabulary.index(data)
    ids = tokenizer.encode(data.decode(errors="replace")).tolist()
    parts = ", ".join(f"#{token} {quoted(token_name(tokenizer, token))}" for token in ids[:8])
    raise ConfigError(
        "This text is not one token" + (f" but {len(ids)}: {parts}" if len(ids) > 1 else ""),
        got=quoted(name),
        remedy="Give one token: most words begin with their space, as ' the'.",
    )


def token_name(tokenizer: Tokenizer, token: int) -> str:
    """Returns what a token is called, wherever one is shown; `token_id` takes the name."""
    special = _special(tokenizer)
    if token in special.values():
        return next(name for name, each in special.items() if each == token)
    name = escaped(tokenizer.token_bytes(token))
    if name in special or re.fullmatch(r"#\d{1,9}", name):  # it would be taken for another token
        return f"\\x{ord(name[0]):02x}{name[1:]}"
    return name


def unescape(text: str, option: str) -> str:
    """Returns a text with its escapes resolved.

    Raises:
        ConfigError: if there is an escape that means nothing, or the bytes are no text.
    """
    data = _meant(text)
    try:
        return data.decode()
    except UnicodeDecodeError:
        what = f"{option} takes a text, and these bytes are none"
        remedy = r"\xNN is a byte of UTF-8: write \u00e9 or \xc3\xa9 for an é."
        raise ConfigError(what, got=quoted(text), remedy=remedy) from None


def _meant(text: str) -> bytes:
    try:
        return unescaped(text)
    except ValueError:
        remedy = r"Write \\ for a backslash. Escapes are \n, \r, \t, \xNN, \uNNNN and \UNNNNNNNN."
        raise ConfigError("There is no such escape", got=text, remedy=remedy) from None


def _special(tokenizer: Tokenizer) -> dict[str, int]:
    """Returns the tokens that have a name instead of a text."""
    from minigpt.tokenizers.base import END_OF_TEXT, UNKNOWN

    unknown = {} if tokenizer.unknown is None else {UNKNOWN: tokenizer.unknown}
    return {END_OF_TEXT: tokenizer.end_of_text, **unknown}


def _bias(tokenizer: Tokenizer, text: str) -> tuple[int, float]:
    token, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        token = ""
    if not token:
        raise ConfigError("This is no bias", got=quoted(text), remedy="Give TOKEN=NUMBER, as --bias ' the=-2'.")
    return token_id(tokenizer, token), value
