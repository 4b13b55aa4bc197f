"""`evaluate`: a run's model on a text, from opening both to the figures.

Read downwards: the text, the model's pass over it, the yardsticks, the figures, and what the reader should know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minigpt.config import MachineConfig
from minigpt.data import Dataset, TokenFile
from minigpt.data.contamination import WINDOW, contamination
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.evaluation.baselines import Baselines, baselines
from minigpt.evaluation.eval_text import EvalText, joined, split_material, text_material
from minigpt.evaluation.metrics import FEW_DOCUMENTS, Estimate, EvalMetrics, eval_metrics
from minigpt.evaluation.scores import Scores, score
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder, load_model
from minigpt.runtime import restore_runtime
from minigpt.source_options import DEFAULT_SOURCE_OPTIONS, SourceOptions
from minigpt.text_utils import pluralize

Progress = Callable[[str, int, int], None]
Split = Literal["val", "train", "all"]

NOTEWORTHY = 0.01
"""A text of which a larger share stands in the training text is said to be no fair test."""

IN_TRAINING = "The run itself measured a validation loss of"
"""What a note begins with that says why the evaluation gives another one."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of a run, and how they came about.

    Attributes:
        run: the run folder.
        step: the checkpoint's.
        text: what was predicted: `the val split of data/books`, `all of data/letters`, or the texts' names.
        precision: number format of the matrix products.
        block_size: tokens in a window.
        stride: tokens from one window to the next.
        figures: the figures.
        notes: what the reader should know, as sentences.
    """

    run: str
    step: int
    text: str
    precision: str
    block_size: int
    stride: int
    metrics: EvalMetrics
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, for JSON: figures by name, their 95 % intervals in `intervals`."""
        content = {name: value for name, value in vars(self).items() if name != "metrics"}
        intervals: dict[str, tuple[float, float] | None] = {}
        for name, value in vars(self.metrics).items():
            if isinstance(value, Estimate):
                content[name], intervals[name] = value.value, value.interval
            elif name == "yardsticks":
                content[name] = {which: asdict(estimate) for which, estimate in value.items()}
            elif isinstance(value, tuple):
                content[name] = [asdict(part) for part in value]
            else:
                content[name] = value
        plain: dict[str, Any] = _finite({**content, "intervals": intervals})
        return plain


def evaluate(
    run: Path | str,
    *,
    data: Path | str | Dataset | None = None,
    texts: Sequence[str] = (),
    reading: SourceOptions = DEFAULT_SOURCE_OPTIONS,
    split: Split = "val",
    stride: int | None = None,
    checkpoint: str = "best",
    batch_size: int = 8,
    machine: MachineConfig | None = None,
    on_progress: Progress = lambda phase, done, total: None,
) -> Evaluation:
    """Measures how well a run's model predicts a text. Without chance: the same input gives the same figures.

    Args:
        run: the run folder.
        data: a data set made with the run's tokenizer, open or its folder; the one it was trained on when left out.
        texts: files, folders or other sources of text to measure on, instead of a data set.
        reading: how the texts are read.
        split: which part of the data set; `all` is both, for text that the model was not trained on.
        stride: tokens from one window to the next, 1 to block_size; block_size when left out.
        checkpoint: `best` (lowest validation loss), `latest`, or a step number.
        batch_size: windows at once.
        machine: device and precision; those of the run when left out.
        on_progress: called with what is being done, how much is done, and how much there is.

    Raises:
        MiniGPTError: if something is missing, damaged or out of range, or another tokenizer made the data.
    """
    if data is not None and texts:
        raise ConfigError("Measure on a data set or on texts, not on both", got=data, remedy="Leave one out.")
    folder = RunFolder.open(run)
    tokenizer = folder.tokenizer()
    if isinstance(data, Dataset):
        folder.check_tokenizer(data.tokenizer)
        dataset: Dataset | None = data
    else:
        dataset = None if texts else folder.open_data(data)
    if dataset is None:
        material, text = text_material(texts, tokenizer, reading), ", ".join(texts)
    else:
        material = _material(dataset, split)
        text = f"all of {dataset.folder}" if split == "all" else f"the {split} split of {dataset.folder}"

    chosen = restore_runtime(folder.environment(), machine or MachineConfig())
    config, place = folder.config(), folder.find_checkpoint(checkpoint)
    model = load_model(config, place, chosen.device)
    scores = score(
        model,
        material,
        chosen,
        stride=stride,
        batch_size=batch_size,
        on_progress=lambda done, total: on_progress("predicting", done, total),
    )
    train, reason = _training_split(folder, dataset)
    simple = _simple_models(train, material, scores, on_progress) if train else None
    on_progress("resampling", 0, 1)
    found = eval_metrics(material, scores, simple)
    on_progress("resampling", 1, 1)
    own = dataset is not None and train is not None and dataset.train.sha256 == train.sha256
    seen = _seen(train, material, on_progress) if train and not own else 0.0
    notes = list(_notes(found, material, scores, reason, split if own else "val", seen))
    step, stride = folder.checkpoint_step(place), config.model.block_size if stride is None else stride
    if dataset is not None and split == "val" and stride == config.model.block_size:
        notes += _beside_training(folder, dataset, step, found.loss.value, chosen.precision)
    return Evaluation(
        run=str(run),
        step=step,
        text=text,
        precision=chosen.precision,
        block_size=config.model.block_size,
        stride=stride,
        metrics=found,
        notes=tuple(notes),
    )


def _material(dataset: Dataset, split: Split) -> EvalText:
    shards = {"val": (dataset.val,), "train": (dataset.train,), "all": (dataset.val, dataset.train)}[split]
    return joined([split_material(shard, dataset.tokenizer, dataset.documents(shard)) for shard in shards])


def _training_split(folder: RunFolder, dataset: Dataset | None) -> tuple[TokenFile | None, str]:
    """Returns the split that the run was trained on, or why it is not at hand."""
    try:
        known = folder.data()
        sha256 = known["splits"]["train"]["sha256"]
        if dataset is None or dataset.train.sha256 != sha256:
            dataset = folder.open_data()
        if dataset.train.sha256 == sha256:
            return dataset.train, ""
        return None, f"{known['folder']} holds other data now"
    except (MiniGPTError, KeyError, TypeError) as error:
        return None, f"{error.what}: {error.got}" if isinstance(error, MiniGPTError) else "the run does not name it"


def _simple_models(train: TokenFile, material: EvalText, scores: Scores, on_progress: Progress) -> Baselines:
    targets, previous = (material.tokens[scores.places - back].astype(np.int64) for back in (0, 1))
    return baselines(train, previous, targets, lambda done, total: on_progress("counting", done, total))


def _seen(train: TokenFile, material: EvalText, on_progress: Progress) -> float:
    """Returns the share of a text's passages that stand in the training text; what `prepare` tells of its own split."""
    return contamination(train, material.tokens, lambda done: on_progress("comparing", done, train.n_tokens))[0]


def _notes(found: EvalMetrics, material: EvalText, scores: Scores, reason: str, own: Split, seen: float) -> list[str]:
    notes = []
    if reason:
        notes.append(f"No unigram, bigram or token frequency: the training data is not at hand ({reason}).")
    if own != "val":
        which = "This is the training split" if own == "train" else "The training split is in it"
        notes.append(f"{which}: the model, the unigram and the bigram have all seen that.")
    if seen >= NOTEWORTHY:
        notes.append(
            f"{seen:.0%} of the text's passages of {WINDOW} tokens stand in the training text: of them the figures say "
            "how well the model remembers, not how well it predicts."
        )
    if found.interval_from is None:
        notes.append("The text is one document and too short for an interval.")
    elif found.documents == 1:
        notes.append(f"The intervals come from {found.interval_from}, and say nothing about other documents.")
    elif found.documents < FEW_DOCUMENTS:
        notes.append(f"Intervals from only {found.documents} documents are rough, and too narrow.")
    notes += material.notes
    if material.segment_length:
        notes.append("The split was drawn by sequences, not by documents: the intervals are too narrow.")
    unknown = material.tokenizer.unknown
    if unknown is not None and (count := int((material.tokens[scores.places] == unknown).sum())):
        lacking = pluralize(count, "character")
        notes.append(f"The vocabulary lacks {lacking} of the text; predicting 'unknown' is easier than they are.")
    return notes


def _beside_training(folder: RunFolder, dataset: Dataset, step: int, loss: float, precision: str) -> Iterator[str]:
    """Yields why the run's own validation at this step, of the same text, gave another loss, if it did."""
    with suppress(MiniGPTError, KeyError, TypeError):
        if folder.data()["splits"]["val"]["sha256"] == dataset.val.sha256:
            records = read_metrics(folder.metrics_file, "validation")
            then = next((record.get("val_loss") for record in records if record["step"] == step), None)
            if isinstance(then, float) and f"{then:.4f}" != f"{loss:.4f}":
                before = folder.environment()["precision"]
                there, here = (f", in {before}", f", in {precision}") if before != precision else ("", "")
                why = "" if there else ": the last digits depend on the machine and its software"
                yield f"{IN_TRAINING} {then:.4f} at step {step:,}{there}; the evaluation gives {loss:.4f}{here}{why}."


def _finite(value: Any) -> Any:
    """Returns plain values with None for what JSON cannot say: infinity, and not a number."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
