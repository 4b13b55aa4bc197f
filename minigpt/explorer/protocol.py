"""What the page asks for, and what it gets: plain values with checked types, sent as JSON."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

MAX_CHARACTERS = 20_000

Index: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]
Head: TypeAlias = tuple[Index, Index]
"""A layer and a head in it."""


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """One checkpoint of a run: `run` is its place on the command line, `step` None for the best checkpoint."""

    run: Index = 0
    step: Index | None = None


class TextRequest(Request, frozen=True):
    """A text, read by a checkpoint with some heads switched off: set to zero, or to their mean over validation text."""

    text: Annotated[str, Meta(max_length=MAX_CHARACTERS)] = ""
    heads_off: Annotated[tuple[Head, ...], Meta(max_length=4096)] = ()
    replacement: Literal["zero", "mean"] = "zero"


class PositionRequest(TextRequest, frozen=True):
    """A position of the text, and a token that may follow it: None for the one that does, at the end the best guess."""

    position: Index = 0
    token: Index | None = None
    word: Annotated[str, Meta(max_length=200)] = ""


class HeadRequest(TextRequest, frozen=True):
    """One head."""

    layer: Index = 0
    head: Index = 0


class CellRequest(HeadRequest, frozen=True):
    """One cell of its attention pattern: how much the token at `query` attends to that at `key`."""

    query: Index = 0
    key: Index = 0


class TokenRequest(Request, frozen=True):
    """One token of the vocabulary."""

    token: Index = 0


class Example(Struct):
    """A passage of the validation text; after `position`, the model uses more than the token before."""

    text: str
    position: int | None


class RunDescription(Struct):
    """A run: its checkpoints (steps), loss curve, shape, and what it cannot show, with the reason."""

    name: str
    best: int
    steps: list[int]
    curve: dict[str, list[tuple[int, float]]]
    layers: int
    heads: int
    head_dim: int
    width: int
    vocab_size: int
    block_size: int
    max_tokens: int
    induction_chance: float
    description: str
    tokenizer: str
    examples: list[Example]
    missing_data: str
    missing_counts: str


class TokenLoss(Struct):
    """A token of a text; loss in nats, probability and rank (from 1) as the model predicted it, None of the first."""

    id: int
    piece: str
    loss: float | None
    probability: float | None
    rank: int | None


class TextAnswer(Struct):
    """The tokens of a text; `unread` is the number of tokens beyond the longest text, which were not read."""

    step: int
    tokens: list[TokenLoss]
    unread: int
    mean_loss: float | None


class Guess(Struct):
    """A token that may come next. `intact` is its probability with no head off."""

    id: int
    piece: str
    probability: float
    rank: int
    intact: float


class NextAnswer(Struct):
    """The most likely next tokens; the token that follows in the text; the first token of a typed word."""

    guesses: list[Guess]
    actual: Guess | None
    word: Guess | None
    entropy: float
    code: str


class BigramAnswer(Struct):
    """What the training text says: the count of each token in it, the bigram model's losses, and its guesses."""

    counts: list[int]
    losses: list[float]
    guesses: list[Guess]


class HeadScores(Struct):
    """What a head does. `weight` is its largest attention from the position, to the token at `source`."""

    layer: int
    head: int
    previous: float
    same: float
    first: float
    induction: float
    source: int
    weight: float


class EffectsAnswer(Struct):
    """Change of a token's log-probability, in nats, without each head in turn; (layers, heads).

    None where the head is off already; `mean` is None without validation text.
    """

    token: int
    piece: str
    log_probability: float
    zero: list[list[float | None]]
    mean: list[list[float | None]] | None
    code: str


class LensRow(Struct):
    """What the model would predict if it ended at this state of the residual stream."""

    state: str
    guess: str
    guess_probability: float
    probability: float
    rank: int


class LayersAnswer(Struct):
    """The logit lens for a token, and the contributions of the components to its logit, which sum to it."""

    token: int
    piece: str
    lens: list[LensRow]
    contributions: list[tuple[str, float]]
    logit: float
    code: str


class CellAnswer(Struct):
    """An attention weight, with all numbers that it came from: q . k / sqrt(head_dim), then a softmax over the row."""

    query: list[float]
    key: list[float]
    score: float
    scores: list[float]
    weights: list[float]
    weight: float
    code: str


class Neighbour(Struct):
    """A token and the cosine similarity of its embedding."""

    id: int
    piece: str
    similarity: float


class MomentAnswer(Struct):
    """One checkpoint: how it reads a text, what its heads do, and the neighbours of the token at the position."""

    step: int
    mean_loss: float | None
    probability: float
    rank: int
    induction: list[list[float]]
    previous: list[list[float]]
    neighbours: list[Neighbour]


class Passage(Struct):
    """A place in the training text where the end of the text occurs: what comes before it, itself, and what follows."""

    before: str
    match: str
    after: str


class PassagesAnswer(Struct):
    """The longest end of the text (up to the position) that also occurs in the training text.

    `followers` are the tokens that come next there, with their number; at most as many places as were looked at.
    """

    length: int
    count: int
    match: str
    followers: list[tuple[str, int]]
    passages: list[Passage]
