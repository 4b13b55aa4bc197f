"""The options of `minigpt generate` that say which text is wanted and what is shown of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from minigpt.errors import ConfigError
from minigpt.sampling_params import SamplingParams
from minigpt.text_utils import escaped, quoted, unescaped

if TYPE_CHECKING:
    from minigpt.runtime import Runtime
    from minigpt.tokenizers import Tokenizer

_Repeatable = Parameter(negative="", show_default=False)
_NoOption = Parameter(parse=False)
_Flag = Parameter(negative="", show_default=False)


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(SamplingParams):
    """`SamplingParams` as they are typed, with tokens given as text, which the run's tokenizer resolves."""

    stop: Annotated[tuple[str, ...], _Repeatable] = ()
    r"End the text before this string; may be repeated. \n is a new line, \t a tab, \u00e9 an é."
    stop_token: Annotated[tuple[str, ...], _Repeatable] = ()
    "End the text at this token, in addition to the end of the document; may be repeated."
    banned_token: Annotated[tuple[str, ...], _Repeatable] = ()
    "Never choose this token, given as text (' the'), number ('#262') or name ('<|endoftext|>'); may be repeated."
    bias: Annotated[tuple[str, ...], Parameter("--logit-bias", negative="", show_default=False)] = ()
    "Add a number to a token's logit, as TOKEN=NUMBER, for example ' the=-2'; may be repeated."

    # Not typed: `params` fills them in from the three above.
    logit_bias: Annotated[Mapping[int, float] | None, _NoOption] = None
    banned_tokens: Annotated[Sequence[int], _NoOption] = ()
    stop_tokens: Annotated[Sequence[int] | None, _NoOption] = None

    def params(self, tokenizer: Tokenizer) -> SamplingParams:
        """Returns the parameters that the options mean to a tokenizer.

        Raises:
            ConfigError: if a setting cannot work.
        """
        typed = {each.name: getattr(self, each.name) for each in fields(SamplingParams)} | {
            "logit_bias": dict(_bias(tokenizer, bias) for bias in self.bias),
            "banned_tokens": [token_id(tokenizer, token) for token in self.banned_token],
            "stop": [unescape(string, "--stop") for string in self.stop],
            "stop_tokens": [tokenizer.end_of_text, *(token_id(tokenizer, token) for token in self.stop_token)],
        }
        params = SamplingParams(**typed)
        params.check(tokenizer.vocab_size)
        return params

    def as_typed(self) -> dict[str, Any]:
        """Returns the values by the names of the options."""
        not_typed = ("logit_bias", "banned_tokens", "stop_tokens")
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in not_typed}
        return {"logit_bias" if name == "bias" else name: value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Searching for a likely text instead of drawing one."""

    best_of: int | None = None
    "Generate this many texts for each prompt, and show the one with the highest mean log-probability per token."
    num_beams: int | None = None
    "Use beam search with this many beams instead of drawing, and show the best text."
    length_penalty: float = 1.0
    "How much beam search favours long texts: 0 compares sums of log-probabilities, 1 means, above 1 even more."

    @property
    def n_texts(self) -> int | None:
        """How many texts are generated to choose from; None without a search."""
        return self.best_of if self.num_beams is None else self.num_beams


@dataclass(frozen=True, kw_only=True)
class DisplayOptions:
    """What is shown of a text."""

    show_probabilities: Annotated[bool, _Flag] = False
    "Colour each token by the probability that the model gave it; without colours, print the probability after it."
    top_logprobs: int = 0
    "Show this many of the most likely tokens at each step, the chosen one, and what the samplers left of them."
    as_json: Annotated[bool, Parameter("--json", negative="", show_default=False)] = False
    "Print a line of JSON for each text: prompt, text, tokens, logprobs, finish_reason, seed, notes, settings."
    verbose: Annotated[bool, Parameter(("--verbose", "-v"), negative="", show_default=False)] = False
    "Print to standard error which device and data type are used and why, the speed, and the loss that rounding costs."

    @property
    def needs_logprobs(self) -> bool:
        """Whether anything shown depends on how likely each token was."""
        return self.show_probabilities or self.top_logprobs > 0 or self.as_json


def inference_runtime(device: str, threads: int | None) -> Runtime:
    """Returns where to generate, in float32.

    Raises:
        ConfigError: if the number of threads is out of range.
        DeviceError: if the device does not exist here.
    """
    from minigpt.runtime import detect_runtime

    if threads is not None and not 1 <= threads <= 1024:
        raise ConfigError("--threads is out of range", got=threads, remedy="Give 1 to 1024, or omit it.")
    return detect_runtime(device, "float32", threads)


def token_id(tokenizer: Tokenizer, name: str) -> int:
    """Returns the token with this text, number (as #262) or name (as `token_name` shows it).

    Raises:
        ConfigError: if there is none, or the text is several tokens.
    """
    if re.fullmatch(r"#\d{1,9}", name):
        token = int(name[1:])
        if token < tokenizer.vocab_size:
            return token
        raise ConfigError("No such token", got=name, remedy=f"Numbers go up to #{tokenizer.vocab_size - 1}.")
    if name in (special := _special_tokens(tokenizer)):
        return special[name]
    data = _resolved(name)
    if data and data in tokenizer.vocabulary:
        return tokenizer.vocabulary.index(data)
    ids = tokenizer.encode(data.decode(errors="replace")).tolist()
    parts = ", ".join(f"#{token} {quoted(token_name(tokenizer, token))}" for token in ids[:8])
    raise ConfigError(
        "Not a single token" + (f" but {len(ids)}: {parts}" if len(ids) > 1 else ""),
        got=quoted(name),
        remedy="Give one token; most words include the space before them, as ' the'.",
    )


def token_name(tokenizer: Tokenizer, token: int) -> str:
    """Returns the name under which a token is shown; `token_id` accepts it."""
    special = _special_tokens(tokenizer)
    if token in special.values():
        return next(name for name, each in special.items() if each == token)
    name = escaped(tokenizer.token_bytes(token))
    if name in special or re.fullmatch(r"#\d{1,9}", name):  # it would be read as another token
        return f"\\x{ord(name[0]):02x}{name[1:]}"
    return name


def unescape(text: str, option: str) -> str:
    """Returns a text with its escapes resolved.

    Raises:
        ConfigError: if an escape is unknown, or the resulting bytes are not UTF-8.
    """
    data = _resolved(text)
    try:
        return data.decode()
    except UnicodeDecodeError:
        remedy = r"\xNN is a byte of UTF-8: write \u00e9 or \xc3\xa9 for an é."
        raise ConfigError(f"{option} is not valid UTF-8", got=quoted(text), remedy=remedy) from None


def _resolved(text: str) -> bytes:
    try:
        return unescaped(text)
    except ValueError:
        remedy = r"Write \\ for a backslash. Escapes are \n, \r, \t, \xNN, \uNNNN and \UNNNNNNNN."
        raise ConfigError("Unknown escape", got=text, remedy=remedy) from None


def _special_tokens(tokenizer: Tokenizer) -> dict[str, int]:
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
        remedy = "Give TOKEN=NUMBER, as --logit-bias ' the=-2'."
        raise ConfigError("Invalid --logit-bias", got=quoted(text), remedy=remedy)
    return token_id(tokenizer, token), value
