"""Reference curves: the loss that a healthy run of a preset has at each point, made by real runs.

references.json holds them, a few dozen points each; `benchmarks/reference_curves.py` makes it. A point is the tokens
trained on, the training loss there (the mean over the steps within 5 % of it) and the validation loss if it was
measured there. Comparing a run with them is the job of reference_check.py.
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
from minigpt.errors import RunError
from minigpt.runs.snapshot import RunSnapshot
from minigpt.text_utils import shell_line

FILE = Path(__file__).with_name("references.json")

POINTS = 48
"""Points of a curve, evenly spaced in the logarithm of the tokens, besides the validations."""

NEAR = 0.05
"""Steps within this share of a point's tokens count towards it, and points closer than this are merged."""

PRESET_FACTOR, OPTIMIZER_FACTOR = 3.0, 10.0
"""A learning rate is far from its preset's beyond the first factor; from that of another model's preset, beyond the
second: ten times the rate of preset laptop did no harm."""

Point = tuple[int, float, float | None]


@dataclass(frozen=True)
class Reference:
    """A healthy run's curve.

    Attributes:
        preset: the preset it was trained with, unchanged.
        corpus: the text's name.
        sha256, train_tokens: of the training split; they identify text and tokenizer.
        text_bytes: of both splits; they identify the text where tokenizer or split differ.
        tokenizer: what made the tokens.
        bytes_per_token: of the validation split.
        machine: what it ran on, in words.
        command: how it was made.
        steps, total_steps: how far it went, and how long its schedule is.
        seed: of its weights and order.
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
        """Returns the training loss after a number of tokens; None outside the curve."""
        return _between([(point[0], point[1]) for point in self.points], tokens)

    def val_loss(self, tokens: float) -> float | None:
        """Returns the validation loss after a number of tokens; None outside the curve."""
        return _between([(point[0], point[2]) for point in self.points if point[2] is not None], tokens)


def _between(points: Sequence[tuple[int, float]], tokens: float) -> float | None:
    """Interpolates the loss linearly in the logarithm of the tokens."""
    if not points or not points[0][0] <= tokens <= points[-1][0]:
        return None
    places, losses = zip(*points, strict=True)
    return float(np.interp(math.log(tokens), np.log(places), losses))


def read_references(file: Path = FILE) -> list[Reference]:
    """Returns the reference curves in a file; none if it does not exist."""
    if not file.exists():
        return []
    entries = json.loads(file.read_text("utf-8"))
    return [Reference(**{**entry, "points": tuple(tuple(point) for point in entry["points"])}) for entry in entries]


def write_references(references: Sequence[Reference], file: Path = FILE) -> None:
    """Writes the reference curves, sorted."""
    lines = [json.dumps(asdict(reference)) for reference in sorted(references, key=lambda r: (r.preset, r.corpus))]
    write_file(file, "[\n" + ",\n".join(lines) + "\n]\n")


def preset_of(config: Config) -> str | None:
    """Returns the preset with these settings, ignoring length, seed and vocabulary."""
    return next((name for name in preset_names() if not differences(config, name)), None)


def nearest_preset(config: Config) -> str | None:
    """Returns the preset with these settings, ignoring length, seed, vocabulary and learning rate."""
    return next((name for name in preset_names() if differences(config, name).keys() <= {"train.lr"}), None)


def differences(config: Config, preset: str) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that affect the loss and differ from a preset's: own value, preset's value."""
    own, theirs = _loss_settings(config), _loss_settings(resolve(preset))
    return {name: (own[name], theirs[name]) for name in own if own[name] != theirs[name]}


def preset_lr(config: Config) -> float | None:
    """Returns the learning rate of the nearest preset, if there is one."""
    name = nearest_preset(config)
    return resolve(name).train.lr if name else None


def lower_lr(config: Config) -> float:
    """Returns the learning rate to try if one is too high: the preset's from far above it, else a third."""
    lr, (usual, near) = config.train.lr, _known_lr(config)
    return usual if lr > near * usual else _two_digits(lr / 3)


def higher_lr(config: Config) -> float:
    """Returns the learning rate to try if one is too low: the preset's from far below it, else ten times as much."""
    lr, (usual, near) = config.train.lr, _known_lr(config)
    return usual if near * lr < usual else _two_digits(10 * lr)


def _known_lr(config: Config) -> tuple[float, float]:
    """Returns the rate of the nearest preset, or of one with the same optimizer, and the factor that is far from it."""
    usual = preset_lr(config)
    if usual is not None:
        return usual, PRESET_FACTOR
    alike = [preset for preset in map(resolve, preset_names()) if preset.optimizer.name == config.optimizer.name]
    return min(preset.train.lr for preset in alike), OPTIMIZER_FACTOR


def _two_digits(rate: float) -> float:
    """Rounds a rate to what a person would type."""
    return float(f"{rate:.2g}")


def _loss_settings(config: Config) -> dict[str, Any]:
    """Returns the settings that affect the loss at each step, by their dotted names."""
    groups = config.to_dict()
    del groups["model"]["vocab_size"]
    groups["train"] = {name: groups["train"][name] for name in ("batch_size", "lr", "grad_clip")}
    del groups["schedule"]["max_warmup_ratio"]  # only shortens the warm-up of runs shorter than any reference
    del groups["machine"]
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


def collect(run: Path | str, corpus: str) -> Reference:
    """Returns a run's curve as a reference.

    Raises:
        RunError: if the run cannot be read, has other settings than every preset, began with another run's weights,
            or has fewer than ten step records.
    """
    snapshot = RunSnapshot.read(run)
    snapshot.check()
    config, data, environment, steps = snapshot.config, snapshot.data, snapshot.environment, snapshot.steps
    preset = preset_of(config)
    if preset is None or snapshot.origin or len(steps) < 10:
        raise RunError(
            "The run cannot be a reference",
            got=snapshot.folder.path,
            remedy="Train one from scratch with a preset's settings, for at least ten step records.",
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
        command=_command(snapshot, preset, corpus),
        steps=steps[-1]["step"],
        total_steps=snapshot.total_steps or 0,
        seed=config.train.seed,
        points=tuple(_points(steps, snapshot.validations)),
    )


def _command(snapshot: RunSnapshot, preset: str, corpus: str) -> str:
    """Returns the commands that make such a run, given the text in the current folder."""
    config, card = snapshot.config, snapshot.dataset_card
    sources, prepared = [corpus], ["--tokenizer", snapshot.data["tokenizer"]["spec"]]
    if card:
        sources = [Path(source).name if Path(source).exists() else source for source in card.sources]
        for option, value, default in (
            ("--val-fraction", card.val_fraction or 0.1, 0.1),
            ("--split-by", card.split_by, "document"),
            ("--seed", card.seed, 0),
        ):
            prepared += [] if value == default else [option, str(value)]
        prepared += ["--val", *card.val_sources] if card.val_sources else []
    trained, defaults = ["--preset", preset], resolve(preset).train
    for option, name in (("--steps", "steps"), ("--epochs", "epochs"), ("--train.seed", "seed")):
        value = getattr(config.train, name)
        trained += [] if value in (None, getattr(defaults, name)) else [option, str(value)]
    return " && ".join(
        [
            shell_line(["minigpt", "prepare", *sources, *prepared, "--out", f"data/{corpus}"]),
            shell_line(["minigpt", "train", *trained, "--data", f"data/{corpus}", "--run", f"runs/{corpus}"]),
        ]
    )


def add(reference: Reference, file: Path = FILE) -> None:
    """Adds a reference to the file, replacing that of the same preset, corpus and tokenizer."""
    others = [
        other
        for other in read_references(file)
        if (other.preset, other.corpus, other.tokenizer) != (reference.preset, reference.corpus, reference.tokenizer)
    ]
    write_references([*others, reference], file)


def _points(steps: Sequence[dict[str, Any]], validations: Sequence[dict[str, Any]]) -> Iterator[Point]:
    """Yields a run's points: each validation that is not too near the next, and a grid between them."""
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
        # a validation at the very end is a little after the last step record
        around = np.abs(np.log(tokens / place)) <= NEAR
        if around.any():
            val = measured.get(place)
            yield place, round(float(losses[around].mean()), 4), None if val is None else round(val, 4)
