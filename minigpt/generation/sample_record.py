"""One text of a run's history: a prompt continued by the model of one step, with all that is needed to get it again.

A text is a function of the model, the prompt, the temperature, the seed and the most tokens to add. Nothing here uses
the global random state or changes the model.

Not here: where texts are kept (sample_log.py), how tokens are chosen (text.py, engine.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, get_args

from minigpt.files import parse_json
from minigpt.generation.inference_weights import ready
from minigpt.generation.text import Sample, SamplingParams, prompt_ids, stream_pieces
from minigpt.model import GPT
from minigpt.tokenizers import Tokenizer

TEMPERATURES = (0.0, 0.7, 1.0)
"""The most likely tokens, what people like to read, and the model's own distribution (no top-k, no top-p)."""

SEED = 1
"""Of every kept text, so that two epochs differ by what was learned in between."""

NEW_TOKENS, NEW_CHARACTERS = 64, 256
"""So many tokens are added; the larger number where no token is more than a character."""

Source: TypeAlias = Literal["fixed", "own"]


@dataclass(frozen=True)
class SampleRecord:
    """One kept text.

    Attributes:
        step: optimizer steps behind the model that wrote it.
        epoch: the same in epochs; None where nobody knows.
        source: `fixed` for the data set's own passages (`fixed_prompts`), `own` for what a person asked for.
        prompt, prompt_ids: what it continues.
        temperature, seed: how its tokens were chosen; nothing else was set.
        text, ids: the continuation, without the prompt; its tokens, without the one that ended it.
        ended: whether the model ended the text by itself.
    """

    step: int
    epoch: float | None
    source: Source
    prompt: str
    prompt_ids: tuple[int, ...]
    temperature: float
    seed: int
    text: str
    ids: tuple[int, ...]
    ended: bool

    @classmethod
    def from_json(cls, line: bytes | str) -> SampleRecord:
        """Returns what a line of the file tells.

        Raises:
            ValueError: if it is none.
        """
        try:
            fields = parse_json(line)
            kept = cls(**{**fields, **{name: tuple(fields[name]) for name in ("prompt_ids", "ids")}})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no kept text: {error}") from None
        right = (
            all(type(number) is int for number in (kept.step, kept.seed, *kept.prompt_ids, *kept.ids))
            and all(type(text) is str for text in (kept.prompt, kept.text))
            and all(type(number) in (int, float) for number in (kept.temperature, kept.epoch or 0))
            and math.isfinite(kept.temperature)
            and math.isfinite(kept.epoch or 0)
            and kept.source in get_args(Source)
            and type(kept.ended) is bool
        )
        if not right:
            raise ValueError("no kept text: a field is of the wrong type")
        return kept

    def to_json(self) -> str:
        """Returns its line of the file."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    def is_of(self, prompt: str, temperature: float, tokens: int, seed: int = SEED) -> bool:
        """Whether this is what these settings give, `tokens` being the most to add."""
        length_fits = len(self.ids) == tokens or (self.ended and len(self.ids) < tokens)
        return length_fits and (self.prompt, self.temperature, self.seed) == (prompt, temperature, seed)


def usual_tokens(tokenizer: Tokenizer) -> int:
    """Returns how many tokens a kept text has at most: a few lines, in any vocabulary."""
    longest = max(map(len, tokenizer.vocabulary), default=0)
    return NEW_CHARACTERS if longest <= 4 else NEW_TOKENS  # four bytes: one character


def continue_prompts(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    step: int,
    epoch: float | None,
    source: Source,
    temperatures: Sequence[float] = TEMPERATURES,
    tokens: int | None = None,
    seed: int = SEED,
    on_token: Callable[[], None] = lambda: None,
) -> list[SampleRecord]:
    """Returns what a model says now: for each temperature, each prompt's continuation. Nothing is written.

    `minigpt generate RUN --top-k none` with the same prompt, temperature and seed gives the same.

    Args:
        model, tokenizer: as `minigpt.load` returns them; a model in training is left as it is, in its mode.
        prompts: the texts to continue; an empty one begins a new document.
        step, epoch, source: what to note of it, see `SampleRecord`.
        temperatures: 0 takes the most likely token.
        tokens: the most to add; `usual_tokens` when left out.
        seed: of each text.
        on_token: is called as each token is chosen.

    Raises:
        ConfigError: if a setting cannot work.
        MiniGPTError: if the model's logits are not numbers.
    """
    limit = usual_tokens(tokenizer) if tokens is None else tokens
    quick, kept = ready(model), []
    for temperature in temperatures:
        settings: SamplingParams = {"temperature": temperature, "top_k": None, "max_new_tokens": limit, "seed": seed}
        samples = [Sample(prompt) for prompt in prompts]
        for piece in stream_pieces(quick, tokenizer, prompts, logprobs=False, **settings):
            samples[piece.step.row].pieces.append(piece)
            on_token()
        for each in samples:
            ended = each.end == "stop token"
            ids = tuple(each.tokens[:-1] if ended else each.tokens)
            known = (each.prompt, tuple(prompt_ids(tokenizer, each.prompt)), float(temperature), seed)
            kept.append(SampleRecord(step, epoch, source, *known, each.text, ids, ended))
    return kept
