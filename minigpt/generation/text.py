"""Text in, text out: prompts go to the engine, and its outputs come back as samples, streams or plain strings."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from minigpt.errors import ConfigError
from minigpt.generation.engine import MAX_BATCH_SIZE, Engine
from minigpt.generation.outputs import FinishReason, StepOutput
from minigpt.generation.samplers import NO_TOKEN
from minigpt.model import GPT
from minigpt.sampling_params import SamplingParams
from minigpt.tokenizers import Tokenizer

MAX_SAMPLES = 10_000
"""How many texts of one prompt can be requested at once."""

DEFAULTS = SamplingParams()


@dataclass
class Sample:
    """One generated text.

    Attributes:
        prompt: the text it continues.
        seed: gives the same text again, also alone; None if nothing was drawn.
        outputs: its tokens, in order.
    """

    prompt: str
    seed: int | None = None
    outputs: list[StepOutput] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The continuation, without the prompt."""
        return "".join(output.text for output in self.outputs)

    @property
    def tokens(self) -> list[int]:
        """All tokens chosen, including those of the stop token or string."""
        return [output.token for output in self.outputs if output.token != NO_TOKEN]

    @property
    def logprobs(self) -> list[float]:
        """The logarithm of the probability that the model gives each of them, before any sampler."""
        return [output.logprob for output in self.outputs if output.token != NO_TOKEN]

    @property
    def mean_logprob(self) -> float:
        """How likely the text is to the model: the mean of the logprobs; minus infinity without a token."""
        logprobs = self.logprobs
        return sum(logprobs) / len(logprobs) if logprobs else float("-inf")

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended."""
        return (self.outputs[-1].finish_reason if self.outputs else None) or "length"

    @property
    def stop_reason(self) -> int | str | None:
        """The stop token or string that ended it, if one did."""
        return self.outputs[-1].stop_reason if self.outputs else None


def check_num_samples(n: int, name: str = "num-samples") -> None:
    """Raises ConfigError if this many texts of a prompt cannot be generated."""
    if not 1 <= n <= MAX_SAMPLES:
        raise ConfigError(f"--{name} is out of range", got=n, remedy=f"Give 1 to {MAX_SAMPLES:,}.")


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Returns the token ids of a prompt, at least one: an empty prompt follows the end of another text."""
    return tokenizer.encode(prompt).tolist() or [tokenizer.end_of_text]


def stream_samples(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    params: SamplingParams = DEFAULTS,
    *,
    n: int = 1,
    logprobs: bool = True,
    top_logprobs: int = 0,
) -> tuple[list[Sample], Iterator[StepOutput]]:
    """Returns n samples of each prompt, still empty, and an iterator that fills them token by token.

    Args:
        model, tokenizer: as `minigpt.load` returns them.
        prompts: the texts to continue; an empty one begins a new document.
        params: how the texts are generated.
        n: how many texts for each prompt, with the seeds seed, seed + 1, ... Those of prompt p are the samples p * n to
            p * n + n - 1, and `request_id` is that number.
        logprobs: whether to compute how likely each token was.
        top_logprobs: how many of the most likely tokens to return for each step.

    Raises:
        ConfigError: if a setting cannot work.
        TokenizerError: if the tokenizer does not belong to the model.
    """
    params.check(tokenizer.vocab_size)
    check_num_samples(n)
    first = secrets.randbits(32) if params.seed is None else params.seed
    samples = [Sample(prompt, (first + number) % 2**63) for prompt in prompts for number in range(n)]
    if not samples or not params.max_new_tokens:
        return samples, iter(())
    ids = {prompt: prompt_ids(tokenizer, prompt) for prompt in prompts}
    longest = max(map(len, ids.values())) + params.max_new_tokens
    engine = Engine(model, tokenizer, max_batch_size=min(MAX_BATCH_SIZE, len(samples)), max_length=longest)
    for each in samples:
        engine.add(ids[each.prompt], replace(params, seed=each.seed), logprobs=logprobs, top_logprobs=top_logprobs)
    return samples, _fill(samples, engine)


def _fill(samples: Sequence[Sample], engine: Engine) -> Iterator[StepOutput]:
    while engine.has_unfinished:
        for output in engine.step():
            samples[output.request_id].outputs.append(output)
            yield output


def sample(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    params: SamplingParams = DEFAULTS,
    *,
    n: int = 1,
    logprobs: bool = True,
    top_logprobs: int = 0,
) -> list[Sample]:
    """Returns n samples of each prompt, with tokens and logprobs; arguments and errors as `stream_samples`."""
    samples, outputs = stream_samples(
        model, tokenizer, prompts, params, n=n, logprobs=logprobs, top_logprobs=top_logprobs
    )
    for _ in outputs:
        pass
    return samples


def stream(
    model: GPT, tokenizer: Tokenizer, prompt: str = "", params: SamplingParams = DEFAULTS, **settings: Any
) -> Iterator[str]:
    """Yields a prompt's continuation as it is generated, in whole characters; arguments and errors as `generate`."""
    _, outputs = stream_samples(model, tokenizer, [prompt], replace(params, **settings), logprobs=False)
    return (output.text for output in outputs if output.text)


@overload
def generate(
    model: GPT, tokenizer: Tokenizer, prompt: str = "", params: SamplingParams = DEFAULTS, **settings: Any
) -> str: ...
@overload
def generate(
    model: GPT, tokenizer: Tokenizer, prompt: Sequence[str], params: SamplingParams = DEFAULTS, **settings: Any
) -> list[str]: ...
def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | Sequence[str] = "",
    params: SamplingParams = DEFAULTS,
    **settings: Any,
) -> str | list[str]:
    """Returns the continuation of a prompt, or of several, without the prompt.

    Each text is what it would be alone: it depends on its prompt, the parameters and its seed only.

    Args:
        model, tokenizer: as `minigpt.load` returns them.
        prompt: the text to continue, or several; an empty one begins a new document.
        params: how the text is generated.
        settings: fields of `SamplingParams` by name, which replace those of `params`: `max_new_tokens=100`,
            `temperature=0.8`, `top_k=50`, `top_p=0.9`, `stop=["."]`, `seed=1`, ...

    Raises:
        ConfigError: if a setting cannot work.
        TokenizerError: if the tokenizer does not belong to the model.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    texts = [each.text for each in sample(model, tokenizer, prompts, replace(params, **settings), logprobs=False)]
    return texts[0] if isinstance(prompt, str) else texts
