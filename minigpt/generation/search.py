"""Searching for a likely text instead of drawing one: the best of several samples, and beam search.

Both judge a text by the probabilities that the model gives its tokens, including the one that ended it. Likely is not
good: the most likely texts of a language model are short, or repeat themselves (Holtzman et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from minigpt.errors import ConfigError
from minigpt.generation.cached_batch import CachedBatch
from minigpt.generation.detokenize import Detokenizer, first_stop
from minigpt.generation.engine import check_finite
from minigpt.generation.inference_weights import for_inference
from minigpt.generation.outputs import FinishReason, StepOutput
from minigpt.generation.samplers import NO_TOKEN, adjust_logits
from minigpt.generation.text import DEFAULTS, Sample, prompt_ids, sample
from minigpt.model import GPT
from minigpt.sampling_params import SamplingParams
from minigpt.tokenizers import Tokenizer

DRAW_SETTINGS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")
"""Settings that only matter where tokens are drawn."""

MAX_BEAMS = 1000
"""Each beam has its own keys and values in memory."""

MAX_LENGTH_PENALTY = 10.0
"""Beyond it, either way, the length alone decides, and scores soon overflow."""


@dataclass
class Beam(Sample):
    """A text that beam search has found.

    Attributes:
        score: the sum of the logprobs, as bias and penalties changed them, divided by the number of tokens to the power
            of the length penalty.
    """

    score: float = 0.0


def check_beams(num_beams: int, length_penalty: float, params: SamplingParams = DEFAULTS) -> None:
    """Raises ConfigError if beam search cannot work with these."""
    if not 1 <= num_beams <= MAX_BEAMS:
        raise ConfigError("--num-beams is out of range", got=num_beams, remedy=f"Give 1 to {MAX_BEAMS:,}.")
    if not abs(length_penalty) <= MAX_LENGTH_PENALTY:
        remedy = f"Give a number from -{MAX_LENGTH_PENALTY:g} to {MAX_LENGTH_PENALTY:g}, such as 1."
        raise ConfigError("--length-penalty is out of range", got=length_penalty, remedy=remedy)
    if unused := [name for name in DRAW_SETTINGS if getattr(params, name) != getattr(DEFAULTS, name)]:
        got = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise ConfigError("Beam search draws nothing", got=got, remedy="Remove these settings.")


def best_of(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    params: SamplingParams = DEFAULTS,
    *,
    n: int,
    top_logprobs: int = 0,
) -> list[Sample]:
    """Returns n samples of a prompt, that with the highest mean logprob per token first; otherwise as `sample`."""
    found = sample(model, tokenizer, [prompt], params, n=n, top_logprobs=top_logprobs)
    return sorted(found, key=lambda each: each.mean_logprob, reverse=True)


def beam_search(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    params: SamplingParams = DEFAULTS,
    *,
    num_beams: int = 4,
    length_penalty: float = 1.0,
) -> list[Beam]:
    """Returns the best texts that a search along `num_beams` paths at once finds, the best first.

    At each step every path is continued by every token, and the best continuations become the new paths; those that end
    are put aside. The search ends when no path can still beat the worst of `num_beams` texts put aside. The result is
    that of transformers' `generate(num_beams=..., early_stopping="never")`. If a bias or a penalty may raise a sum,
    which otherwise only falls, every path is followed to its end.

    Args:
        model, tokenizer, prompt: as in `generate`.
        params: `max_new_tokens`, `stop`, `stop_tokens`, and those samplers that look at single tokens and back: bias,
            penalties, bans, no repeated n-grams. As in transformers they change logprobs, not logits.
        num_beams: how many paths are followed, and the most texts that are returned.
        length_penalty: how much long texts are favoured. A text's score is the sum of its logprobs divided by its
            length to this power: 0 compares the sums, 1 the means, above 1 longer texts gain.

    Raises:
        ConfigError: if a setting cannot work, or only matters where tokens are drawn.
        MiniGPTError: if the model's logits are not numbers.
    """
    check_beams(num_beams, length_penalty, params)
    params.check(tokenizer.vocab_size)
    stop_tokens = (tokenizer.end_of_text,) if params.stop_tokens is None else params.stop_tokens

    def ending(tokens: Sequence[int]) -> _Ending:
        if tokens[-1] in stop_tokens:
            return "stop", tokens[-1]
        if params.stop and (stop := first_stop(tokenizer.decode(tokens), params.stop_strings)) is not None:
            return "stop", stop
        return ("length" if len(tokens) == params.max_new_tokens else None), None

    vocab_size = tokenizer.vocab_size
    n_candidates = num_beams * max(2, 1 + len(stop_tokens))  # so that enough paths go on when others end
    search = _BeamSearch(model, vocab_size, params, num_beams, length_penalty, n_candidates, ending)
    beams = []
    for path in search.run(prompt_ids(tokenizer, prompt)):
        detokenizer = Detokenizer(tokenizer, params.stop_strings)
        outputs = [output for each in path.outputs for output in detokenizer.add(each)]
        beams.append(Beam(prompt, outputs=outputs, score=path.score(length_penalty)))
    return beams


_Ending: TypeAlias = tuple[FinishReason | None, int | str | None]


@dataclass(frozen=True)
class _Path:
    """A text on its way.

    Attributes:
        parent: the path's number at the step before.
        total: the sum of what the samplers made of the logprobs.
        finished: whether it has ended.
    """

    parent: int
    outputs: tuple[StepOutput, ...] = ()
    total: float = 0.0
    finished: bool = False

    def score(self, length_penalty: float, length: int | None = None) -> float:
        """Returns the path's score, as if it had this length."""
        return self.total / max(1, length or len(self.outputs)) ** length_penalty


@dataclass
class _BeamSearch:
    model: GPT
    vocab_size: int
    params: SamplingParams
    num_beams: int
    length_penalty: float
    n_candidates: int
    ending: Callable[[Sequence[int]], _Ending]

    @torch.inference_mode()
    def run(self, prompt: Sequence[int]) -> list[_Path]:
        """Returns at most `num_beams` paths that ended, the best first."""
        most = self.params.max_new_tokens
        batch = CachedBatch(for_inference(self.model), self.num_beams, len(prompt) + most, self.vocab_size)
        batch.add(prompt)
        running, finished = [_Path(0)], list[_Path]()
        for length in range(1, most + 1):
            candidates = self._continuations(batch, running)
            finished += [path for path in candidates[: self.num_beams] if path.finished]
            finished = sorted(finished, key=lambda path: path.score(self.length_penalty), reverse=True)
            finished = finished[: self.num_beams]
            going = [path for path in candidates if not path.finished][: self.num_beams]
            if not going or self._cannot_improve(going[0], finished, length):
                break
            running = going
            batch.select([path.parent for path in running])
            batch.append([path.outputs[-1].token for path in running])
        if finished or not most:
            return finished or running
        nothing = StepOutput(0, NO_TOKEN, -math.inf, finish_reason="stop")
        return [replace(path, outputs=(*path.outputs, nothing), finished=True) for path in running]

    def _cannot_improve(self, best: _Path, finished: Sequence[_Path], length: int) -> bool:
        """Returns whether no running path can still beat those that ended."""
        bias = max((self.params.logit_bias or {}).values(), default=0.0)
        sums_may_rise = bias > 0 or self.params.presence_penalty < 0 or self.params.frequency_penalty < 0
        if sums_may_rise or len(finished) < self.num_beams:
            return False
        # The best score it may still reach: a negative sum divided by a larger number is closer to 0.
        longest = self.params.max_new_tokens if self.length_penalty > 0 else length
        return best.score(self.length_penalty, longest) <= finished[-1].score(self.length_penalty)

    def _continuations(self, batch: CachedBatch, running: Sequence[_Path]) -> list[_Path]:
        """Returns the best paths that are one token longer than the running ones, the best first."""
        logits = batch.next_logits()
        check_finite(logits)
        logprobs = logits.log_softmax(dim=-1)  # (paths, vocab_size)
        totals = adjust_logits(logprobs, batch.texts, self.params)
        totals = totals + logprobs.new_tensor([[path.total] for path in running])
        best = totals.flatten().topk(min(self.n_candidates, totals.numel()))
        parents, tokens = best.indices // totals.size(1), best.indices % totals.size(1)
        found = (parents.tolist(), tokens.tolist(), logprobs[parents, tokens].tolist(), best.values.tolist())
        paths = []
        for parent, token, logprob, total in zip(*found, strict=True):
            if total > -math.inf:  # otherwise it is banned
                earlier = running[parent].outputs
                finish_reason, stop_reason = self.ending([*(output.token for output in earlier), token])
                output = StepOutput(0, token, logprob)
                if not isinstance(stop_reason, str):  # a stop string is cut off by the detokenizer
                    output = replace(output, finish_reason=finish_reason, stop_reason=stop_reason)
                paths.append(_Path(parent, (*earlier, output), total, finished=finish_reason is not None))
        return paths
