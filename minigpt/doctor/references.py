"""Reference curves: the loss that a healthy run of a preset has at each point, made by real runs.

references.json beside this file holds them, a few dozen points each; `benchmarks/reference_curves.py` makes it. A point
is the tokens trained on, the training loss there (the mean over the steps within 5 % of it) and the validation loss if
it was measured there. Whether a run's loss is normal is answered in reference_check.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.atomic import write_file
from minigpt.config import Config, preset_names, resolve
from minigpt.data.dataset import Fingerprint
from minigpt.data.dataset_card import DatasetCard
from minigpt.errors import MiniGPTError, RunError
from minigpt.intervals import Intervals
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder
from minigpt.text_utils import shell_line

FILE = Path(__file__).with_name("references.json")

POINTS = 48
"""So many points of a curve, evenly spaced in the logarithm of the tokens, beside the validations."""

NEAR = 0.05
"""Steps within this share of a point's tokens count for it, and points closer than this are one."""

NEAR_PRESET, NEAR_OPTIMIZER = 3.0, 10.0
"""A rate is far from the one that a preset was measured with beyond this factor; with another model, beyond the second:
ten times the rate of preset laptop did no harm."""

Point = tuple[int, float, float | None]


@dataclass(frozen=True)
class Reference:
    """A healthy run's curve.

    Attributes:
        preset: whose settings it was trained with, whole.
        corpus: the text's name.
        sha256, train_tokens: the training split's, which tell this text and tokenizer from any other.
        text_bytes: of both splits, which tell this text where another tokenizer or split made the tokens.
        tokenizer: what made the tokens.
        bytes_per_token: of the validation split.
        machine: what it ran on, for people.
        command: how it was made, for people.
        steps, total_steps: how far it went, and how long its schedule is.
        seed: decided its weights and order.
        points: tokens trained on, training loss, validation loss or None; losses in nats a token.
    """

    preset: str
    corpus: str
    sha256: str
    train_tokens: int
    text_bytes: int
    tokenizer: str
    bytes_per_token: float
    machine: str
    command: str
    steps: int
    total_steps: int
    seed: int
    points: tuple[Point, ...]

    def train_loss(self, tokens: float) -> float | None:
        """Returns the training loss after so many tokens; None outside of the curve."""
        return _between([(point[0], point[1]) for point in self.points], tokens)

    def val_loss(self, tokens: float) -> float | None:
        """Returns the validation loss after so many tokens; None outside of the curve."""
        return _between([(point[0], point[2]) for point in self.points if point[2] is not None], tokens)


def _between(points: Sequence[tuple[int, float]], tokens: float) -> float | None:
    """Returns the loss at `tokens` on straight lines over the logarithm of the tokens."""
    if not points or not points[0][0] <= tokens <= points[-1][0]:
        return None
    places, losses = zip(*points, strict=True)
    return float(np.interp(math.log(tokens), np.log(places), losses))


def read_references(file: Path = FILE) -> list[Reference]:
    """Returns the reference curves that are there."""
    if not file.exists():
        return []
    entries = json.loads(file.read_text("utf-8"))
    return [Reference(**{**entry, "points": tuple(tuple(point) for point in entry["points"])}) for entry in entries]


def write_references(references: Sequence[Reference], file: Path = FILE) -> None:
    """Writes the reference curves, in an order that does not depend on when they were made."""
    lines = [json.dumps(asdict(reference)) for reference in sorted(references, key=lambda r: (r.preset, r.corpus))]
    write_file(file, "[\n" + ",\n".join(lines) + "\n]\n")


def preset_of(config: Config) -> str | None:
    """Returns the preset whose model and training these settings are, but for length, seed and vocabulary."""
    return next((name for name in preset_names() if not differences(config, name)), None)


def nearest_preset(config: Config) -> str | None:
    """Returns the preset whose settings these are but for length, seed, vocabulary and learning rate."""
    return next((name for name in preset_names() if differences(config, name).keys() <= {"train.lr"}), None)


def differences(config: Config, preset: str) -> dict[str, tuple[Any, Any]]:
    """Returns the settings on which the loss depends and that are not a preset's: their values, and the preset's."""
    own, usual = _decisive(config), _decisive(resolve(preset))
    return {name: (own[name], usual[name]) for name in own if own[name] != usual[name]}


def usual_rate(config: Config) -> float | None:
    """Returns the learning rate of the nearest preset, if there is one."""
    name = nearest_preset(config)
    return resolve(name).train.lr if name else None


def lower_rate(config: Config) -> float:
    """Returns the rate to try where one is too high: the usual one from far above it, else a third."""
    lr, (usual, near) = config.train.lr, _known_rate(config)
    return usual if lr > near * usual else _two_digits(lr / 3)


def higher_rate(config: Config) -> float:
    """Returns the rate to try where one is too low: the usual one from far below it, else ten times as much."""
    lr, (usual, near) = config.train.lr, _known_rate(config)
    return usual if near * lr < usual else _two_digits(10 * lr)


def _known_rate(config: Config) -> tuple[float, float]:
    """Returns the rate of the nearest preset, or of one with the same optimizer, and how near to it is not far."""
    usual = usual_rate(config)
    if usual is not None:
        return usual, NEAR_PRESET
    presets = map(resolve, preset_names())
    return min(preset.train.lr for preset in presets if preset.optimizer.name == config.optimizer.name), NEAR_OPTIMIZER


def _two_digits(rate: float) -> float:
    """Returns a rate that a person would type."""
    return float(f"{rate:.2g}")


def _decisive(config: Config) -> dict[str, Any]:
    """Returns the settings on which the loss at each step depends, by their dotted names."""
    groups = config.to_dict()
    del groups["model"]["vocab_size"]
    groups["train"] = {name: groups["train"][name] for name in ("batch_size", "lr", "grad_clip")}
    del groups["schedule"]["max_warmup_ratio"]  # it cuts the warm-up of runs that are shorter than any reference
    del groups["machine"]
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


def collect(run: Path | str, corpus: str) -> Reference:
    """Returns a run's curve as a reference.

    Raises:
        RunError: if the run cannot be read, has other settings than every preset, began with another run's weights,
            or has not yet ten lines of metrics.
    """
    folder = RunFolder.open(run)
    config, data, environment = folder.config(), folder.data(), folder.environment()
    steps = read_metrics(folder.metrics_file, "step")
    preset = preset_of(config)
    if preset is None or folder.origin() or len(steps) < 10:
        raise RunError(
            "The run can be no reference",
            got=folder.path,
            remedy="It must be trained from scratch with a preset's settings, for at least ten lines of metrics.",
        )
    train, val = data["splits"]["train"], data["splits"]["val"]
    return Reference(
        preset=preset,
        corpus=corpus,
        sha256=train["sha256"],
        train_tokens=train["tokens"],
        text_bytes=train["text_bytes"] + val["text_bytes"],
        tokenizer=data["tokenizer"]["spec"],
        bytes_per_token=round(val["text_bytes"] / val["tokens"], 4),
        machine=f"{environment['processor']}, {environment['threads']} threads, {environment['precision']}, "
        f"torch {environment['torch']}, Mini-GPT {environment['minigpt']}",
        command=_command(config, data, preset, corpus),
        steps=steps[-1]["step"],
        total_steps=Intervals(config, train["tokens"], val["tokens"]).total_steps,
        seed=config.train.seed,
        points=tuple(_points(steps, read_metrics(folder.metrics_file, "validation"))),
    )


def _command(config: Config, data: Fingerprint, preset: str, corpus: str) -> str:
    """Returns the commands that make such a run, for whoever has the text in the folder they are called in."""
    sources, prepared = [corpus], ["--tokenizer", data["tokenizer"]["spec"]]
    try:
        report = DatasetCard.load(Path(data["folder"]))
    except MiniGPTError:
        pass  # the data set is gone: its usual options, then
    else:
        sources = [Path(source).name if Path(source).exists() else source for source in report.sources]
        for option, value, usual in (
            ("--val-fraction", report.val_fraction or 0.1, 0.1),
            ("--split-by", report.split_by, "document"),
            ("--seed", report.seed, 0),
        ):
            prepared += [] if value == usual else [option, str(value)]
        prepared += ["--val", *report.val_sources] if report.val_sources else []
    trained, usual_length = ["--preset", preset], resolve(preset).train
    for option, name in (("--steps", "steps"), ("--epochs", "epochs"), ("--train.seed", "seed")):
        value = getattr(config.train, name)
        trained += [] if value in (None, getattr(usual_length, name)) else [option, str(value)]
    return " && ".join(
        [
            shell_line(["minigpt", "prepare", *sources, *prepared, "--out", f"data/{corpus}"]),
            shell_line(["minigpt", "train", *trained, "--data", f"data/{corpus}", "--run", f"runs/{corpus}"]),
        ]
    )


def add(reference: Reference, file: Path = FILE) -> None:
    """Puts a reference into the file, in the place of the one of the same preset, corpus and tokenizer."""
    others = [
        other
        for other in read_references(file)
        if (other.preset, other.corpus, other.tokenizer) != (reference.preset, reference.corpus, reference.tokenizer)
    ]
    write_references([*others, reference], file)


def _points(steps: Sequence[dict[str, Any]], validations: Sequence[dict[str, Any]]) -> Iterator[Point]:
    """Yields a run's points: each validation that is not too near the one before, and a grid between them."""
    known = [(record["tokens"], record["loss"]) for record in steps if record["loss"] is not None]
    tokens, losses = np.array([k[0] for k in known], float), np.array([k[1] for k in known], float)
    measured: dict[int, float] = {}
    for record in reversed(validations):
        near = any(abs(math.log(other / record["tokens"])) < NEAR for other in measured)
        if record["val_loss"] is not None and not near:
            measured[record["tokens"]] = record["val_loss"]
    places = set(measured)
    for wanted in np.geomspace(tokens[0], tokens[-1], POINTS):
        place = int(tokens[np.abs(np.log(tokens / wanted)).argmin()])
        if all(abs(math.log(place / other)) > NEAR for other in measured):
            places.add(place)
    for place in sorted(places):
        # a validation at the very end stands a little behind the last line of metrics
        around = np.abs(np.log(tokens / place)) <= NEAR
        if around.any():
            val = measured.get(place)
            yield place, round(float(losses[around].mean()), 4), None if val is None else round(val, 4)
