"""Everything that is known of runs, read from their folders and measured where that is asked for.

What is missing or damaged stops no report: it is left out, and a sentence says so. Not here: what is made of it
(plots.py, and the files of sections).
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
from minigpt.report.cache import measured, remembered
from minigpt.report.commands_section import placeholders
from minigpt.report.facts import RunFacts
from minigpt.report.sample_analysis import SampleAnalysis, analyze_samples, fixed_samples, prompted_samples
from minigpt.runs.folder import RunFolder
from minigpt.runs.snapshot import RunSnapshot
from minigpt.runtime import detect_runtime, is_out_of_memory
from minigpt.text_utils import escape_control

Progress = Callable[[str, int, int], None]
Found = TypeVar("Found")


class Tried(Protocol):
    """What tries to read something, and notes why there is none."""

    def __call__(self, read: Callable[[], Found], otherwise: Found, what: str, named: bool = False) -> Found:
        """Returns what `read` returns, or `otherwise` if it raises a MiniGPTError or memory is short.

        Args:
            read: what reads it.
            otherwise: what stands for it.
            what: how the note begins.
            named: whether it was asked for by name: a MiniGPTError is raised then.
        """


LABEL_LENGTH = 28
LEFT_OUT = "--no-evaluate, --no-samples"

UNREAD = {
    "records": "No curves",
    "data": "Nothing is known of the data",
    "environment": "Nothing is known of the machine",
    "origin": "Nothing is known of the first weights",
}
"""What a report lacks if a file of the run cannot be read."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report is to hold.

    Attributes:
        data: the data set to measure on; each run's own if None.
        checkpoint: `best`, `latest` or a step number: what is measured.
        evaluate: whether to measure at all.
        samples: whether to tell what the models said.
        prompts: the reader's own, continued beside the fixed ones; of several runs by the latest checkpoints only.
        machine: device and precision of the measuring; those of the run when left out.
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
        MiniGPTError: if one is no run, or lacks what was asked for by name.
    """
    folders = [RunFolder.open(path) for path in paths]
    asked = options.machine
    if (asked.device, asked.precision) != ("auto", "auto"):
        detect_runtime(asked.device, asked.precision)  # raises now what would pass for a lack of figures later
    several = len(folders) > 1
    return [
        _gather(folder, label, options, on_progress, several=several)
        for folder, label in zip(folders, _labels(folders), strict=True)
    ]


def _gather(folder: RunFolder, label: str, options: ReportOptions, on_progress: Progress, *, several: bool) -> RunFacts:
    missing: list[str] = []

    def tried(read: Callable[[], Found], otherwise: Found, what: str, named: bool = False) -> Found:
        try:
            return read()
        except MiniGPTError as error:
            if named:
                raise
            missing.append(_told(error, what))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            missing.append(f"{what}: there is not enough memory. Try --device cpu, or leave it out: {LEFT_OUT}.")
        return otherwise

    run = RunSnapshot.read(folder, options.data)
    missing += [_told(error, UNREAD[name]) for name, error in run.errors.items()]
    nothing: tuple[Evaluation | None, bool] = (None, False)
    evaluation, unseen = nothing
    if options.evaluate:
        evaluation, unseen = tried(
            lambda: _measured(run, options, missing.append, on_progress),
            nothing,
            "Nothing was measured",
            named=options.data is not None or options.checkpoint != "best",
        )
    diagnosis: Diagnosis | None = None
    if run.data["splits"]:  # else it was imported, and there is no training to look at
        diagnosis = tried(lambda: _diagnosis(run), diagnosis, "No diagnosis")
    return RunFacts(
        **{each.name: getattr(run, each.name) for each in fields(RunSnapshot)},
        label=label,
        prepared=run.dataset_card,
        evaluation=evaluation,
        unseen=unseen,
        sampled=_sampled(run, options, tried, on_progress, several=several) if options.samples else SampleAnalysis(),
        diagnosis=diagnosis,
        missing=tuple(missing),
        places=placeholders(folder, (run.data["folder"], options.data), run.dataset_card, run.origin),
    )


def _told(error: MiniGPTError, what: str) -> str:
    """Returns an error as a sentence that begins with what it means for the report."""
    seen = "" if error.got is None else f" ({error.got})"
    return f"{what}: {error.what}{seen}. {error.remedy}"


def _measured(
    run: RunSnapshot, options: ReportOptions, note: Callable[[str], None], on_progress: Progress
) -> tuple[Evaluation | None, bool]:
    """Returns the figures, and whether they are of the validation split that belongs to the run's training text."""
    splits = run.data["splits"]
    known = [splits[name]["sha256"] if splits else None for name in ("train", "val")]
    try:
        dataset = run.dataset()
    except (DataError, TokenizerError) as error:
        kept = None if options.data else remembered(run, options.checkpoint)
        if kept is None:
            raise
        note(_told(error, "Nothing was measured anew, the figures are those kept from before"))
        return kept, True
    evaluation = measured(run, options.checkpoint, dataset, options.machine, on_progress)
    return evaluation, known == [dataset.train.sha256, dataset.val.sha256]


def _sampled(
    run: RunSnapshot, options: ReportOptions, tried: Tried, on_progress: Progress, *, several: bool
) -> SampleAnalysis:
    """Returns what a run wrote; the figures of that need the text that it was trained on.

    Of several runs only what the latest checkpoints make of the reader's own prompts is shown, and so made.
    """
    none: list[SampleRecord] = []
    notes: dict[str, tuple[str, ...]] = {}
    kept = tried(lambda: fixed_samples(run.folder, options.machine, on_progress), none, "No samples")
    if options.prompts:
        asked = options.prompts, "latest" if several else "all"
        own = tried(lambda: prompted_samples(run.folder, *asked, options.machine, on_progress), none, "No own samples")
        kept = list(dict.fromkeys([*kept, *own]))
        tokenizer, context = run.folder.tokenizer(), run.config.model.block_size
        notes = {prompt: tuple(prompt_notes(tokenizer, prompt, context).values()) for prompt in {o.prompt for o in own}}
    if not kept:
        return SampleAnalysis()
    analysis = tried(
        lambda: analyze_samples(kept, run.training_data(), on_progress),
        SampleAnalysis(kept),
        "No figures of the samples",
    )
    return replace(analysis, prompt_notes=notes)


def _diagnosis(run: RunSnapshot) -> Diagnosis:
    """Returns what the doctor says. Errors as `RunSnapshot.check`."""
    evidence = evidence_of(run)
    evidence.run = run.folder.path.absolute()  # so that every command of the page names it alike
    return diagnose(evidence)


def _labels(folders: Sequence[RunFolder]) -> list[str]:
    """Returns a name for each run: its folder's, with the parent's before it where two are called the same."""
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
