"""The generation engine: requests in, tokens out, one step at a time.

Requests may be added and cancelled while others run; up to `max_batch_size` of them go through the model together, the
others wait. Each text depends on its prompt, its parameters and its seed alone: the random number of its n-th token
comes from (seed, n), and neither the logits nor the samplers look at other requests.

What the model sees is decided in cached_batch.py, which token is chosen in samplers.py, when its text can be shown in
detokenize.py.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, count

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import vocabulary_fits
from minigpt.errors import MiniGPTError, TokenizerError
from minigpt.generation.cached_batch import CachedBatch
from minigpt.generation.detokenize import Detokenizer
from minigpt.generation.inference_weights import for_inference
from minigpt.generation.outputs import Candidate, FinishReason, StepOutput
from minigpt.generation.samplers import NO_TOKEN, filter_logits, sample_tokens
from minigpt.model import GPT
from minigpt.runtime import hash_seed
from minigpt.sampling_params import SamplingParams
from minigpt.tokenizers import Tokenizer

MAX_BATCH_SIZE = 32
"""How many texts are decoded together unless the caller chooses another number."""


@dataclass(slots=True)
class _Request:
    id: int
    prompt: Sequence[int]
    params: SamplingParams
    filters: tuple[object, ...]  # the same object for all requests with equal samplers
    seed: int
    stop_tokens: Collection[int]
    logprobs: bool
    top_logprobs: int
    detokenizer: Detokenizer | None = None
    n_tokens: int = 0  # new ones so far

    def ending(self, token: int) -> tuple[FinishReason | None, int | None]:
        """Returns the finish reason and the stop reason, if this token ends the text."""
        if token == NO_TOKEN:
            return "stop", None
        if token in self.stop_tokens:
            return "stop", token
        return ("length" if self.n_tokens == self.params.max_new_tokens else None), None


class Engine:
    """Generates several texts at once; requests come and go between steps.

    Args:
        model: the model, as it is or from `for_inference`; a plain one is taken in float32.
        tokenizer: gives the outputs their text; without one they have none, and stop strings cannot be used.
            Ids that the model has beyond the tokenizer's are never chosen.
        max_batch_size: how many requests run at a time; the others wait for their turn.
        max_length: how many tokens a request may have at most, prompt included; None for any number. A bound below the
            model's context saves memory.

    Raises:
        TokenizerError: if the tokenizer does not belong to the model.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer | None = None,
        *,
        max_batch_size: int = MAX_BATCH_SIZE,
        max_length: int | None = None,
    ) -> None:
        self.vocab_size = model.config.vocab_size if tokenizer is None else tokenizer.vocab_size
        if not vocabulary_fits(model.config.vocab_size, self.vocab_size):
            raise TokenizerError(
                "The tokenizer does not belong to the model",
                got=f"{self.vocab_size} tokens, the model has {model.config.vocab_size}",
                remedy="Load both from the same run.",
            )
        self.tokenizer, self.max_batch_size, self.max_length = tokenizer, max_batch_size, max_length
        self._batch = CachedBatch(for_inference(model), max_batch_size, max_length, self.vocab_size)
        self._active: list[_Request] = []  # one for each row of the batch
        self._waiting: deque[_Request] = deque()
        self._ids = count()

    def add(
        self, prompt: Sequence[int], params: SamplingParams, *, logprobs: bool = False, top_logprobs: int = 0
    ) -> int:
        """Adds a request, which begins with the next step that has room for it.

        Args:
            prompt: token ids, at least one; of more than block_size, the model sees the last ones.
            params: how the text is generated; at least one new token.
            logprobs: whether to compute how likely each token was; takes a twentieth of a small model's time.
            top_logprobs: how many of the most likely tokens to return for each step.

        Returns:
            The request's id: 0 for the engine's first request, then 1, 2, ...

        Raises:
            ConfigError: if a setting cannot work.
        """
        params.check(self.vocab_size)
        assert prompt, "a prompt has at least one token"
        assert params.max_new_tokens > 0, "a request asks for at least one token"
        assert len(prompt) + params.max_new_tokens <= (self.max_length or math.inf), "the request is too long"
        assert self.tokenizer or not params.stop_strings, "stop strings need a tokenizer"
        end_of_text = (self.tokenizer.end_of_text,) if self.tokenizer else ()
        stop_tokens = frozenset(end_of_text if params.stop_tokens is None else params.stop_tokens)
        own = params.filters
        filters = next((each.filters for each in chain(self._active, self._waiting) if each.filters == own), own)
        seed = secrets.randbits(32) if params.seed is None else params.seed
        request = _Request(next(self._ids), prompt, params, filters, seed, stop_tokens, logprobs, top_logprobs)
        if self.tokenizer:
            request.detokenizer = Detokenizer(self.tokenizer, params.stop_strings)
        self._waiting.append(request)
        return request.id

    def cancel(self, request_id: int) -> None:
        """Ends a request: it gets no more tokens. Nothing happens if it has ended already."""
        self._waiting = deque(request for request in self._waiting if request.id != request_id)
        self._remove({row for row, request in enumerate(self._active) if request.id == request_id})

    @property
    def has_unfinished(self) -> bool:
        """Whether any request is running or waiting."""
        return bool(self._active or self._waiting)

    @torch.inference_mode()
    def step(self) -> list[StepOutput]:
        """Chooses one token for each active request; returns them in the order of the requests' ids.

        Tokens whose text may be the beginning of a stop string are held back, and returned once that is certain.

        Raises:
            MiniGPTError: if the model's logits are not numbers.
        """
        while self._waiting and len(self._active) < self.max_batch_size:
            self._active.append(self._waiting.popleft())
            self._batch.add(self._active[-1].prompt)
        if not self._active:
            return []
        logits = self._batch.next_logits()  # (rows, vocab_size)
        logits = logits.cpu() if logits.device.type == "mps" else logits  # MPS has no float64, which samplers need
        chosen = self._sample(logits)  # (rows)
        tokens = chosen.tolist()
        check_finite(logits)
        logprobs = self._logprobs(logits, chosen)
        candidates = [self._candidates(row, logits, token) for row, token in enumerate(tokens)]
        self._batch.append(tokens)
        outputs, finished = [], set()
        for row, request in enumerate(self._active):
            request.n_tokens += 1
            finish_reason, stop_reason = request.ending(tokens[row])
            output = StepOutput(request.id, tokens[row], logprobs[row], "", finish_reason, stop_reason, candidates[row])
            released = request.detokenizer.add(output) if request.detokenizer else [output]
            if released and released[-1].finish_reason:
                finished.add(row)
            outputs += released
        self._remove(finished)
        return sorted(outputs, key=lambda output: output.request_id)

    def _sample(self, logits: Tensor) -> Tensor:
        """Returns the chosen token of each row; rows with the same samplers are handled together."""
        numbers = [uniform(request.seed, request.n_tokens) for request in self._active]
        uniforms = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
        groups: dict[int, list[int]] = {}
        for row, request in enumerate(self._active):
            groups.setdefault(id(request.filters), []).append(row)
        if len(groups) == 1:
            return sample_tokens(logits, self._batch.texts, self._active[0].params, uniforms)
        chosen = torch.empty(len(numbers), dtype=torch.long, device=logits.device)
        for rows in groups.values():
            history = [self._batch.texts[row] for row in rows]
            chosen[rows] = sample_tokens(logits[rows], history, self._active[rows[0]].params, uniforms[rows])
        return chosen

    def _logprobs(self, logits: Tensor, chosen: Tensor) -> list[float]:
        if not any(request.logprobs for request in self._active):
            return [math.nan] * len(self._active)
        found = -F.cross_entropy(logits, chosen.clamp(min=0), reduction="none")
        return found.masked_fill(chosen == NO_TOKEN, -math.inf).tolist()

    def _candidates(self, row: int, logits: Tensor, token: int) -> tuple[Candidate, ...]:
        request = self._active[row]
        if not request.top_logprobs:
            return ()
        logits = logits[row]
        ids = logits.topk(min(request.top_logprobs, len(logits))).indices.tolist()
        ids += [] if token in (*ids, NO_TOKEN) else [token]
        filtered = filter_logits(logits[None], [self._batch.texts[row]], request.params)[0]
        probabilities = filtered.softmax(dim=-1).nan_to_num()[ids].tolist()  # NaN: no token is left
        return tuple(map(Candidate, ids, logits.log_softmax(dim=-1)[ids].tolist(), probabilities))

    @torch.inference_mode()
    def _remove(self, rows: Collection[int]) -> None:
        """Drops some active requests, and moves as few others as possible: gaps are filled from the end."""
        if not rows:
            return
        size = len(self._active) - len(rows)
        last = [row for row in range(size, len(self._active)) if row not in rows]
        order = [last.pop() if row in rows else row for row in range(size)]
        self._active = [self._active[row] for row in order]
        self._batch.select(order)


def check_finite(logits: Tensor) -> None:
    """Raises MiniGPTError if a logit is not a number."""
    if not math.isfinite(logits.sum().item()):  # a sum is quick, and NaN or infinity anywhere shows in it
        raise MiniGPTError(
            "The model's logits are not finite numbers",
            remedy="Try another --checkpoint, and --dtype float32 if the weights were rounded.",
        )


def uniform(seed: int, step: int) -> float:
    """Returns a pseudo-random number from 0 up to, not including, 1 for each (seed, step)."""
    return (hash_seed(seed, step) >> 10) / 2**53  # as many bits as a float64 holds
