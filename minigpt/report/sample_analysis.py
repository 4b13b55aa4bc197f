"""What the runs said, and the figures of that: diversity, repetition, known words, and what is copied.

The texts come from RUN/samples.jsonl, or are made at the checkpoints that are there. Not here: how they are shown
(samples_section.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median_low

import numpy as np
import numpy.typing as npt
import torch

from minigpt.config import MachineConfig
from minigpt.data import Dataset
from minigpt.evaluation.memorization import CopyStats, document_start, find_copies
from minigpt.evaluation.sample_metrics import SampleMetrics, real_samples, sample_metrics
from minigpt.generation.sample_log import SampleRecord, fill_sample_log, read_sample_log
from minigpt.runs.folder import RunFolder
from minigpt.runtime import restore_runtime
from minigpt.tokenizers import Tokenizer

Progress = Callable[[str, int, int], None]
Group = tuple[int, float]
"""A step and a temperature."""

MARKED_TOKENS = 8
"""A run of so many tokens that stands in the training text is shown as copied."""

REAL_PIECES = 200
"""So many pieces of real text say what is usual: shares of four of them would say little more than chance."""

NAME_TOKENS = 16
"""So many tokens of a document's beginning are its name, where nobody knows its file."""

TOKENS_AT_ONCE = 2**22


@dataclass(frozen=True)
class CopiedPassage:
    """A part of a sample that stands word for word in the training text.

    Attributes:
        start, end: the characters of the sample.
        tokens: how many they are.
        document: what the document is called that they stand in, or one of several.
    """

    start: int
    end: int
    tokens: int
    document: str


@dataclass(frozen=True)
class SampleAnalysis:
    """The texts of a run.

    Attributes:
        kept: all of them, by step.
        metrics: of the texts of each step and temperature; empty without the training text.
        real: the same of real validation text, cut as the samples of one group are; None without the data.
        much_real: the same of more such pieces, for the figures that do not change with their number.
        copies: what is copied in a text, by its places, where any of it is worth showing; parts may overlap.
        notes: what the model does not see of the reader's own prompts, as sentences.
    """

    kept: Sequence[SampleRecord] = ()
    metrics: Mapping[Group, SampleMetrics] = field(default_factory=dict)
    real: SampleMetrics | None = None
    much_real: SampleMetrics | None = None
    copies: Mapping[SampleRecord, Sequence[CopiedPassage]] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def fixed_texts(folder: RunFolder, settings: MachineConfig, on_progress: Progress) -> list[SampleRecord]:
    """Returns what a run said to its fixed prompts; without a history, what its checkpoints say to them now.

    Raises:
        MiniGPTError: if there is neither a history, nor checkpoint and data to make one from.
    """
    fixed = [one for one in read_sample_log(folder) if one.source == "fixed"]
    return fixed or fill_sample_log(folder, device=_device(folder, settings), on_progress=on_progress)


def own_texts(
    folder: RunFolder, prompts: Sequence[str], checkpoint: str, settings: MachineConfig, on_progress: Progress
) -> list[SampleRecord]:
    """Returns how a run's checkpoints, `all` or the `latest`, continue the reader's own prompts, as kept or else now.

    Raises:
        MiniGPTError: if a checkpoint cannot be read.
    """
    device = _device(folder, settings)
    return fill_sample_log(folder, prompts, checkpoint=checkpoint, device=device, on_progress=on_progress)


def _device(folder: RunFolder, settings: MachineConfig) -> torch.device:
    return restore_runtime(folder.environment(), settings).device


def measured(kept: Sequence[SampleRecord], dataset: Dataset, on_progress: Progress) -> SampleAnalysis:
    """Returns the texts with their figures."""
    known = dataset.tokenizer.vocab_size
    kept = [one for one in kept if all(0 <= token < known for token in one.ids)]
    fixed = [one for one in kept if one.source == "fixed"]
    groups: dict[Group | str, list[SampleRecord]] = {}
    for one in fixed or kept:
        groups.setdefault((one.step, one.temperature), []).append(one)
    if not groups:
        return SampleAnalysis(kept)
    tokens: dict[Group | str, Sequence[Sequence[int]]] = {
        key: [one.ids for one in group] for key, group in groups.items()
    }
    length = median_low(len(one.ids) for one in fixed or kept)
    for name, n_samples in (("real", max(map(len, groups.values()))), ("much real", REAL_PIECES)):
        tokens[name] = real_samples(dataset.val, n_samples, length)
    figures = sample_metrics(tokens, dataset, on_progress)
    real, much_real = figures.pop("real"), figures.pop("much real")
    stats = {one: found for key, group in groups.items() for one, found in zip(group, figures[key].copied, strict=True)}
    others = [one for one in kept if one not in stats]
    stats |= zip(others, find_copies(dataset.train, [one.ids for one in others]), strict=True)
    named = _named(dataset)
    copies = {one: found for one in kept if (found := _copies(one, stats[one], dataset, named))}
    return SampleAnalysis(
        kept, {key: value for key, value in figures.items() if not isinstance(key, str)}, real, much_real, copies
    )


def _named(dataset: Dataset) -> Callable[[int], str]:
    """Returns what tells the name of the training document that holds a place: its file's, or else its first words."""
    train, tokenizer = dataset.train, dataset.tokenizer
    names = dataset.documents(train)

    @cache
    def ends() -> npt.NDArray[np.int64]:
        starts = range(0, train.n_tokens, TOKENS_AT_ONCE)
        parts = (train.read(start, start + TOKENS_AT_ONCE) == tokenizer.end_of_text for start in starts)
        return np.concatenate([start + np.flatnonzero(part) for start, part in zip(starts, parts, strict=True)])

    def name(place: int) -> str:
        if names is not None:
            return names[int(np.searchsorted(ends(), place))]
        begin = document_start(train, place, tokenizer.end_of_text)
        return " ".join(tokenizer.decode(train.read(begin, begin + NAME_TOKENS)).split())

    return name


def _copies(one: SampleRecord, stats: CopyStats, dataset: Dataset, named: Callable[[int], str]) -> list[CopiedPassage]:
    """Returns all runs of a text that are copied and long enough to be shown."""
    tokenizer, found = dataset.tokenizer, []
    if tokenizer.decode(one.ids) != one.text:
        return []  # somebody has changed it: nobody knows which tokens its characters are
    for run in stats.runs(MARKED_TOKENS):
        if run.position is not None:
            start, end = (_characters(tokenizer, one, place) for place in (run.start, run.start + run.length))
            found.append(CopiedPassage(start, end, run.length, named(run.position)))
    return found


def _characters(tokenizer: Tokenizer, one: SampleRecord, place: int) -> int:
    """Returns how many characters of a text are made by the tokens before a place; one that it cuts is none of them."""
    before, behind = tokenizer.decode(one.ids[:place]), tokenizer.decode(one.ids[place:])
    return len(before) - (before + behind != one.text)  # a part of a character is one U+FFFD
