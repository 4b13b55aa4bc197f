"""The evaluation of a run, cached in RUN/evaluation.json, so that a second report does not repeat it.

The cache is used only if weights, model, tokens, device, precision and program are the same or, if the text is gone, if
weights and tokens are. What cannot be read is evaluated again; what cannot be written is not cached. Of more than
`MANY_DOCUMENTS` documents, only the easiest and hardest keep their names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from minigpt import __version__
from minigpt.atomic import write_file
from minigpt.config import MachineConfig
from minigpt.data import Dataset
from minigpt.evaluation import Evaluation, evaluate
from minigpt.evaluation.metrics import VERSION, Bucket, EvalMetrics
from minigpt.files import read_json
from minigpt.runs.checkpoint import STATE
from minigpt.runs.folder import MODEL
from minigpt.runs.snapshot import RunSnapshot
from minigpt.runtime import restore_runtime
from minigpt.schema import validate

Progress = Callable[[str, int, int], None]

EXTREMES = 5
"""How many of the easiest, and of the hardest, documents the report names."""

MANY_DOCUMENTS = 1_000


def cached_evaluation(
    run: RunSnapshot, checkpoint: str, dataset: Dataset, settings: MachineConfig, on_progress: Progress
) -> Evaluation:
    """Returns the evaluation of a run's model on the validation split, from the cache or else made now and cached.

    Raises:
        MiniGPTError: if the checkpoint is missing or damaged, or the data does not fit.
    """
    folder, place = run.folder, run.folder.find_checkpoint(checkpoint)
    step = folder.checkpoint_step(place)  # `best` may change while the run is in training
    machine = restore_runtime(folder.environment(), settings)
    made_of = {
        "program": __version__,
        "metrics": VERSION,
        "torch": str(torch.__version__),
        "step": step,
        **_model(run, place),
        "train": dataset.train.sha256,
        "val": dataset.val.sha256,
        "device": str(machine.device),
        "precision": machine.precision,
    }
    kept = _read(folder.evaluation_file, made_of)
    if kept is not None:
        run.verify(place)
        return kept
    found = evaluate(folder.path, data=dataset, checkpoint=str(step), machine=settings, on_progress=on_progress)
    found = replace(found, metrics=_shorter(found.metrics))
    if made_of["weights"] and found.metrics.by_frequency is not None:  # otherwise a later one may be complete
        plain = asdict(found)
        plain["metrics"]["by_document"] = [list(document.values()) for document in plain["metrics"]["by_document"]]
        with suppress(OSError):  # a read-only folder is evaluated each time
            write_file(folder.evaluation_file, json.dumps({"made_of": made_of, "evaluation": plain}))
    return found


def last_evaluation(run: RunSnapshot, checkpoint: str) -> Evaluation | None:
    """Returns the cached evaluation of a run's model whose text is gone, of any machine and program; None if none.

    Args:
        run: the run.
        checkpoint: `best`, `latest` or a step.

    Raises:
        CheckpointError: if the checkpoint is missing or damaged.
    """
    place, splits = run.folder.find_checkpoint(checkpoint), run.data["splits"]
    made_of = {"metrics": VERSION, "step": run.folder.checkpoint_step(place), **_model(run, place)}
    made_of |= {name: splits[name]["sha256"] for name in splits}
    kept = _read(run.folder.evaluation_file, made_of) if splits else None
    if kept is not None:
        run.verify(place)
    return kept


def _model(run: RunSnapshot, place: Path) -> dict[str, Any]:
    return {"model": asdict(run.config.model), "weights": _sums(place).get(f"{MODEL}.safetensors")}


def _shorter(found: EvalMetrics) -> EvalMetrics:
    """Returns metrics without the names of most documents, if there are many."""
    documents = found.by_document
    if len(documents) <= MANY_DOCUMENTS:
        return found
    ranked = sorted(range(len(documents)), key=lambda place: documents[place].loss)
    named = {*ranked[:EXTREMES], *ranked[-EXTREMES:]}
    return replace(
        found,
        by_document=tuple(
            Bucket(
                one.name if place in named else "",
                one.tokens,
                round(one.loss, 5),
                round(one.accuracy, 5),
                None if one.bigram is None else round(one.bigram, 5),
                one.beginning if place in named else "",
            )
            for place, one in enumerate(documents)
        ),
    )


def _sums(place: Path) -> dict[str, Any]:
    """Returns the checksums that a checkpoint states for its files."""
    try:
        return dict(read_json(place / STATE)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class _Kept(TypedDict):
    made_of: dict[str, Any]
    evaluation: dict[str, Any]


def _read(file: Path, made_of: dict[str, Any]) -> Evaluation | None:
    """Returns the cached evaluation, if it was made of the same things."""
    try:
        content = validate(_Kept, read_json(file))
        if not made_of["weights"] or {name: content["made_of"].get(name) for name in made_of} != made_of:
            return None
        figures, names = content["evaluation"]["metrics"], [each.name for each in fields(Bucket)]
        documents = [dict(zip(names, values, strict=True)) for values in figures["by_document"]]
        found = validate(Evaluation, {**content["evaluation"], "metrics": {**figures, "by_document": documents}})
        _check(found.metrics)
        return found
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _check(found: EvalMetrics) -> None:
    """Raises ValueError for metrics of no tokens, or of another number of documents than stated."""
    groups = (*found.by_context, *(found.by_frequency or ()), *found.by_document)
    parts = (found.calibration, found.by_context, found.by_frequency, found.by_document)
    if not (found.tokens and found.bytes_per_token and all(parts) and all(group.tokens for group in groups)):
        raise ValueError("metrics of no tokens")
    if "uniform" not in found.baselines or len(found.by_document) != found.documents:
        raise ValueError("documents are missing")
