"""Looking for a likely text instead of drawing just one: the best of several samples, and beam search.

Both judge a text by the probabilities that the model gives its tokens, the one that ended it among them. Likely is not
good: the likeliest texts of a language model are short, or repeat themselves (Holtzman et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import torch

from minigpt.errors import ConfigError, MiniGPTError
from minigpt.generation.decoder import Decoder
from minigpt.generation.detokenize import Detokenizer, TextFinishReason, TextPiece, first_stop, step_bytes
from minigpt.generation.engine import Step
from minigpt.generation.inference_weights import ready
from minigpt.generation.samplers import NONE_LEFT, Sampling
from minigpt.generation.text import Sample, SamplingParams, SamplingRequest, prompt_ids, sample
from minigpt.model import GPT
from minigpt.tokenizers import Tokenizer

DRAWN = {"temperature", "top_k", "top_p", "min_p", "typical_p", "seed"}
"""Settings that only matter where tokens are drawn."""

MOST_BEAMS = 1000
"""So many paths can be followed at once: each has its own keys and values in memory."""

STEEPEST = 10.0
"""The largest length penalty, either way: beyond it the length alone decides, and soon fits into no float."""


@dataclass
class Beam(Sample):
    """A text that beam search has found.

    Attributes:
        score: the sum of the logprobs as bias and penalties changed them, divided by the number of tokens to the power
            of the length penalty.
    """

    score: float = 0.0


def check_beams(beams: int, length_penalty: float) -> None:
    """Raises ConfigError if beam search cannot work with these."""
    if not 1 <= beams <= MOST_BEAMS:
        raise ConfigError("The number of beams is out of range", got=beams, remedy=f"Give 1 to {MOST_BEAMS:,}.")
    if not abs(length_penalty) <= STEEPEST:
        raise ConfigError(
            "The length penalty is out of range",
            got=length_penalty,
            remedy=f"Give 1, for instance; from -{STEEPEST:g} to {STEEPEST:g}.",
        )


def best_of(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    n: int,
    explain: bool = False,
    **settings: Unpack[SamplingParams],
) -> list[Sample]:
    """Returns n samples of a prompt, the one with the highest mean logprob a token first. Else as `sample`."""
    found = sample(model, tokenizer, [prompt], n=n, explain=explain, **settings)
    return sorted(found, key=lambda each: each.mean_logprob, reverse=True)


def beam_search(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    beams: int = 4,
    length_penalty: float = 1.0,
    **settings: Unpack[SamplingParams],
) -> list[Beam]:
    """Returns the best texts that a search along `beams` paths at once finds, the best first.

    At each step every path is continued by every token, and the best continuations are the new paths; those that end
    are put aside. The search ends when no path can still beat the worst of `beams` texts put aside. The result is that
    of transformers' `generate(num_beams=..., early_stopping="never")`. Where a bias or a penalty may add to a sum,
    which else only falls, every path is followed to its end.

    Args:
        model, tokenizer, prompt: as in `generate`.
        beams: how many paths are followed, and the most texts that are returned.
        length_penalty: how much long texts are favoured. A text's score is the sum of its logprobs divided by its
            length to this power: 0 compares the sums, 1 the means, above 1 longer texts gain.
        settings: `max_new_tokens`, `stop`, `stop_tokens`, and those fields of `Sampling` that look at single tokens and
            back: bias, penalties, bans, no repeated n-grams. As in transformers they change logprobs, not logits.

    Raises:
        ConfigError: if a setting cannot work, or asks for something to be drawn.
        MiniGPTError: if the model's probabilities are not numbers.
    """
    if drawn := DRAWN & settings.keys():
        seen = ", ".join(sorted(drawn)).replace("_", "-")
        raise ConfigError("Beam search draws nothing", got=seen, remedy="Leave these settings out.")
    check_beams(beams, length_penalty)
    request = SamplingRequest.read(model, tokenizer, settings)

    def end_of(tokens: Sequence[int]) -> TextFinishReason | None:
        if tokens[-1] in request.stop_tokens:
            return "stop token"
        if request.stop and first_stop(tokenizer.decode(tokens), request.stop) is not None:
            return "stop string"
        return "length" if len(tokens) == request.max_new_tokens else None

    ids, branching = prompt_ids(tokenizer, prompt), max(2, 1 + len(request.stop_tokens))
    paths = _search(model, ids, beams, branching, request.max_new_tokens, length_penalty, request.sampling, end_of)
    return [
        Beam(prompt, pieces=_pieces(tokenizer, path, request.stop), score=path.score(length_penalty)) for path in paths
    ]


@dataclass(frozen=True)
class _Path:
    """A text on its way.

    Attributes:
        parent: the path's number at the step before.
        total: the sum of what the samplers made of the logprobs.
    """

    parent: int
    steps: tuple[Step, ...] = ()
    total: float = 0.0
    end: TextFinishReason | None = None

    def score(self, length_penalty: float, length: int | None = None) -> float:
        """Returns the path's score, as if it had this length."""
        return self.total / max(1, length or len(self.steps)) ** length_penalty


@torch.inference_mode()
def _search(
    model: GPT,
    prompt: Sequence[int],
    beams: int,
    branching: int,
    max_new_tokens: int,
    length_penalty: float,
    sampling: Sampling,
    end_of: Callable[[Sequence[int]], TextFinishReason | None],
) -> list[_Path]:
    """Returns at most `beams` paths that ended, the best first.

    Args:
        branching: how many continuations for each beam are looked at, so that enough go on when others end.
        end_of: why a path of these tokens ends; None if it goes on.
    """
    decoder = Decoder(ready(model), beams, len(prompt) + max_new_tokens)
    decoder.add(prompt)
    running, ended, falling = [_Path(0)], list[_Path](), _only_falls(sampling)
    for length in range(1, max_new_tokens + 1):
        candidates = _continuations(decoder, running, beams * branching, sampling, end_of)
        finished = [path for path in candidates[:beams] if path.end]
        ended = sorted(ended + finished, key=lambda path: path.score(length_penalty), reverse=True)[:beams]
        going = [path for path in candidates if not path.end][:beams]
        # The best score a path may still reach: dividing a negative sum by a larger number brings it nearer to 0.
        longest = max_new_tokens if length_penalty > 0 else length
        if not going:
            break
        full = falling and len(ended) == beams
        if full and going[0].score(length_penalty, longest) <= ended[-1].score(length_penalty):
            break
        running = going
        decoder.select([path.parent for path in running])
        decoder.append([path.steps[-1].token for path in running])
    if ended or not max_new_tokens:
        return ended or running
    nothing = Step(0, NONE_LEFT, -math.inf, "none left")
    return [replace(path, steps=(*path.steps, nothing), end="none left") for path in running]


def _only_falls(sampling: Sampling) -> bool:
    """Returns whether no token can add to a path's sum: logprobs are negative, and none is lifted above 0."""
    lifts = max((sampling.logit_bias or {}).values(), default=0.0)
    return lifts <= 0 and sampling.presence_penalty >= 0 and sampling.frequency_penalty >= 0


def _continuations(
    decoder: Decoder,
    running: Sequence[_Path],
    count: int,
    sampling: Sampling,
    end_of: Callable[[Sequence[int]], TextFinishReason | None],
) -> list[_Path]:
    """Returns the best `count` paths that are one token longer than the running ones, the best first."""
    logprobs = decoder.next_logits().log_softmax(dim=-1)  # (paths, vocab_size)
    totals = sampling.adjusted(logprobs, decoder.texts) + logprobs.new_tensor([[path.total] for path in running])
    best = totals.flatten().topk(min(count, totals.numel()))
    if best.values.isnan().any():
        raise MiniGPTError(
            "The model's probabilities are not numbers",
            remedy="Try another --checkpoint; if the weights were rounded, also --weights float32.",
        )
    parents, tokens = best.indices // totals.size(1), best.indices % totals.size(1)
    found = (parents.tolist(), tokens.tolist(), logprobs[parents, tokens].tolist(), best.values.tolist())
    paths = []
    for parent, token, logprob, total in zip(*found, strict=True):
        if total > -math.inf:  # else it is banned
            steps = running[parent].steps
            end = end_of([*(step.token for step in steps), token])
            step = Step(0, token, logprob, None if end == "stop string" else end)
            paths.append(_Path(parent, (*steps, step), total, end))
    return paths


def _pieces(tokenizer: Tokenizer, path: _Path, stop: Sequence[str]) -> list[TextPiece]:
    """Returns what the tokens of a path add to its text."""
    row, pieces = Detokenizer(stop), list[TextPiece]()
    for step in path.steps:
        pieces += row.add(step, step_bytes(tokenizer, step))
    return pieces
