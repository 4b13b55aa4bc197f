"""A text as a checkpoint reads it, with some heads off: the trace that all answers are computed from.

The traces of the last few texts stay in memory, so that several panels cost one forward pass.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt import explain
from minigpt.errors import ConfigError, DataError
from minigpt.explain import Trace
from minigpt.explorer.explored_run import ExploredRun
from minigpt.explorer.protocol import Head, HeadRequest, PositionRequest, Request, TextRequest
from minigpt.model import GPT

PATTERN_BYTES = 2**28
"""Of the scores and patterns of one text; it limits its length for a model with many heads."""
CACHE_BYTES = 2**29


@dataclass(frozen=True)
class Reading:
    """A text as a checkpoint reads it.

    Attributes:
        run, step, model: the checkpoint, and its model.
        ids: of the text, at most `max_tokens`.
        trace: of these ids, with the heads off that the request names.
        request: what was asked for.
        unread: the number of tokens that exceed `max_tokens`.
    """

    run: ExploredRun
    step: int
    model: GPT
    ids: Tensor
    trace: Trace
    request: TextRequest
    unread: int

    @property
    def log_probabilities(self) -> Tensor:
        """The log-probabilities of each next token, (time, vocab_size)."""
        return self.trace.logits.log_softmax(-1)

    def position(self, position: int) -> int:
        """Returns a position. Raises ConfigError if the text has none such."""
        if position >= len(self.ids):
            raise ConfigError("The text has fewer tokens", got=position, remedy=f"Its last is {len(self.ids) - 1}.")
        return position

    def target(self, request: PositionRequest) -> int:
        """Returns the token to explain: the one asked for, else the one that follows, else the best guess.

        Raises:
            ConfigError: if there is no such position or token.
        """
        position = self.position(request.position)
        if request.token is not None:
            return check_token(self.model, request.token)
        if position + 1 < len(self.ids):
            return int(self.ids[position + 1])
        return int(self.trace.logits[position].argmax())

    def code(self, *lines: str) -> str:
        """Returns Python code that makes this trace, followed by lines that use it."""
        path, length = str(self.run.path), len(self.ids)
        code = [
            "import minigpt, torch",
            "from minigpt import explain",
            "",
            f"model, tokenizer = minigpt.load({path!r}, {str(self.step)!r})",
            f'ids = torch.from_numpy(tokenizer.encode({self.request.text!r}).astype("int64"))[:{length}]',
        ]
        record = "trace = explain.record_trace(model, ids)"
        if not self.request.heads_off:
            return "\n".join([*code, record, *lines])
        replacement = "None"
        if self.request.replacement == "mean":
            code += ["from minigpt.explorer.explored_run import ExploredRun"]
            data = "" if self.run.data is None else f", {str(self.run.data.folder)!r}"
            replacement = f"ExploredRun({path!r}{data}).mean_outputs({self.step})"
        code += [f"with explain.heads_replaced(model, {list(self.request.heads_off)}, {replacement}):"]
        return "\n".join([*code, *(f"    {line}" for line in (record, *lines))])


class Reader:
    """Reads texts for a session, and remembers the last few.

    Args:
        runs: that the requests mean by their number.
    """

    def __init__(self, runs: Sequence[ExploredRun]) -> None:
        self._runs = runs
        self._traces: OrderedDict[tuple[object, ...], Trace] = OrderedDict()

    def run(self, request: Request) -> ExploredRun:
        """Returns the run that a request means. Raises ConfigError if there is none."""
        if request.run >= len(self._runs):
            raise ConfigError("There is no such run on this page", got=request.run, remedy="Load the page again.")
        return self._runs[request.run]

    def step(self, request: Request) -> int:
        """Returns the step of the checkpoint that a request means."""
        return self.run(request).best if request.step is None else request.step

    def model(self, request: Request) -> GPT:
        """Returns the model that a request means, with all heads on."""
        return self.run(request).model(self.step(request))

    def read(self, request: TextRequest, heads: tuple[Head, ...] | None = None) -> Reading:
        """Returns the text of a request as its checkpoint reads it.

        Args:
            request: the text, the checkpoint, and the heads that are off.
            heads: the heads to switch off instead.

        Raises:
            ConfigError: if the text is empty, or the model has no such head.
            CheckpointError: if there is no such checkpoint.
        """
        run, step, model = self.run(request), self.step(request), self.model(request)
        every = torch.from_numpy(run.encode(request.text))
        ids = every[: max_tokens(run)]
        if not len(ids):
            raise ConfigError("The text is empty", remedy="Type some words.")
        heads = request.heads_off if heads is None else heads
        key = (request.run, step, tuple(ids.tolist()), frozenset(heads), request.replacement if heads else "")
        if key not in self._traces:
            with self.heads_off(model, request, heads):
                self._traces[key] = explain.record_trace(model, ids)
            while len(self._traces) > 1 and sum(map(_bytes, self._traces.values())) > CACHE_BYTES:
                self._traces.popitem(last=False)
        self._traces.move_to_end(key)
        return Reading(run, step, model, ids, self._traces[key], request, len(every) - len(ids))

    @contextmanager
    def heads_off(self, model: GPT, request: TextRequest, heads: tuple[Head, ...]) -> Iterator[None]:
        """Switches heads off, as a request says, until the block ends.

        Raises:
            ConfigError: if the model has no such head.
            DataError: if they should be replaced by their mean, and there is no validation text.
        """
        for head in heads:
            check_head(model, *head)
        replacement = None
        if heads and request.replacement == "mean":
            run = self.run(request)
            replacement = run.mean_outputs(self.step(request))
            if replacement is None:
                raise DataError("The mean of a head needs validation text", remedy=run.missing_data)
        with explain.heads_replaced(model, heads, replacement):
            yield


def max_tokens(run: ExploredRun) -> int:
    """Returns the length of the longest text that is read: the model's context, or what memory allows."""
    config = run.config
    return min(config.block_size, math.isqrt(PATTERN_BYTES // (8 * config.n_layer * config.n_head)))


def head_of(reading: Reading, request: HeadRequest) -> Head:
    """Returns the head that a request means. Raises ConfigError if the model has none such."""
    return check_head(reading.model, request.layer, request.head)


def check_head(model: GPT, layer: int, head: int) -> Head:
    """Returns a head. Raises ConfigError if the model has none such."""
    if layer >= model.config.n_layer or head >= model.config.n_head:
        raise ConfigError("The model has no such head", got=f"{layer}.{head}", remedy="Load the page again.")
    return layer, head


def check_token(model: GPT, token: int) -> int:
    """Returns a token. Raises ConfigError if the vocabulary has none such."""
    if token >= model.config.vocab_size:
        raise ConfigError("The vocabulary has no such token", got=token, remedy="Choose one from the page.")
    return token


def _bytes(trace: Trace) -> int:
    return sum(tensor.nbytes for tensor in trace.tensors.values())
