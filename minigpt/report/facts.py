"""What is known of runs, as plain values, and whether it may be compared.

Not here: where it comes from (collect.py), and what is made of it (the files of pictures and sections).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minigpt.data.dataset_card import DatasetCard
from minigpt.doctor import Diagnosis
from minigpt.evaluation import Evaluation
from minigpt.model.accounting import parameter_count
from minigpt.records import column, number
from minigpt.report.sample_analysis import SampleAnalysis
from minigpt.runs.snapshot import RunSnapshot
from minigpt.text_utils import display_name, shell_line, words_of


@dataclass(frozen=True, kw_only=True)
class RunFacts(RunSnapshot):
    """What is known of one run.

    Attributes:
        label: what the report calls it; no other run of the report has this name.
        prepared: how the data set was made, if it is at hand.
        evaluation: the figures; None if nothing was measured.
        unseen: whether they are of the validation split that was kept out of the run's training.
        sampled: the samples, with their metrics.
        diagnosis: what the doctor says; None if it says nothing of such a run.
        missing: what is not in the report, as sentences.
        places: paths that the report does not tell, and what stands for each in a command: `RUN`, `DATA`, `TEXT`.
    """

    label: str
    prepared: DatasetCard | None
    evaluation: Evaluation | None
    unseen: bool
    sampled: SampleAnalysis
    diagnosis: Diagnosis | None
    missing: tuple[str, ...]
    places: Mapping[str, str]

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return parameter_count(self.config.model)

    @property
    def tokenizer(self) -> Mapping[str, Any]:
        """Its `spec` and `identity`; empty if unknown."""
        return self.data["tokenizer"]

    @property
    def step(self) -> int:
        """The step that the figures are of; the last one if nothing was measured."""
        return self.evaluation.step if self.evaluation else self.last_step

    @property
    def seen(self) -> Mapping[str, float]:
        """The `epoch`, `tokens` and `seconds` behind that step, as far as they are known."""
        found = {name: self.at(name, self.step) for name in ("epoch", "tokens", "seconds")}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def at(self, name: str, step: int) -> float:
        """Returns a value of the records at a step, between two of them on the straight line; NaN if none has it."""
        points = {record["step"]: value for record in self.records if math.isfinite(value := number(record.get(name)))}
        steps = sorted(points)
        return float(np.interp(step, [0, *steps], [0, *(points[one] for one in steps)])) if steps else math.nan

    @cached_property
    def best(self) -> Mapping[str, Any] | None:
        """The validation with the lowest loss; None if there is none."""
        losses = column(self.validations, "val_loss")
        finite = [place for place, loss in enumerate(losses) if math.isfinite(loss)]
        return self.validations[min(finite, key=lambda place: losses[place])] if finite else None

    @property
    def bits_per_nat(self) -> float:
        """Bits per byte of the validation text for each nat per token; NaN where nobody knows."""
        for record in self.validations:
            loss, bits = number(record.get("val_loss")), number(record.get("val_bits_per_byte"))
            if math.isfinite(loss) and math.isfinite(bits) and loss > 0:
                return bits / loss
        return math.nan

    def shortened(self, text: str) -> str:
        """Returns a sentence without the folders of this run: a report is made to be shown to others.

        Commands between backticks name what stands for a path; elsewhere it is its last part.
        """
        parts = text.split("`")
        for place, part in enumerate(parts):
            if place % 2 and part.startswith("minigpt "):
                parts[place] = _with_placeholders(part, self.places)
        text = "`".join(parts)
        for path in sorted(self.places, key=len, reverse=True):
            text = text.replace(path.rstrip("/\\") or path, display_name(path))
        return text


def one_tokenizer(runs: Sequence[RunFacts]) -> bool:
    """Whether runs cut their text alike."""
    return len({run.tokenizer.get("identity") for run in runs}) == 1


def same_text(runs: Sequence[RunFacts]) -> bool:
    """Whether runs were validated on the same text, those that were; between tokenizers, as far as its length tells."""
    which = "sha256" if one_tokenizer(runs) else "text_bytes"
    return len({split.get(which) for run in runs if (split := run.data["splits"].get("val"))}) <= 1


def comparable(runs: Sequence[RunFacts]) -> bool:
    """Whether the losses of runs may be compared: one tokenizer, one validation text."""
    return one_tokenizer(runs) and same_text(runs)


def measured_alike(runs: Sequence[RunFacts]) -> bool:
    """Whether what was measured now is of the same tokens in all runs that were measured, two at least."""
    found = [run.evaluation.metrics for run in runs if run.evaluation]
    texts = {(one.bytes_per_token, *(document.tokens for document in one.by_document)) for one in found}
    return len(found) > 1 and len(texts) == 1


def _with_placeholders(command: str, places: Mapping[str, str]) -> str:
    """Returns a command with what stands for its paths, also where they only begin a word (`runs/first-slower`)."""
    try:
        words = words_of(command)
    except ValueError:  # it is no command
        return command
    for place, word in enumerate(words):
        for path in sorted(places, key=len, reverse=True):
            if place > 1 and word.startswith(path) and word[len(path) :][:1] in ("", "-", "/", "\\"):
                words[place] = places[path] + word[len(path) :]
                break
    return shell_line(words)
