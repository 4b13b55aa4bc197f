"""Collects what a report shows of runs: what their folders hold, and an evaluation if requested.

Missing or damaged files do not prevent a report: their part is omitted, and a sentence says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Protocol, TypeVar

from minigpt.config import MachineConfig
from minigpt.doctor import Diagnosis, diagnose, evidence_of
from minigpt.errors import DataError, MiniGPTError, TokenizerError
from minigpt.evaluation import Evaluation
from minigpt.generation.notes import prompt_notes
from minigpt.generation.sample_log import SampleRecord
from minigpt.report.cache import cached_evaluation, last_evaluation
from minigpt.report.commands_section import placeholders
from minigpt.report.facts import RunFacts
from minigpt.report.sample_analysis import SampleAnalysis, analyze_samples, fixed_samples, prompted_samples
from minigpt.runs.folder import RunFolder
from minigpt.runs.snapshot import RunSnapshot
from minigpt.runtime import detect_runtime, is_out_of_memory
from minigpt.text_utils import escape_control

Progress = Callable[[str, int, int], None]
Found = TypeVar("Found")


class Attempt(Protocol):
    """Reads something, and notes why it failed."""

    def __call__(self, read: Callable[[], Found], otherwise: Found, what: str, named: bool = False) -> Found:
        """Returns what `read` returns, or `otherwise` if it raises a MiniGPTError or memory is short.

        Args:
            read: what reads it.
            otherwise: what to return if that fails.
            what: how the note begins.
            named: whether the user asked for it by name: a MiniGPTError is raised then.
        """


LABEL_LENGTH = 28
OPTIONS = "--no-evaluate, --no-samples"

UNREAD = {
    "records": "No curves",
    "data": "No information about the data",
    "environment": "No information about the machine",
    "origin": "No information about the initial weights",
}
"""What a report lacks if a file of the run cannot be read."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report contains.

    Attributes:
        data: the data set to evaluate on; each run's own if None.
        checkpoint: the checkpoint to evaluate: `best`, `latest` or a step number.
        evaluate: whether to evaluate at all.
        samples: whether to show samples.
        prompts: the reader's own prompts, in addition to the fixed ones; in a comparison, only the latest checkpoints
            continue them.
        machine: device and precision of the evaluation; by default those of the run.
    """

    data: Path | None = None
    checkpoint: str = "best"
    evaluate: bool = True
    samples: bool = True
    prompts: tuple[str, ...] = ()
    machine: MachineConfig = field(default_factory=MachineConfig)


def collect_facts(
    paths: Sequence[Path | str], options: ReportOptions, on_progress: Progress = lambda phase, done, total: None
) -> list[RunFacts]:
    """Returns what is known of each run.

    Raises:
        MiniGPTError: if a folder is not a run, or what was asked for by name is missing.
    """
    folders = [RunFolder.open(path) for path in paths]
    asked = options.machine
    if (asked.device, asked.precision) != ("auto", "auto"):
        detect_runtime(asked.device, asked.precision)  # raises now what would look like missing metrics later
    several = len(folders) > 1
    return [
        _gather(folder, label, options, on_progress, several=several)
        for folder, label in zip(folders, _labels(folders), strict=True)
    ]


def _gather(folder: RunFolder, label: str, options: ReportOptions, on_progress: Progress, *, several: bool) -> RunFacts:
    missing: list[str] = []

    def attempt(read: Callable[[], Found], otherwise: Found, what: str, named: bool = False) -> Found:
        try:
            return read()
        except MiniGPTError as error:
            if named:
                raise
            missing.append(_explain(error, what))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            missing.append(f"{what}: not enough memory. Try --device cpu, or omit it: {OPTIONS}.")
        return otherwise

    run = RunSnapshot.read(folder, options.data)
    missing += [_explain(error, UNREAD[name]) for name, error in run.errors.items()]
    nothing: tuple[Evaluation | None, bool] = (None, False)
    evaluation, unseen = nothing
    if options.evaluate:
        evaluation, unseen = attempt(
            lambda: _evaluation(run, options, missing.append, on_progress),
            nothing,
            "No evaluation",
            named=options.data is not None or options.checkpoint != "best",
        )
    diagnosis: Diagnosis | None = None
    if run.data["splits"]:  # else it was imported, and there is no training to look at
        diagnosis = attempt(lambda: _diagnosis(run), diagnosis, "No diagnosis")
    return RunFacts(
        **{each.name: getattr(run, each.name) for each in fields(RunSnapshot)},
        label=label,
        prepared=run.dataset_card,
        evaluation=evaluation,
        unseen=unseen,
        sampled=_sampled(run, options, attempt, on_progress, several=several) if options.samples else SampleAnalysis(),
        diagnosis=diagnosis,
        missing=tuple(missing),
        places=placeholders(folder, (run.data["folder"], options.data), run.dataset_card, run.origin),
    )


def _explain(error: MiniGPTError, what: str) -> str:
    """Returns an error as a sentence that begins with what it means for the report."""
    got = "" if error.got is None else f" ({error.got})"
    return f"{what}: {error.what}{got}. {error.remedy}"


def _evaluation(
    run: RunSnapshot, options: ReportOptions, note: Callable[[str], None], on_progress: Progress
) -> tuple[Evaluation | None, bool]:
    """Returns the evaluation, and whether it is of the validation split held out from the run's training."""
    splits = run.data["splits"]
    known = [splits[name]["sha256"] if splits else None for name in ("train", "val")]
    try:
        dataset = run.dataset()
    except (DataError, TokenizerError) as error:
        kept = None if options.data else last_evaluation(run, options.checkpoint)
        if kept is None:
            raise
        note(_explain(error, "Not evaluated again, the metrics are from an earlier report"))
        return kept, True
    evaluation = cached_evaluation(run, options.checkpoint, dataset, options.machine, on_progress)
    return evaluation, known == [dataset.train.sha256, dataset.val.sha256]


def _sampled(
    run: RunSnapshot, options: ReportOptions, attempt: Attempt, on_progress: Progress, *, several: bool
) -> SampleAnalysis:
    """Returns the samples of a run, with their metrics if its training text is there.

    In a comparison, only the latest checkpoints continue the reader's own prompts.
    """
    none: list[SampleRecord] = []
    notes: dict[str, tuple[str, ...]] = {}
    kept = attempt(lambda: fixed_samples(run.folder, options.machine, on_progress), none, "No samples")
    if options.prompts:
        asked = options.prompts, "latest" if several else "all"
        own = attempt(
            lambda: prompted_samples(run.folder, *asked, options.machine, on_progress),
            none,
            "No samples of your prompts",
        )
        kept = list(dict.fromkeys([*kept, *own]))
        tokenizer, context = run.folder.tokenizer(), run.config.model.block_size
        notes = {prompt: tuple(prompt_notes(tokenizer, prompt, context).values()) for prompt in {o.prompt for o in own}}
    if not kept:
        return SampleAnalysis()
    analysis = attempt(
        lambda: analyze_samples(kept, run.training_data(), on_progress),
        SampleAnalysis(kept),
        "No metrics of the samples",
    )
    return replace(analysis, prompt_notes=notes)


def _diagnosis(run: RunSnapshot) -> Diagnosis:
    """Returns the doctor's diagnosis. Errors as `RunSnapshot.check`."""
    evidence = evidence_of(run)
    evidence.run = run.folder.path.absolute()  # so that every command of the page names it alike
    return diagnose(evidence)


def _labels(folders: Sequence[RunFolder]) -> list[str]:
    """Returns a name for each run: its folder's, with the parent's before it if two have the same name."""
    short, long = ([escape_control(name)[:LABEL_LENGTH] for name in names] for names in _names(folders))
    labels = [name if short.count(name) == 1 else longer for name, longer in zip(short, long, strict=True)]
    again: Counter[str] = Counter()
    for place, label in enumerate(labels):
        again[label] += 1
        if again[label] > 1:
            labels[place] = f"{label} ({again[label]})"
    return [f"./{label}" if label.startswith("_") else label for label in labels]  # matplotlib hides such names


def _names(folders: Sequence[RunFolder]) -> tuple[list[str], list[str]]:
    names = [folder.name for folder in folders]
    return names, [f"{folder.path.absolute().parent.name}/{name}" for folder, name in zip(folders, names, strict=True)]
