"""What is known of runs, as plain values, and whether runs can be compared.

Not here: where it comes from (collect.py), and how it is shown (plots.py and the sections).
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
        label: its name in the report; no other run of the report has the same.
        prepared: the card of its data set, if available.
        evaluation: its metrics; None if it was not evaluated.
        unseen: whether they are of the validation split held out from the run's training.
        sampled: the samples, with their metrics.
        diagnosis: the doctor's; None if there is none.
        missing: what is not in the report, as sentences.
        places: paths that the report does not reveal, and the placeholder of each: `RUN`, `DATA`, `TEXT`.
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
        """The number of parameters."""
        return parameter_count(self.config.model)

    @property
    def tokenizer(self) -> Mapping[str, Any]:
        """Its `spec` and `identity`; empty if unknown."""
        return self.data["tokenizer"]

    @property
    def step(self) -> int:
        """The step that was evaluated, or else the last one."""
        return self.evaluation.step if self.evaluation else self.last_step

    @property
    def seen(self) -> Mapping[str, float]:
        """The `epoch`, `tokens` and `seconds` at that step, as far as known."""
        found = {name: self.at(name, self.step) for name in ("epoch", "tokens", "seconds")}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def at(self, name: str, step: int) -> float:
        """Returns a value of the records at a step, interpolated; NaN if none has it."""
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
        """Bits per byte of the validation text for each nat per token; NaN if unknown."""
        for record in self.validations:
            loss, bits = number(record.get("val_loss")), number(record.get("val_bits_per_byte"))
            if math.isfinite(loss) and math.isfinite(bits) and loss > 0:
                return bits / loss
        return math.nan

    def shortened(self, text: str) -> str:
        """Returns a sentence without the folders of this run, since reports are shown to others.

        Commands between backticks get placeholders; elsewhere a path becomes its last part.
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
    """Whether runs have the same tokenizer."""
    return len({run.tokenizer.get("identity") for run in runs}) == 1


def same_text(runs: Sequence[RunFacts]) -> bool:
    """Whether runs were validated on the same text; across tokenizers, judged by its length."""
    which = "sha256" if one_tokenizer(runs) else "text_bytes"
    return len({split.get(which) for run in runs if (split := run.data["splits"].get("val"))}) <= 1


def comparable(runs: Sequence[RunFacts]) -> bool:
    """Whether the losses of runs can be compared: same tokenizer, same validation text."""
    return one_tokenizer(runs) and same_text(runs)


def measured_alike(runs: Sequence[RunFacts]) -> bool:
    """Whether at least two runs were evaluated, all on the same tokens."""
    found = [run.evaluation.metrics for run in runs if run.evaluation]
    texts = {(one.bytes_per_token, *(document.tokens for document in one.by_document)) for one in found}
    return len(found) > 1 and len(texts) == 1


def _with_placeholders(command: str, places: Mapping[str, str]) -> str:
    """Returns a command with placeholders for its paths, also at the start of a word (`runs/first-slower`)."""
    try:
        words = words_of(command)
    except ValueError:  # not a command
        return command
    for place, word in enumerate(words):
        for path in sorted(places, key=len, reverse=True):
            if place > 1 and word.startswith(path) and word[len(path) :][:1] in ("", "-", "/", "\\"):
                words[place] = places[path] + word[len(path) :]
                break
    return shell_line(words)
