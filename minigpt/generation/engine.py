"""Generation on token ids: prompts in, tokens out, step by step.

Each row (each prompt's text) is a function of its prompt, its seed and the settings alone: its random number of step n
comes from (seed, n), and neither the logits nor the choice look at other rows. So it says the same in any company, and
rows can wait, begin and end while others run. What the model sees is decided in decoder.py, which token is taken in
samplers.py.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.errors import MiniGPTError
from minigpt.generation.decoder import Decoder
from minigpt.generation.inference_weights import ready
from minigpt.generation.samplers import NONE_LEFT, History, Sampling
from minigpt.model import GPT
from minigpt.runtime import hash_seed

FinishReason: TypeAlias = Literal["stop token", "length", "none left"]

ENDS_WITHOUT_TEXT = ("stop token", "none left")
"""At these ends the last token is no part of the text."""

CANDIDATES = 5
"""How many of the most likely tokens are explained."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that might have come.

    Attributes:
        token: its id.
        probability: what the model gives it.
        left: its probability after the samplers: the choice was drawn from these.
    """

    token: int
    probability: float
    left: float


@dataclass(frozen=True, slots=True)
class Step:
    """One chosen token of one row.

    Attributes:
        row: the number of its prompt.
        token: its id.
        logprob: the logarithm of the probability that the model itself gives it, before any sampler; NaN if it was
            not asked for.
        end: why the row ends with this step; None if it goes on. At "stop token" the token is the one that stopped it,
            and no part of the text; at "none left" the samplers dropped every token, and it is `NONE_LEFT`.
        candidates: the most likely tokens, the first first, and behind them the chosen one if it is none of these, if
            they were asked for.
    """

    row: int
    token: int
    logprob: float
    end: FinishReason | None = None
    candidates: tuple[Candidate, ...] = ()


@dataclass(slots=True)
class _Row:
    number: int
    seed: int
    count: int = 0  # new tokens so far


@torch.inference_mode()
def stream_steps(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    seeds: Sequence[int],
    stop_tokens: Container[int] = (),
    *,
    logprobs: bool = True,
    explain: bool = False,
    closed: Container[int] = (),
    rows_at_once: int = 32,
) -> Iterator[list[Step]]:
    """Yields for each step of decoding the chosen token of every row that runs, in the order of the rows.

    Args:
        model: the model, as it is or from `with_weights`; plain ones are taken in float32, packed for each call.
        prompts: token ids, at least one in each; of more than block_size, the last ones count.
        max_new_tokens: how many each row gets at the most.
        sampling: how they are chosen.
        seeds: one for each prompt. The same seed gives the same tokens, in any company.
        stop_tokens: token ids that end a row.
        logprobs: whether to tell how likely each token was; it takes a twentieth of a small model's time.
        explain: whether to name the most likely tokens of each step.
        closed: numbers of rows of which the caller wants no more; looked at after each step, so that it may grow.
        rows_at_once: how many rows run side by side; the others wait until one ends.

    Raises:
        MiniGPTError: if the model's logits are not numbers.
    """
    assert len(prompts) == len(seeds), "one seed for each prompt"
    if max_new_tokens < 1 or not prompts:
        return
    decoder = Decoder(ready(model), min(rows_at_once, len(prompts)), max(map(len, prompts)) + max_new_tokens)
    waiting = deque(_Row(number, seed) for number, seed in enumerate(seeds) if number not in closed)
    rows: list[_Row] = []  # of the decoder's texts
    while waiting or rows:
        while waiting and len(rows) < rows_at_once:
            rows.append(waiting.popleft())
            decoder.add(prompts[rows[-1].number])
        logits = decoder.next_logits()  # (rows, vocab_size)
        logits = logits.cpu() if logits.device.type == "mps" else logits  # float64, which samplers need, is not there
        picked = sampling.pick(logits, decoder.texts, _uniforms(rows, logits.device))  # (rows)
        tokens = picked.tolist()
        _check_finite(logits)
        likely = _logprobs(logits, picked) if logprobs else [math.nan] * len(rows)
        candidates = _candidates(logits, picked, decoder.texts, sampling) if explain else [()] * len(rows)
        steps = []
        for row, token, logprob, top in zip(rows, tokens, likely, candidates, strict=True):
            row.count += 1
            steps.append(Step(row.number, token, logprob, _end(token, row, max_new_tokens, stop_tokens), top))
        yield sorted(steps, key=lambda step: step.row)
        waiting = deque(row for row in waiting if row.number not in closed)
        going = [at for at, step in enumerate(steps) if step.end is None and step.row not in closed]
        if len(going) < len(rows):
            going = _filled_up(going)
            rows = [rows[at] for at in going]
            decoder.select(going)
        decoder.append([tokens[at] for at in going])


def _uniforms(rows: Sequence[_Row], device: torch.device) -> Tensor:
    return torch.tensor([uniform(row.seed, row.count) for row in rows], dtype=torch.float64, device=device)


def _check_finite(logits: Tensor) -> None:
    if not math.isfinite(logits.sum().item()):  # a sum is quick, and no number in it goes unnoticed
        raise MiniGPTError(
            "The model's probabilities are not numbers",
            remedy="Try another --checkpoint; if the weights were rounded, also --weights float32.",
        )


def _end(token: int, row: _Row, max_new_tokens: int, stop_tokens: Container[int]) -> FinishReason | None:
    if token == NONE_LEFT:
        return "none left"
    if token in stop_tokens:
        return "stop token"
    return "length" if row.count == max_new_tokens else None


def _logprobs(logits: Tensor, picked: Tensor) -> list[float]:
    found = -F.cross_entropy(logits, picked.clamp(min=0), reduction="none")
    return found.masked_fill(picked == NONE_LEFT, -math.inf).tolist()


def _candidates(logits: Tensor, picked: Tensor, history: History, sampling: Sampling) -> list[tuple[Candidate, ...]]:
    shares = logits.softmax(dim=-1)
    likely = shares.topk(min(CANDIDATES, logits.size(1))).indices
    shown = torch.cat([likely, picked.clamp(min=0)[:, None]], dim=1)  # (rows, CANDIDATES + 1)
    left = sampling.filtered(logits, history).softmax(dim=-1).nan_to_num().gather(1, shown)  # NaN: none left
    columns = (part.tolist() for part in (shown, shares.gather(1, shown), left))
    found = [tuple(map(Candidate, *row)) for row in zip(*columns, strict=True)]
    among = ((likely == picked[:, None]).any(dim=1) | (picked == NONE_LEFT)).tolist()
    return [row[:-1] if known else row for row, known in zip(found, among, strict=True)]


def _filled_up(going: Sequence[int]) -> list[int]:
    """Returns the places that go on, ordered so that few of them move: gaps are filled from the end."""
    kept = set(going)
    last = [at for at in going if at >= len(going)]
    return [at if at in kept else last.pop() for at in range(len(going))]


def uniform(seed: int, step: int) -> float:
    """Returns a number from 0 up to, not including, 1 that looks random for each (seed, step)."""
    return (hash_seed(seed, step) >> 10) / 2**53  # as many bits as a float64 holds
