"""Samples of the runs and their metrics: diversity, repetition, known words, and what is copied from the training text.

The samples come from RUN/samples.jsonl, or are generated from the checkpoints. Not here: how they are shown
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
from minigpt.evaluation.eval_text import first_words
from minigpt.evaluation.memorization import CopyStats, find_copies
from minigpt.evaluation.sample_metrics import SampleMetrics, real_samples, sample_metrics
from minigpt.generation.sample_log import SampleRecord, fill_sample_log, read_sample_log
from minigpt.runs.folder import RunFolder
from minigpt.runtime import restore_runtime
from minigpt.tokenizers import Tokenizer

Progress = Callable[[str, int, int], None]
Group = tuple[int, float]
"""A step and a temperature."""

MIN_COPIED_TOKENS = 8
"""A passage of this length that also occurs in the training text is marked as copied."""

REFERENCE_PIECES = 200
"""Pieces of real text for the metrics that do not depend on their number: shares of a few pieces are mostly noise."""

TOKENS_AT_ONCE = 2**22


@dataclass(frozen=True)
class CopiedPassage:
    """A part of a sample that occurs word for word in the training text.

    Attributes:
        start, end: the characters of the sample.
        tokens: how many tokens they are.
        document: the name of the document in which they occur, or of one of several.
    """

    start: int
    end: int
    tokens: int
    document: str


@dataclass(frozen=True)
class SampleAnalysis:
    """The samples of a run.

    Attributes:
        samples: all of them, by step.
        metrics: of the samples of each step and temperature; empty without the training text.
        reference: the same of as many pieces of real validation text of the same length; None without the data.
        large_reference: the same of more pieces, for the metrics that do not depend on their number.
        copies: the copied passages of a sample, if there are any; they may overlap.
        prompt_notes: what the model does not see of the reader's own prompts, as sentences.
    """

    samples: Sequence[SampleRecord] = ()
    metrics: Mapping[Group, SampleMetrics] = field(default_factory=dict)
    reference: SampleMetrics | None = None
    large_reference: SampleMetrics | None = None
    copies: Mapping[SampleRecord, Sequence[CopiedPassage]] = field(default_factory=dict)
    prompt_notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def fixed_samples(folder: RunFolder, settings: MachineConfig, on_progress: Progress) -> list[SampleRecord]:
    """Returns the samples of a run's fixed prompts: those on record, or else new ones from its checkpoints.

    Raises:
        MiniGPTError: if there are neither records, nor a checkpoint and data to make samples.
    """
    fixed = [one for one in read_sample_log(folder) if one.source == "fixed"]
    return fixed or fill_sample_log(folder, device=_device(folder, settings), on_progress=on_progress)


def prompted_samples(
    folder: RunFolder, prompts: Sequence[str], checkpoint: str, settings: MachineConfig, on_progress: Progress
) -> list[SampleRecord]:
    """Returns how a run's checkpoints, `all` or the `latest`, continue the reader's own prompts.

    Raises:
        MiniGPTError: if a checkpoint cannot be read.
    """
    device = _device(folder, settings)
    return fill_sample_log(folder, prompts, checkpoint=checkpoint, device=device, on_progress=on_progress)


def _device(folder: RunFolder, settings: MachineConfig) -> torch.device:
    return restore_runtime(folder.environment(), settings).device


def analyze_samples(samples: Sequence[SampleRecord], dataset: Dataset, on_progress: Progress) -> SampleAnalysis:
    """Returns the samples with their metrics; those with tokens that the tokenizer lacks are dropped."""
    size = dataset.tokenizer.vocab_size
    samples = [one for one in samples if all(0 <= token < size for token in one.ids)]
    measured = [one for one in samples if one.source == "fixed"] or samples
    if not measured:
        return SampleAnalysis(samples)
    groups: dict[Group | str, list[SampleRecord]] = {}
    for one in measured:
        groups.setdefault((one.step, one.temperature), []).append(one)
    tokens: dict[Group | str, Sequence[Sequence[int]]] = {
        key: [one.ids for one in group] for key, group in groups.items()
    }
    length = median_low(len(one.ids) for one in measured)
    tokens["reference"] = real_samples(dataset.val, max(map(len, groups.values())), length)
    tokens["large reference"] = real_samples(dataset.val, REFERENCE_PIECES, length)
    found = sample_metrics(tokens, dataset, on_progress)
    stats = {one: each for key, group in groups.items() for one, each in zip(group, found[key].copied, strict=True)}
    others = [one for one in samples if one not in stats]
    stats |= zip(others, find_copies(dataset.train, [one.ids for one in others]), strict=True)
    document_name = _document_names(dataset)
    return SampleAnalysis(
        samples,
        {key: metrics for key, metrics in found.items() if not isinstance(key, str)},
        found["reference"],
        found["large reference"],
        {one: copies for one in samples if (copies := _copies(one, stats[one], dataset, document_name))},
    )


def _document_names(dataset: Dataset) -> Callable[[int], str]:
    """Returns a function from a position in the training text to its document's name: its file, or its first words."""
    train, tokenizer = dataset.train, dataset.tokenizer
    names = dataset.documents(train)

    @cache
    def ends() -> npt.NDArray[np.int64]:
        starts = range(0, train.n_tokens, TOKENS_AT_ONCE)
        parts = (train.read(start, start + TOKENS_AT_ONCE) == tokenizer.end_of_text for start in starts)
        return np.concatenate([start + np.flatnonzero(part) for start, part in zip(starts, parts, strict=True)])

    def name(position: int) -> str:
        number = int(np.searchsorted(ends(), position))
        if names is not None:
            return names[number]
        begin = int(ends()[number - 1]) + 1 if number else 0
        segment = position - position % train.segment_length if train.segment_length else 0
        return first_words(tokenizer, train.tokens, max(begin, segment))

    return name


def _copies(
    one: SampleRecord, stats: CopyStats, dataset: Dataset, document_name: Callable[[int], str]
) -> list[CopiedPassage]:
    """Returns all copied passages of a sample that are long enough to be marked."""
    tokenizer, found = dataset.tokenizer, []
    if tokenizer.decode(one.ids) != one.text:
        return []  # the text was edited: which tokens its characters are is unknown
    for run in stats.runs(MIN_COPIED_TOKENS):
        if run.position is not None:
            start, end = (_characters(tokenizer, one, place) for place in (run.start, run.start + run.length))
            found.append(CopiedPassage(start, end, run.length, document_name(run.position)))
    return found


def _characters(tokenizer: Tokenizer, one: SampleRecord, place: int) -> int:
    """Returns how many whole characters the tokens before a position make."""
    before, after = tokenizer.decode(one.ids[:place]), tokenizer.decode(one.ids[place:])
    return len(before) - (before + after != one.text)  # a part of a character is one U+FFFD
