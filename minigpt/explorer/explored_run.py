"""A run opened for exploring: its checkpoints, tokenizer, loss curve and texts.

All that the explorer needs from the rest of the package is here. What is missing, as the data set of an imported run,
is None, and `missing_data` says why.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minigpt import explain
from minigpt.data import Dataset
from minigpt.errors import CheckpointError, ConfigError, MiniGPTError
from minigpt.evaluation.baselines import Baselines, baselines
from minigpt.model import GPT
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder, load_model
from minigpt.text_utils import escaped

MODELS_IN_MEMORY = 4
CURVE_POINTS = 300
EXAMPLES, EXAMPLE_TOKENS, CANDIDATES = 6, 40, 48
FEWEST_BEFORE, FEWEST_LETTERS = 6, 0.5
"""Tokens before the position of an example, and the share of letters in it."""
SURE, UNSURE = 1.5, 100.0
"""Nats up to which a token counts as predicted, and what examples that have none are set back by."""
MEAN_WINDOWS = 8
LARGEST_TEXT = 20_000_000
"""Tokens of training text beyond which no bigrams are counted: one second on a core for five million."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class ExploredRun:
    """A run, read when something is asked for.

    Args:
        path: the run folder.
        data: where its data set is now; None for where it was trained on.

    Raises:
        RunError: if there is no such run, or a file of it cannot be read.
        CheckpointError: if its best checkpoint cannot be read, or there is none.
        DataError: if a data set was given, and cannot be used.
    """

    def __init__(self, path: Path | str, data: Path | str | None = None) -> None:
        self.folder = RunFolder.open(path)
        self.path, self.name = Path(path), self.folder.name
        self.config = self.folder.config().model
        self.tokenizer = self.folder.tokenizer()
        if self.config.vocab_size < self.tokenizer.vocab_size:
            raise CheckpointError(
                "The model knows fewer tokens than the tokenizer",
                got=f"model.vocab_size {self.config.vocab_size}, {self.tokenizer.vocab_size} ids in the tokenizer",
                remedy="Put back the run's own config.toml and tokenizer.",
            )
        self.data: Dataset | None = None
        self.missing_data = ""
        try:
            self.data = self.folder.open_data(data)
        except MiniGPTError as error:
            if data is not None:
                raise
            self.missing_data = f"{error.what}. {error.remedy}"
        self._models: OrderedDict[int, GPT] = OrderedDict()
        self._means: dict[int, Tensor] = {}
        self.model(self.best)  # what cannot be read is reported before the page opens

    @property
    def best(self) -> int:
        """The step of the checkpoint with the lowest validation loss; of a run in training, so far.

        Raises:
            CheckpointError: if there is no checkpoint.
        """
        return self.folder.checkpoint_step(self.folder.find_checkpoint("best"))

    @property
    def steps(self) -> list[int]:
        """The steps after which there is a checkpoint, rising."""
        return [self.folder.checkpoint_step(folder) for folder in self.folder.checkpoint_folders()]

    def model(self, step: int) -> GPT:
        """Returns the model of a checkpoint in float32; the last few stay in memory.

        Raises:
            CheckpointError: if it is not there, damaged, or does not fit.
        """
        if step not in self._models:
            model = load_model(self.folder.config(), self.folder.find_checkpoint(str(step)))
            self._models[step] = model.float().requires_grad_(False)
            while len(self._models) > MODELS_IN_MEMORY:
                self._models.popitem(last=False)
        self._models.move_to_end(step)
        return self._models[step]

    def curve(self) -> dict[str, list[tuple[int, float]]]:
        """Returns training and validation losses, in nats a token, by step; a long curve is thinned out."""
        if not self.folder.metrics_file.exists():
            return {"train": [], "val": []}
        found = {}
        for name, kind, key in (("train", "step", "loss"), ("val", "validation", "val_loss")):
            records = read_metrics(self.folder.metrics_file, kind)
            points = [(record["step"], record[key]) for record in records if record[key] is not None]
            found[name] = points[:: max(1, len(points) // CURVE_POINTS)]
        return found

    def encode(self, text: str) -> Ids:
        """Returns the ids of a text."""
        return self.tokenizer.encode(text).astype(np.int64)

    def piece(self, token: int) -> str:
        r"""Returns what a token stands for, with what cannot be shown as an escape: \n, \xe2."""
        if token == self.tokenizer.end_of_text:
            return "<|endoftext|>"
        if token >= self.tokenizer.vocab_size:
            return f"<unused {token}>"
        return escaped(self.tokenizer.token_bytes(token))

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Returns the text of ids."""
        return self.tokenizer.decode(ids)

    def mean_outputs(self, step: int) -> Tensor | None:
        """Returns the mean output of each head over validation text, (n_layer, heads, 1, head_dim); None without it."""
        if self.data is None:
            return None
        if step not in self._means:
            model = self.model(step)
            length = min(self.config.block_size, 256)
            traces = [explain.record_trace(model, torch.from_numpy(ids)) for ids in self._windows(MEAN_WINDOWS, length)]
            self._means[step] = explain.mean_outputs(traces)
        return self._means[step]

    @cached_property
    def examples(self) -> Sequence[tuple[str, int | None]]:
        """Returns passages of the validation text in which the best checkpoint makes good use of the context.

        Each comes with the position after which the bigram model's loss exceeds the model's by most; the passages with
        the largest such difference come first. Without counts, passages are evenly spaced, without a position.
        """
        passages = list(filter(None, map(self._passage, self._windows(CANDIDATES, 4 * EXAMPLE_TOKENS))))
        encoded = [self.encode(text)[: self.config.block_size] for text in passages]
        if self.missing_counts or not encoded:
            return [(text, None) for text in passages[:: max(1, len(passages) // EXAMPLES)]][:EXAMPLES]
        bigrams = self._baselines(
            np.concatenate([ids[:-1] for ids in encoded]), np.concatenate([i[1:] for i in encoded])
        )
        losses = np.split(bigrams.bigram, np.cumsum([len(ids) - 1 for ids in encoded])[:-1])
        model, found = self.model(self.best), list[tuple[float, str, int]]()
        for text, ids, bigram in zip(passages, encoded, losses, strict=True):
            own = explain.token_losses(explain.record_trace(model, torch.from_numpy(ids))).numpy()
            letters = [any(map(str.isalpha, self.decode([token]))) for token in ids[1:].tolist()]
            gain = np.where(letters, bigram - own, -np.inf) - UNSURE * (own > SURE)
            gain[: min(FEWEST_BEFORE, len(gain) - 1)] = -np.inf
            found.append((float(gain.max()), text, int(gain.argmax())))
        return [(text, position) for _, text, position in sorted(found, reverse=True)[:EXAMPLES]]

    def _passage(self, ids: Ids) -> str:
        """Returns a passage of a stretch of tokens, from the start of a line where there is one."""
        text = self.decode([token for token in ids.tolist() if token != self.tokenizer.end_of_text])
        text = text[text.find("\n") + 1 :].lstrip() or text
        text = self.decode(self.encode(text)[: min(EXAMPLE_TOKENS, self.config.block_size)]).rstrip("\ufffd")
        letters = sum(character.isalpha() for character in text)
        return text if letters > FEWEST_LETTERS * len(text) and len(self.encode(text)) > FEWEST_BEFORE + 1 else ""

    def _windows(self, count: int, length: int) -> list[Ids]:
        """Returns stretches of the validation tokens, evenly spaced."""
        if self.data is None or not self.data.val.n_tokens:
            return []
        tokens = self.data.val
        starts = np.linspace(0, max(0, tokens.n_tokens - length), count + 2).astype(int)[1:-1]
        return [tokens.read(start, start + length).astype(np.int64) for start in sorted(set(starts.tolist()))]

    @cached_property
    def missing_counts(self) -> str:
        """Why there are no bigram counts; "" if there are."""
        if self.data is not None and self.data.train.n_tokens > LARGEST_TEXT:
            return f"Bigrams are counted in training texts of up to {LARGEST_TEXT:,} tokens."
        return self.missing_data

    def bigram(self, ids: Ids, position: int) -> tuple[Ids, Floats, Floats] | None:
        """Returns what the training text says of a text's tokens, as `minigpt evaluate` counts it; None without counts.

        Args:
            ids: the text, (time).
            position: the token after which the bigram model is asked for its guesses.

        Returns:
            How often each token occurs in training, (time); the bigram's loss of each but the first, in nats,
            (time - 1); and its loss for each token of the vocabulary after `position`, (vocab_size).
        """
        if self.data is None or self.missing_counts:
            return None
        size = self.data.train.vocab_size
        previous = np.concatenate([ids[:1], ids[:-1], np.full(size, ids[position])])
        found = self._baselines(previous, np.concatenate([ids, np.arange(size)]))
        return found.count[: len(ids)], found.bigram[1 : len(ids)], found.bigram[len(ids) :]

    def _baselines(self, previous: Ids, targets: Ids) -> Baselines:
        assert self.data is not None
        return baselines(self.data.train, previous, targets)

    @cached_property
    def training_tokens(self) -> npt.NDArray[np.unsignedinteger] | None:
        """The tokens of the training text, memory-mapped; None without the data set."""
        return None if self.data is None else self.data.train.tokens

    def check_comparable(self, other: ExploredRun) -> None:
        """Raises ConfigError unless another run cuts texts into the same tokens."""
        if other.tokenizer.identity != self.tokenizer.identity:
            raise ConfigError(
                "The two runs have different tokenizers, so their tokens cannot be compared",
                got=f"{self.tokenizer.spec} and {other.tokenizer.spec}",
                remedy="Give two runs that were trained on the same data set.",
            )
