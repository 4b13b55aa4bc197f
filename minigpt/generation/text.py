"""Text in, text out: prompts and settings go to the engine, and what it says comes back as text.

How tokens are chosen is decided in samplers.py, what of their text can be shown when in detokenize.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Unpack, overload

from minigpt.errors import ConfigError, TokenizerError
from minigpt.generation.detokenize import Detokenizer, TextFinishReason, TextPiece, step_bytes
from minigpt.generation.engine import Step, stream_steps
from minigpt.generation.samplers import NONE_LEFT, SamplerSettings, Sampling
from minigpt.model import GPT
from minigpt.tokenizers import Tokenizer

MOST_SAMPLES = 10_000
"""So many texts of one prompt can be asked for at once."""


class SamplingParams(SamplerSettings, total=False):
    """The keyword arguments of what generates text: those of `Sampling` and these. None is required.

    Attributes:
        max_new_tokens: the most tokens to add, 100 unless given; the model may end the text before.
        stop: a string that ends the text, or several; none of them is shown. They are looked for in the new text only.
        stop_tokens: token ids that end the text; the tokenizer's end of text unless given.
        seed: the same seed gives the same text, alone or among others; a random one unless given.
    """

    max_new_tokens: int
    stop: str | Sequence[str]
    stop_tokens: Sequence[int]
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class SamplingRequest:
    """`SamplingParams`, filled up and checked."""

    max_new_tokens: int
    stop: tuple[str, ...]
    stop_tokens: tuple[int, ...]
    seed: int
    sampling: Sampling

    @classmethod
    def read(cls, model: GPT, tokenizer: Tokenizer, settings: SamplingParams) -> SamplingRequest:
        """Returns what the settings ask of this model and its tokenizer.

        Raises:
            ConfigError: if a setting cannot work.
            TokenizerError: if the tokenizer is not the model's.
        """
        rest = settings.copy()
        stop, seed = rest.pop("stop", ()), rest.pop("seed", None)
        request = cls(
            max_new_tokens=rest.pop("max_new_tokens", 100),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            stop_tokens=tuple(rest.pop("stop_tokens", (tokenizer.end_of_text,))),
            seed=secrets.randbits(32) if seed is None else seed,
            sampling=Sampling(**rest),  # type: ignore[misc]  # the rest are its fields
        )
        request._check(model, tokenizer)
        return request

    def _check(self, model: GPT, tokenizer: Tokenizer) -> None:
        for name in ("max_new_tokens", "seed", "top_k", "no_repeat_ngram"):
            value = getattr(self, name, getattr(self.sampling, name, None))
            if value is not None and not isinstance(value, Integral):
                raise ConfigError(
                    f"{name.replace('_', '-')} must be a whole number", got=repr(value), remedy="Give one, as 20."
                )
        self.sampling.check(tokenizer.vocab_size)
        for token in self.stop_tokens:
            if not 0 <= token < tokenizer.vocab_size:
                last = tokenizer.vocab_size - 1
                raise ConfigError("There is no such stop token", got=token, remedy=f"Ids go from 0 to {last}.")
        if self.max_new_tokens < 0:
            raise ConfigError("max-new-tokens cannot be negative", got=self.max_new_tokens, remedy="Give 0 or more.")
        if not 0 <= self.seed < 2**63:
            raise ConfigError("The seed is out of range", got=self.seed, remedy="Give a number from 0 to 2^63 - 1.")
        if "" in self.stop:
            raise ConfigError("A stop string is empty, and would stop everything", remedy="Leave it out.")
        if tokenizer.vocab_size != model.config.vocab_size:
            raise TokenizerError(
                "The tokenizer is not the model's",
                got=f"{tokenizer.vocab_size} ids, the model has {model.config.vocab_size}",
                remedy="Take both from the same run.",
            )

    def seeds(self, n: int) -> list[int]:
        """Returns the seeds of n texts: this one, and those that follow it."""
        check_samples(n)
        return [(self.seed + number) % 2**63 for number in range(n)]


@dataclass
class Sample:
    """One generated text.

    Attributes:
        prompt: the text it continues.
        seed: what to give as the seed to get it again, alone; None if nothing was drawn.
        pieces: what its tokens added, one after the other.
    """

    prompt: str
    seed: int | None = None
    pieces: list[TextPiece] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The continuation, without the prompt."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> list[int]:
        """All tokens chosen, with those that made up a stop string or stopped the text."""
        return [piece.step.token for piece in self.pieces if piece.step.token != NONE_LEFT]

    @property
    def logprobs(self) -> list[float]:
        """The logarithm of the probability that the model itself gives each of them, before any sampler."""
        return [piece.step.logprob for piece in self.pieces if piece.step.token != NONE_LEFT]

    @property
    def mean_logprob(self) -> float:
        """How likely the model finds the text: the mean of the logprobs; minus infinity without a token."""
        logprobs = self.logprobs
        return sum(logprobs) / len(logprobs) if logprobs else float("-inf")

    @property
    def end(self) -> TextFinishReason:
        """Why it ended."""
        return (self.pieces[-1].end if self.pieces else None) or "length"


def check_samples(n: int, name: str = "samples") -> None:
    """Raises ConfigError if so many texts of a prompt cannot be made."""
    if not 1 <= n <= MOST_SAMPLES:
        raise ConfigError(f"The number of {name} is out of range", got=n, remedy=f"Give 1 to {MOST_SAMPLES:,}.")


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Returns the token ids of a prompt, at least one: an empty prompt follows the end of another text."""
    return tokenizer.encode(prompt).tolist() or [tokenizer.end_of_text]


def stream_pieces(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    n: int = 1,
    logprobs: bool = True,
    explain: bool = False,
    **settings: Unpack[SamplingParams],
) -> Iterator[TextPiece]:
    """Yields the texts of several prompts piece by piece, as their tokens are chosen; each token is in one piece.

    Args:
        model, tokenizer: as `minigpt.load` returns them.
        prompts: the texts to continue; an empty one begins a new document.
        n: how many texts for each prompt. Those of prompt p are the rows p * n to p * n + n - 1 (`piece.step.row`), and
            have the seeds seed, seed + 1, ...
        logprobs: whether to tell how likely each token was (`piece.step.logprob`).
        explain: whether to name the most likely tokens of each step (`piece.step.candidates`).
        settings: see `SamplingParams` and `Sampling`.

    Raises:
        ConfigError: if a setting cannot work.
        TokenizerError: if the tokenizer is not the model's.
    """
    request = SamplingRequest.read(model, tokenizer, settings)
    seeds = request.seeds(n) * len(prompts)
    ids = [ids for prompt in prompts for ids in [prompt_ids(tokenizer, prompt)] * n]
    closed: set[int] = set()
    steps = stream_steps(
        model,
        ids,
        request.max_new_tokens,
        request.sampling,
        seeds,
        request.stop_tokens,
        logprobs=logprobs,
        explain=explain,
        closed=closed,
    )
    return _pieces(tokenizer, steps, [Detokenizer(request.stop) for _ in ids], closed)


def _pieces(
    tokenizer: Tokenizer, steps: Iterator[list[Step]], rows: Sequence[Detokenizer], closed: set[int]
) -> Iterator[TextPiece]:
    for step in (step for together in steps for step in together):
        for piece in rows[step.row].add(step, step_bytes(tokenizer, step)):
            if piece.end == "stop string":
                closed.add(step.row)
            yield piece


def stream(model: GPT, tokenizer: Tokenizer, prompt: str = "", **settings: Unpack[SamplingParams]) -> Iterator[str]:
    """Yields a prompt's continuation piece by piece, never half a character; arguments and errors as `generate`."""
    pieces = stream_pieces(model, tokenizer, [prompt], logprobs=False, **settings)
    return (piece.text for piece in pieces if piece.text)


def sample(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    n: int = 1,
    logprobs: bool = True,
    explain: bool = False,
    **settings: Unpack[SamplingParams],
) -> list[Sample]:
    """Returns n texts for each prompt, with their tokens, likelihoods and ends; else as `stream_pieces`."""
    request = SamplingRequest.read(model, tokenizer, settings)
    settings["seed"] = request.seed
    samples = [Sample(prompt, seed=seed) for prompt in prompts for seed in request.seeds(n)]
    for piece in stream_pieces(model, tokenizer, prompts, n=n, logprobs=logprobs, explain=explain, **settings):
        samples[piece.step.row].pieces.append(piece)
    return samples


@overload
def generate(
    model: GPT, tokenizer: Tokenizer, prompt: str = "", *, n: None = None, **settings: Unpack[SamplingParams]
) -> str: ...
@overload
def generate(
    model: GPT, tokenizer: Tokenizer, prompt: str = "", *, n: int, **settings: Unpack[SamplingParams]
) -> list[str]: ...
@overload
def generate(
    model: GPT, tokenizer: Tokenizer, prompt: list[str], *, n: None = None, **settings: Unpack[SamplingParams]
) -> list[str]: ...
@overload
def generate(
    model: GPT, tokenizer: Tokenizer, prompt: list[str], *, n: int, **settings: Unpack[SamplingParams]
) -> list[list[str]]: ...
def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | list[str] = "",
    *,
    n: int | None = None,
    **settings: Unpack[SamplingParams],
) -> str | list[str] | list[list[str]]:
    """Returns the continuation of a prompt, or of several, without the prompt.

    Each text is what it would be alone: a function of its prompt, the settings and its seed.

    Args:
        model, tokenizer: as `minigpt.load` returns them.
        prompt: the text to continue, or a list of texts; an empty one begins a new document.
        n: how many texts for each prompt, with the seeds seed, seed + 1, ...; they come as a list.
        settings: `max_new_tokens=100`, `stop=()`, `stop_tokens`, `seed=None` (see `SamplingParams`), and how tokens are
            chosen: `temperature=0.8`, `top_k=50`, `top_p=None` and the other fields of `Sampling`.

    Raises:
        ConfigError: if a setting cannot work.
        TokenizerError: if the tokenizer is not the model's.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    count = 1 if n is None else n
    texts = [each.text for each in sample(model, tokenizer, prompts, n=count, logprobs=False, **settings)]
    groups = [texts[start : start + count] for start in range(0, len(texts), count)]
    found = [group[0] for group in groups] if n is None else groups
    return found[0] if isinstance(prompt, str) else found
