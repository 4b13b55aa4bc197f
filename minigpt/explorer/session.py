"""Answers to all that the page asks, as plain values; no server is needed.

    session = Session([ExploredRun("runs/first")])
    session.next(PositionRequest(text="Return the", position=1)).guesses[0].piece

Each number comes from `minigpt.explain`. Long answers call `check` between their parts: it raises an exception when
nobody waits for them any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt import explain
from minigpt.errors import ConfigError, DataError
from minigpt.explain import Trace
from minigpt.explorer.explored_run import ExploredRun
from minigpt.explorer.protocol import (
    BigramAnswer,
    CellAnswer,
    CellRequest,
    EffectsAnswer,
    Example,
    Guess,
    HeadRequest,
    HeadScores,
    LayersAnswer,
    LensRow,
    MomentAnswer,
    Neighbour,
    NextAnswer,
    Passage,
    PassagesAnswer,
    PositionRequest,
    Request,
    RunDescription,
    TextAnswer,
    TextRequest,
    TokenLoss,
    TokenRequest,
)
from minigpt.explorer.reading import Reader, Reading, check_token, head_of, max_tokens
from minigpt.explorer.training_matches import followers, longest_match
from minigpt.text_utils import escape_control

THUMBNAIL = 32
GUESSES = NEIGHBOURS = 10
PASSAGES, PASSAGE_TOKENS = 3, 24

Check = Callable[[], None]


def _go_on() -> None:
    """The check of a caller who waits for the answer in any case."""


class Session:
    """One or two runs, opened for exploring.

    Args:
        runs: they; the tokens of two can be compared.

    Raises:
        ConfigError: if their tokenizers differ.
    """

    def __init__(self, runs: Sequence[ExploredRun]) -> None:
        for other in runs[1:]:
            runs[0].check_comparable(other)
        self.runs = runs
        self._reader = Reader(runs)
        self._induction: dict[tuple[int, int], Tensor] = {}

    def describe(self, request: Request, check: Check = _go_on) -> list[RunDescription]:
        """Returns the runs, in the order of the command line."""
        return [_describe(run) for run in self.runs]

    def text(self, request: TextRequest, check: Check = _go_on) -> TextAnswer:
        """Returns the tokens of a text with their losses."""
        run, step = self._reader.run(request), self._reader.step(request)
        if not len(run.encode(request.text)):
            return TextAnswer(step, [], 0, None)
        reading = self._reader.read(request)
        ids, log_p = reading.ids, reading.log_probabilities
        losses = explain.token_losses(reading.trace).tolist()
        ranks = [None, *_ranks(log_p[:-1], ids[1:])]
        tokens = [
            TokenLoss(token, run.piece(token), loss, None if loss is None else math.exp(-loss), rank)
            for token, loss, rank in zip(ids.tolist(), [None, *losses], ranks, strict=True)
        ]
        return TextAnswer(step, tokens, reading.unread, sum(losses) / len(losses) if losses else None)

    def next(self, request: PositionRequest, check: Check = _go_on) -> NextAnswer:
        """Returns what the model expects after a position."""
        reading = self._reader.read(request)
        place = reading.position(request.position)
        log_p = reading.log_probabilities[place]
        intact = self._reader.read(request, heads=()).log_probabilities[place] if request.heads_off else log_p

        def guess(token: int) -> Guess:
            rank = _ranks(log_p[None], torch.tensor([token]))[0]
            return Guess(token, reading.run.piece(token), *_exp(log_p[token]), rank, *_exp(intact[token]))

        actual = guess(int(reading.ids[place + 1])) if place + 1 < len(reading.ids) else None
        typed = [reading.run.encode(word) for word in (request.word, f" {request.word}") if request.word.strip()]
        firsts = [int(ids[0]) for ids in typed if len(ids)]
        word = guess(max(firsts, key=lambda token: float(log_p[token]))) if firsts else None
        top = log_p.topk(min(GUESSES, len(log_p))).indices.tolist()
        entropy = float(-(log_p.exp() * log_p.clamp(min=-1e9)).sum())
        code = reading.code(f"trace.logits[{place}].softmax(-1).topk({len(top)})")
        return NextAnswer([guess(token) for token in top], actual, word, entropy, code)

    def bigram(self, request: PositionRequest, check: Check = _go_on) -> BigramAnswer:
        """Returns what counting pairs in the training text says of a text.

        Raises:
            DataError: without the training text.
        """
        reading = self._reader.read(request)
        place, run = reading.position(request.position), reading.run
        found = run.bigram(reading.ids.numpy(), place)
        if found is None:
            raise DataError("There are no bigram counts", remedy=run.missing_counts)
        counts, losses, row = found
        order = np.argsort(row, kind="stable")[:GUESSES].tolist()
        chances = [float(np.exp(-row[token])) for token in order]
        guesses = [
            Guess(token, run.piece(token), chance, rank, chance)
            for rank, (token, chance) in enumerate(zip(order, chances, strict=True), start=1)
        ]
        return BigramAnswer(counts.tolist(), losses.tolist(), guesses)

    def heads(self, request: PositionRequest, check: Check = _go_on) -> list[HeadScores]:
        """Returns what each head does, and where it looks from a position."""
        reading = self._reader.read(request)
        place = reading.position(request.position)
        scores = explain.head_scores(reading.model, reading.trace)
        check()
        induction = self._induction_scores(reading)
        weights, sources = explain.attention_patterns(reading.model, reading.trace)[:, :, place].max(-1)
        return [
            HeadScores(
                layer=layer,
                head=head,
                previous=float(scores["previous token"][layer, head]),
                same=float(scores["same token"][layer, head]),
                first=float(scores["first token"][layer, head]),
                induction=float(induction[layer, head]),
                source=int(sources[layer, head]),
                weight=float(weights[layer, head]),
            )
            for layer in range(reading.model.config.n_layer)
            for head in range(reading.model.config.n_head)
        ]

    def thumbnails(self, request: TextRequest, check: Check = _go_on) -> Tensor:
        """Returns small pictures of all attention patterns, (layers, heads, side, side); the largest cell counts."""
        reading = self._reader.read(request)
        patterns = explain.attention_patterns(reading.model, reading.trace)
        return F.adaptive_max_pool2d(patterns, min(THUMBNAIL, len(reading.ids)))

    def pattern(self, request: HeadRequest, check: Check = _go_on) -> Tensor:
        """Returns the attention pattern of a head, (queries, keys)."""
        reading = self._reader.read(request)
        layer, head = head_of(reading, request)
        return reading.trace[f"h.{layer}.attn.pattern"][head]

    def effects(self, request: PositionRequest, check: Check = _go_on) -> EffectsAnswer:
        """Returns how much each head matters for a token: the change of its log-probability without it."""
        reading = self._reader.read(request)
        place = reading.position(request.position)
        token = reading.target(request)
        before = float(reading.log_probabilities[place, token])
        code = reading.code(
            f"without = explain.ablate_each_head(model, ids[:{place + 1}], keep=1)[:, :, 0].log_softmax(-1)",
            f"without[:, :, {token}] - trace.logits[{place}].log_softmax(-1)[{token}]",
        )

        def changes(replacement: Tensor | None) -> list[list[float | None]]:
            found: list[list[float | None]] = []
            for layer in range(reading.model.config.n_layer):
                check()
                logits = explain.ablate_heads_of_layer(reading.model, reading.trace, layer, place, replacement)
                after = logits.log_softmax(-1)[:, token].tolist()
                off = [(layer, head) in request.heads_off for head in range(len(after))]
                found.append([None if is_off else new - before for new, is_off in zip(after, off, strict=True)])
            return found

        mean = reading.run.mean_outputs(reading.step)  # of the model with all heads on
        with self._reader.heads_off(reading.model, request, request.heads_off):
            effects = changes(None), None if mean is None else changes(mean)
        return EffectsAnswer(token, reading.run.piece(token), before, *effects, code)

    def layers(self, request: PositionRequest, check: Check = _go_on) -> LayersAnswer:
        """Returns a token's way through the layers: the logit lens, and the contributions that sum to its logit."""
        reading = self._reader.read(request)
        place, token = reading.position(request.position), reading.target(request)
        streams = {name: stream[place : place + 1] for name, stream in reading.trace.residual_stream.items()}
        rows = []
        for name, logits in explain.logit_lens(reading.model, Trace(reading.ids[place : place + 1], streams)).items():
            log_p = logits.log_softmax(-1)
            best = int(log_p[0].argmax())
            chances = *_exp(log_p[0, best]), *_exp(log_p[0, token])
            rank = _ranks(log_p, torch.tensor([token]))[0]
            rows.append(LensRow(_state_name(name), reading.run.piece(best), *chances, rank))
        check()
        parts = explain.logit_attribution(reading.model, reading.trace, place, token)
        code = reading.code(f"explain.logit_attribution(model, trace, position={place}, token={token})")
        logit = float(reading.trace.logits[place, token])
        return LayersAnswer(token, reading.run.piece(token), rows, list(parts.items()), logit, code)

    def cell(self, request: CellRequest, check: Check = _go_on) -> CellAnswer:
        """Returns one attention weight and the numbers it came from.

        Raises:
            ConfigError: if the key comes after the query, where attention is masked.
        """
        reading = self._reader.read(request)
        layer, head = head_of(reading, request)
        query, key = reading.position(request.query), reading.position(request.key)
        if key > query:
            raise ConfigError("A token attends to itself and earlier tokens only", remedy="Choose an earlier key.")
        name, config = f"h.{layer}.attn", reading.model.config
        kv_head = head * config.kv_heads // config.n_head
        q, k = reading.trace[f"{name}.q"][head, query], reading.trace[f"{name}.k"][kv_head, key]
        scores = reading.trace[f"{name}.scores"][head, query, : query + 1]
        weights = reading.trace[f"{name}.pattern"][head, query, : query + 1]
        code = reading.code(
            f'q, k = trace["{name}.q"][{head}, {query}], trace["{name}.k"][{kv_head}, {key}]  # ({config.head_dim})',
            f'scores = trace["{name}.scores"][{head}, {query}, :{query + 1}]  # scores[{key}]: q @ k / sqrt(head_dim)',
            f"q @ k / {config.head_dim} ** 0.5, scores.softmax(-1)[{key}]",
        )
        answer = q.tolist(), k.tolist(), float(scores[key]), scores.tolist(), weights.tolist(), float(weights[key])
        return CellAnswer(*answer, code)

    def neighbours(self, request: TokenRequest, check: Check = _go_on) -> list[Neighbour]:
        """Returns the tokens whose embeddings are most like a token's."""
        run, model = self._reader.run(request), self._reader.model(request)
        check_token(model, request.token)
        found = explain.nearest_tokens(model, request.token, NEIGHBOURS)
        return [Neighbour(token, run.piece(token), similarity) for token, similarity in found]

    def moment(self, request: PositionRequest, check: Check = _go_on) -> MomentAnswer:
        """Returns one checkpoint's part of the screen that follows a text over time."""
        reading = self._reader.read(request)
        place, token = reading.position(request.position), reading.target(request)
        check()
        log_p, losses = reading.log_probabilities[place], explain.token_losses(reading.trace)
        here = int(reading.ids[place])
        neighbours = self.neighbours(TokenRequest(request.run, reading.step, here))
        return MomentAnswer(
            reading.step,
            float(losses.mean()) if len(losses) else None,
            *_exp(log_p[token]),
            _ranks(log_p[None], torch.tensor([token]))[0],
            self._induction_scores(reading).tolist(),
            explain.head_scores(reading.model, reading.trace)["previous token"].tolist(),
            neighbours[:5],
        )

    def passages(self, request: PositionRequest, check: Check = _go_on) -> PassagesAnswer:
        """Returns where the end of the text, up to a position, also occurs in the training text.

        Raises:
            DataError: without the training text.
        """
        run = self._reader.run(request)
        training, ids = run.training_tokens, run.encode(request.text)[: request.position + 1]
        if training is None:
            raise DataError("The training text is not there", remedy=run.missing_data)
        if not len(ids):
            raise ConfigError("The text is empty", remedy="Type some words.")
        length, ends = longest_match(training, ids)
        check()
        passages = []
        for end in ends[:: max(1, len(ends) // PASSAGES)][:PASSAGES].tolist():
            edges = max(0, end - length - PASSAGE_TOKENS), end - length, end, end + PASSAGE_TOKENS
            parts = [escape_control(run.decode(training[a:b].astype(np.int64))) for a, b in pairwise(edges)]
            passages.append(Passage(*parts))
        after = [(run.piece(token), count) for token, count in followers(training, ends, 5)]
        return PassagesAnswer(length, len(ends), escape_control(run.decode(ids[len(ids) - length :])), after, passages)

    def _induction_scores(self, reading: Reading) -> Tensor:
        """Returns the induction scores of a checkpoint, with no head off."""
        key = (self.runs.index(reading.run), reading.step)
        if key not in self._induction:
            self._induction[key] = explain.induction_scores(reading.model)
        return self._induction[key]


def _describe(run: ExploredRun) -> RunDescription:
    config = run.config
    return RunDescription(
        name=run.name,
        best=run.best,
        steps=run.steps,
        curve=run.curve(),
        layers=config.n_layer,
        heads=config.n_head,
        head_dim=config.head_dim,
        width=config.n_embd,
        vocab_size=config.vocab_size,
        block_size=config.block_size,
        max_tokens=max_tokens(run),
        induction_chance=explain.induction_chance(explain.induction_length(config)),
        description=f"{config.n_layer} layers of {config.n_head} heads, {config.n_embd} wide, {config.position} "
        f"positions, {config.norm}, {config.mlp}",
        tokenizer=run.tokenizer.spec,
        examples=[Example(text, position) for text, position in run.examples],
        missing_data=run.missing_data,
        missing_counts=run.missing_counts,
    )


def _ranks(log_p: Tensor, tokens: Tensor) -> list[int]:
    """Returns the rank of a token in each row, from 1: (rows, vocab_size) and (rows)."""
    return (1 + (log_p > log_p.gather(1, tokens[:, None])).sum(1)).tolist()


def _exp(value: Tensor) -> tuple[float]:
    return (float(value.exp()),)


def _state_name(name: str) -> str:
    """Returns what a state of the residual stream is called on the page."""
    if name == "embed":
        return "embedding"
    _, layer, point = name.split(".")
    return f"after {'attention' if point == 'resid_mid' else 'feed-forward'} {layer}"
