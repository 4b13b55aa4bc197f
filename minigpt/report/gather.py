"""Everything that is known of runs, read from their folders and measured where that is asked for.

What is missing or damaged stops no report: it is left out, and a sentence says so. Not here: what is made of it
(plots.py, and the files of sections).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from minigpt.characters import own_name
from minigpt.config import Config, MachineConfig
from minigpt.data.report import Report
from minigpt.doctor import Diagnosis, Evidence, examine, read_evidence
from minigpt.errors import MiniGPTError
from minigpt.evaluation import Evaluation
from minigpt.generation.kept import Kept
from minigpt.metrics import read_metrics
from minigpt.model.cost import parameter_count
from minigpt.report.html import shown
from minigpt.report.kept import measured
from minigpt.report.said import Said, fixed_texts, own_texts
from minigpt.report.said import measured as measured_texts
from minigpt.run import RunFolder

Progress = Callable[[str, int, int], None]
Records = list[dict[str, Any]]
Found = TypeVar("Found")


class Tried(Protocol):
    """What tries to read something, and notes why there is none."""

    def __call__(self, read: Callable[[], Found], otherwise: Found, what: str) -> Found:
        """Returns what `read` returns, or `otherwise` if it raises a MiniGPTError; `what` begins the note."""


LABEL_LENGTH = 28


@dataclass(frozen=True)
class Wishes:
    """What a report is to hold.

    Attributes:
        data: the data set to measure on; each run's own if None.
        checkpoint: `best`, `latest` or a step number: what is measured.
        evaluate: whether to measure at all.
        samples: whether to tell what the models said.
        prompts: the reader's own, continued beside the fixed ones.
        machine: device and precision of the measuring; those of the run when left out.
    """

    data: Path | None = None
    checkpoint: str = "best"
    evaluate: bool = True
    samples: bool = True
    prompts: tuple[str, ...] = ()
    machine: MachineConfig = field(default_factory=MachineConfig)


@dataclass(frozen=True)
class RunFacts:
    """What is known of one run.

    Attributes:
        folder: where it is.
        label: what the report calls it; no other run of the report has this name.
        config: its settings.
        records: all of metrics.jsonl, in order.
        environment: machine and versions; empty if unknown.
        data: what the run knows of its data set: `folder`, `tokenizer` and `splits`.
        origin: where its first weights came from; None if from chance.
        prepared: how the data set was made, if it is at hand.
        evaluation: the figures; None if nothing was measured.
        said: what the model wrote, and the figures of that.
        diagnosis: what the doctor says; None if it says nothing of such a run.
        running: whether it is being trained now.
        missing: what is not in the report, as sentences.
    """

    folder: RunFolder
    label: str
    config: Config
    records: Records
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    origin: Mapping[str, Any] | None
    prepared: Report | None
    evaluation: Evaluation | None
    said: Said
    diagnosis: Diagnosis | None
    running: bool
    missing: tuple[str, ...]

    @cached_property
    def steps(self) -> Records:
        """The `step` records."""
        return self._of_kind("step")

    @cached_property
    def validations(self) -> Records:
        """The `validation` records."""
        return self._of_kind("validation")

    @cached_property
    def health(self) -> Records:
        """The `health` records."""
        return [record for record in self._of_kind("health") if isinstance(record.get("parts"), list)]

    @cached_property
    def notes(self) -> Records:
        """The `note` records."""
        return self._of_kind("note")

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return parameter_count(self.config.model)

    @property
    def tokenizer(self) -> Mapping[str, Any]:
        """Its `spec` and `identity`; empty if unknown."""
        return self.data.get("tokenizer") or {}

    @property
    def last_step(self) -> int:
        """The last step that is known of; 0 before the first."""
        return max((record["step"] for record in self.records), default=0)

    @property
    def total_steps(self) -> int | None:
        """How many steps it was to take; None where nobody knows."""
        if self.config.train.steps is not None:
            return self.config.train.steps
        planned = [record.get("steps") for record in self._of_kind("plan")]
        if planned and isinstance(planned[-1], int):
            return planned[-1]
        epochs = [(r["step"], e) for r, e in zip(self.validations, column(self.validations, "epoch"), strict=True)]
        return next((round(self.config.train.epochs * step / epoch) for step, epoch in epochs if epoch >= 1), None)

    @property
    def last(self) -> Mapping[str, float]:
        """The newest `epoch`, `tokens` and `seconds`, as far as they are known."""
        found = {}
        for name in ("epoch", "tokens", "seconds"):
            values = [value for value in column(self.records, name) if math.isfinite(value)]
            if values:
                found[name] = max(values)
        return found

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

    def _of_kind(self, kind: str) -> Records:
        return [record for record in self.records if record.get("kind") == kind]


def number(value: Any) -> float:
    """Returns a value of a record as a number; NaN if it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def column(records: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Returns one value of each record, NaN where it is no number."""
    return [number(record.get(name)) for record in records]


def one_tokenizer(runs: Sequence[RunFacts]) -> bool:
    """Whether runs cut their text alike."""
    return len({run.tokenizer.get("identity") for run in runs}) == 1


def same_text(runs: Sequence[RunFacts]) -> bool:
    """Whether runs were validated on the same text; between tokenizers, as far as its length tells."""
    which = "sha256" if one_tokenizer(runs) else "text_bytes"
    return len({(run.data["splits"].get("val") or {}).get(which) for run in runs}) == 1


def comparable(runs: Sequence[RunFacts]) -> bool:
    """Whether the losses of runs may be compared: one tokenizer, one validation text."""
    return one_tokenizer(runs) and same_text(runs)


def measured_alike(runs: Sequence[RunFacts]) -> bool:
    """Whether what was measured now is of the same tokens in all runs that were measured."""
    found = [run.evaluation.figures for run in runs if run.evaluation]
    return len({(figures.tokens, figures.documents, figures.bytes_per_token) for figures in found}) == 1


def gather(
    paths: Sequence[Path | str], wishes: Wishes, on_progress: Progress = lambda phase, done, total: None
) -> list[RunFacts]:
    """Returns what is known of each run.

    Raises:
        MiniGPTError: if one is no run, or lacks what was asked for by name.
    """
    folders = [RunFolder.open(path) for path in paths]
    return [
        _gather(folder, label, wishes, on_progress) for folder, label in zip(folders, _labels(folders), strict=True)
    ]


def _gather(folder: RunFolder, label: str, wishes: Wishes, on_progress: Progress) -> RunFacts:
    missing: list[str] = []
    data: Mapping[str, Any] = {"folder": "", "splits": {}}

    def told(error: MiniGPTError, what: str) -> str:
        seen = "" if error.seen is None else f" ({error.seen})"
        return without_folders(f"{what}: {error.what}{seen}.", folder, data)

    def tried(read: Callable[[], Found], otherwise: Found, what: str) -> Found:
        try:
            return read()
        except MiniGPTError as error:
            missing.append(told(error, what))
            return otherwise

    no_records: Records = []
    records = tried(lambda: read_metrics(folder.metrics_file), no_records, "No curves")
    data = tried(folder.data, data, "Nothing is known of the data")
    evaluation = None
    if wishes.evaluate:
        if wishes.data is not None or wishes.checkpoint != "best":  # asked for by name: a mistake there is no lack
            evaluation = measured(folder, wishes.checkpoint, wishes.data, wishes.machine, on_progress)
        else:
            evaluation = tried(
                lambda: measured(folder, "best", None, wishes.machine, on_progress), None, "Nothing was measured"
            )
    evidence: Evidence | None = None
    if data["splits"]:  # else it was imported, and there is no training to look at
        evidence = tried(lambda: _evidence(folder, wishes.data), None, "No diagnosis")
    return RunFacts(
        folder=folder,
        label=label,
        config=folder.config(),
        records=records,
        environment=tried(folder.environment, {}, "Nothing is known of the machine"),
        data=data,
        origin=tried(folder.origin, None, "Nothing is known of the first weights"),
        prepared=_prepared(wishes.data or data["folder"], data),
        evaluation=evaluation,
        said=_said(folder, data, wishes, tried, on_progress) if wishes.samples else Said(),
        diagnosis=examine(evidence) if evidence else None,
        running=evidence is not None and evidence.running,
        missing=tuple(missing),
    )


def _said(folder: RunFolder, data: Mapping[str, Any], wishes: Wishes, tried: Tried, on_progress: Progress) -> Said:
    """Returns what a run wrote; the figures of that need the text that it was trained on."""
    none: list[Kept] = []
    kept = tried(lambda: fixed_texts(folder, wishes.machine, on_progress), none, "No samples")
    if wishes.prompts:
        own = tried(lambda: own_texts(folder, wishes.prompts, wishes.machine, on_progress), none, "No own samples")
        kept = list(dict.fromkeys([*kept, *own]))
    if not kept:
        return Said()

    def figures() -> Said:
        dataset = folder.open_data(wishes.data)
        if dataset.train.sha256 != (data["splits"].get("train") or {}).get("sha256"):
            dataset = folder.open_data()
        return measured_texts(kept, dataset, on_progress)

    return tried(figures, Said(kept), "No figures of the samples")


def _evidence(folder: RunFolder, data: Path | None) -> Evidence:
    """Returns what the doctor looks at; with the data set that was named, if it is the run's own."""
    try:
        return read_evidence(folder.path, data)
    except MiniGPTError:
        if data is None:
            raise
        return read_evidence(folder.path)


def without_folders(text: str, folder: RunFolder, data: Mapping[str, Any]) -> str:
    """Returns a sentence with the run's and the data set's paths shortened: a report is made to be shown to others."""
    for place in (str(folder.path.absolute()), str(folder.path), str(data["folder"])):
        text = text.replace(place, own_name(place)) if place else text
    return text


def _prepared(place: Path | str, data: Mapping[str, Any]) -> Report | None:
    """Returns the data set's report if it is at hand, and is of the tokens that the run was trained on."""
    try:
        report = Report.load(Path(place)) if place else None
    except MiniGPTError:
        return None
    return report if report and report.train.tokens == (data["splits"].get("train") or {}).get("tokens") else None


def _labels(folders: Sequence[RunFolder]) -> list[str]:
    """Returns a name for each run: its folder's, with the parent's before it where two are called the same."""
    short, long = ([shown(name)[:LABEL_LENGTH] for name in names] for names in _names(folders))
    labels = [name if short.count(name) == 1 else longer for name, longer in zip(short, long, strict=True)]
    again: Counter[str] = Counter()
    for place, label in enumerate(labels):
        again[label] += 1
        if again[label] > 1:
            labels[place] = f"{label} ({again[label]})"
    return labels


def _names(folders: Sequence[RunFolder]) -> tuple[list[str], list[str]]:
    names = [folder.name for folder in folders]
    return names, [f"{folder.path.absolute().parent.name}/{name}" for folder, name in zip(folders, names, strict=True)]
