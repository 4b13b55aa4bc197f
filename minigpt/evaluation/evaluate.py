"""`evaluate`: how well a run's model predicts a text.

From top to bottom: the text, the model's pass over it, the baselines, the metrics, and notes for the reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from minigpt.config import MachineConfig
from minigpt.data import Dataset, TokenFile
from minigpt.data.contamination import WINDOW, contamination
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.evaluation.baselines import Baselines, baselines
from minigpt.evaluation.eval_text import EvalText, join, text_of_sources, text_of_split
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
"""If a larger share of the text also occurs in the training text, a note says so."""

IN_TRAINING = "The run itself measured a validation loss of"
"""The beginning of a note that explains why the evaluation gives another one."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a run, and how they were measured.

    Attributes:
        run: the run folder.
        step: the checkpoint's step.
        text: what was predicted: `the val split of data/books`, `all of data/letters`, or the names of the texts.
        precision: number format of the matrix products.
        block_size: tokens in a window.
        stride: tokens from one window to the next.
        metrics: the metrics.
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
        """Returns everything as plain values, for JSON: metrics by name, their 95 % intervals under `intervals`."""
        content = {**vars(self), **vars(self.metrics)}
        del content["metrics"]
        estimates = {name: value for name, value in content.items() if isinstance(value, Estimate)}
        content |= {name: estimate.value for name, estimate in estimates.items()}
        content["intervals"] = {name: estimate.interval for name, estimate in estimates.items()}
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(content))  # infinity and NaN become None
        return plain


def evaluate(
    run: Path | str,
    *,
    data: Path | str | Dataset | None = None,
    texts: Sequence[str] = (),
    source_options: SourceOptions = DEFAULT_SOURCE_OPTIONS,
    split: Split | None = None,
    stride: int | None = None,
    checkpoint: str = "best",
    batch_size: int = 8,
    machine: MachineConfig | None = None,
    on_progress: Progress = lambda phase, done, total: None,
) -> Evaluation:
    """Measures how well a run's model predicts a text. Deterministic: nothing is sampled.

    Args:
        run: the run folder.
        data: a data set made with the run's tokenizer, open or its folder; by default the one it was trained on.
        texts: files, folders or other sources of text to evaluate on, instead of a data set.
        source_options: how the texts are read.
        split: which part of the data set, by default `val`; `all` is both, for text that the model was not trained on.
        stride: tokens from one window to the next, 1 to block_size, the default.
        checkpoint: `best` (lowest validation loss), `latest`, or a step number.
        batch_size: windows per forward pass.
        machine: device, precision and threads; by default those of the run.
        on_progress: called with the phase, and how much of it is done and in all.

    Raises:
        MiniGPTError: if something is missing, damaged or out of range, or the data was made with another tokenizer.
    """
    if texts and data is not None:
        raise ConfigError("A data set and texts cannot be evaluated together", got=data, remedy="Omit one of them.")
    if texts and split is not None:
        raise ConfigError("Texts have no splits", got=f"split {split}", remedy="Omit the split; texts are read whole.")
    split = split or "val"
    folder = RunFolder.open(run)
    tokenizer = folder.tokenizer()
    if isinstance(data, Dataset):
        folder.check_tokenizer(data.tokenizer)
        dataset: Dataset | None = data
    else:
        dataset = None if texts else folder.open_data(data)
    if dataset is None:
        text, description = text_of_sources(texts, tokenizer, source_options), ", ".join(texts)
    else:
        text = _text_of(dataset, split)
        description = f"all of {dataset.folder}" if split == "all" else f"the {split} split of {dataset.folder}"

    runtime = restore_runtime(folder.environment(), machine or MachineConfig())
    config, weights = folder.config(), folder.find_checkpoint(checkpoint)
    scores = score(
        load_model(config, weights, runtime.device),
        text,
        runtime,
        stride=stride,
        batch_size=batch_size,
        on_progress=lambda done, total: on_progress("predicting", done, total),
    )
    train, missing = _training_split(folder, dataset)
    simple = _baselines(train, text, scores, on_progress) if train else None
    on_progress("resampling", 0, 1)
    metrics = eval_metrics(text, scores, simple)
    on_progress("resampling", 1, 1)
    own = dataset is not None and train is not None and dataset.train.sha256 == train.sha256
    known = _known_share(train, text, on_progress) if train and not own else 0.0
    notes = list(_notes(metrics, text, scores, missing, split if own else "val", known))
    step, stride = folder.checkpoint_step(weights), config.model.block_size if stride is None else stride
    if dataset is not None and split == "val" and stride == config.model.block_size:
        notes += _difference_to_training(folder, dataset, step, metrics.loss.value, runtime.precision)
    return Evaluation(
        run=str(run),
        step=step,
        text=description,
        precision=runtime.precision,
        block_size=config.model.block_size,
        stride=stride,
        metrics=metrics,
        notes=tuple(notes),
    )


def _text_of(dataset: Dataset, split: Split) -> EvalText:
    splits = {"val": (dataset.val,), "train": (dataset.train,), "all": (dataset.val, dataset.train)}[split]
    return join([text_of_split(each, dataset.tokenizer, dataset.documents(each)) for each in splits])


def _training_split(folder: RunFolder, dataset: Dataset | None) -> tuple[TokenFile | None, str]:
    """Returns the split that the run was trained on, or why it is not available."""
    try:
        known = folder.data()
        sha256 = known["splits"]["train"]["sha256"]
        if dataset is None or dataset.train.sha256 != sha256:
            dataset = folder.open_data()
        if dataset.train.sha256 == sha256:
            return dataset.train, ""
        return None, f"{known['folder']} contains other data now"
    except (MiniGPTError, KeyError, TypeError) as error:
        return None, f"{error.what}: {error.got}" if isinstance(error, MiniGPTError) else "the run does not name it"


def _baselines(train: TokenFile, text: EvalText, scores: Scores, on_progress: Progress) -> Baselines:
    targets, previous = (text.tokens[scores.positions - back].astype(np.int64) for back in (0, 1))
    return baselines(train, previous, targets, lambda done, total: on_progress("counting", done, total))


def _known_share(train: TokenFile, text: EvalText, on_progress: Progress) -> float:
    """Returns the share of a text's passages that also occur in the training text."""
    return contamination(train, text.tokens, lambda done: on_progress("comparing", done, train.n_tokens))[0]


def _notes(
    metrics: EvalMetrics, text: EvalText, scores: Scores, missing: str, own_split: Split, known_share: float
) -> Iterator[str]:
    """Yields what the reader should know.

    Args:
        metrics, text, scores: the evaluation.
        missing: why the training data is not available, or nothing.
        own_split: which split of the training data the text is, `val` also for any other text.
        known_share: the share of passages that also occur in the training text.
    """
    if missing:
        yield f"No unigram, bigram or token frequency: the training data is not available ({missing})."
    if own_split != "val":
        which = "This is the training split" if own_split == "train" else "This includes the training split"
        yield f"{which}: the model and both baselines were made from it."
    if known_share >= NOTEWORTHY:
        yield (
            f"{known_share:.0%} of the text's passages of {WINDOW} tokens also occur in the training text: there the "
            "results show how well the model remembers, not how well it predicts."
        )
    if metrics.interval_from is None:
        yield "The text is a single document and too short for intervals."
    elif metrics.documents == 1:
        yield f"The intervals are from {metrics.interval_from}, and do not apply to other documents."
    elif metrics.documents < FEW_DOCUMENTS:
        yield f"Intervals from only {metrics.documents} documents are rough, and too narrow."
    yield from text.notes
    if text.segment_length:
        yield "The data was split by sequences, not by documents: the intervals are too narrow."
    unknown = text.tokenizer.unknown
    if unknown is not None and (count := int((text.tokens[scores.positions] == unknown).sum())):
        yield (
            f"{pluralize(count, 'character')} of the text {'is' if count == 1 else 'are'} not in the vocabulary; "
            "predicting 'unknown' is easier."
        )


def _difference_to_training(
    folder: RunFolder, dataset: Dataset, step: int, loss: float, precision: str
) -> Iterator[str]:
    """Yields why the run's own validation at this step, of the same text, gave another loss, if it did."""
    with suppress(MiniGPTError, KeyError, TypeError):
        if folder.data()["splits"]["val"]["sha256"] == dataset.val.sha256:
            records = read_metrics(folder.metrics_file, "validation")
            then = next((record.get("val_loss") for record in records if record["step"] == step), None)
            if isinstance(then, float) and f"{then:.4f}" != f"{loss:.4f}":
                before, why = folder.environment()["precision"], ""
                if before == precision:
                    why = ": rounding depends on the machine and its software"
                    if precision != "float32":
                        why = f": training and evaluation round differently in {precision}"
                there, here = (f", in {before}", f", in {precision}") if before != precision else ("", "")
                yield f"{IN_TRAINING} {then:.4f} at step {step:,}{there}; the evaluation gives {loss:.4f}{here}{why}."
