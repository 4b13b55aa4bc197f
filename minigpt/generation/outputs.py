"""What the engine says of each token: plain data, for people and programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length"]
"""Why a text ended, as in OpenAI's API: at a stop token or string, or after `max_new_tokens`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the most likely tokens of a step.

    Attributes:
        token: its id.
        logprob: the logarithm of the probability that the model gives it.
        sampling_probability: its probability after the samplers, with which it was drawn.
    """

    token: int
    logprob: float
    sampling_probability: float


@dataclass(frozen=True, slots=True)
class StepOutput:
    """One token of one text.

    Attributes:
        request_id: which text, as `Engine.add` returned it.
        token: the token's id; `NO_TOKEN` if the samplers dropped all of them, which ends the text.
        logprob: the logarithm of the probability that the model gives it, before any sampler; NaN if not requested.
        text: what it adds to the text, as far as that can be shown: nothing for a stop token or string, nor for the
            first bytes of a character.
        finish_reason: why the text ends here; None if it goes on.
        stop_reason: for "stop", the id of the stop token or the stop string; None if no token was left to choose.
        top_logprobs: the most likely tokens, in order, then the chosen one unless it is among them; if requested.
    """

    request_id: int
    token: int
    logprob: float = math.nan
    text: str = ""
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    top_logprobs: tuple[Candidate, ...] = ()
