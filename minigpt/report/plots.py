"""The curves of training, of one run or of several: each function returns a picture, or None where there is none.

One run: training and validation in two colours. Several: a colour, a dash and a marker each. Not here: the figures
of an evaluation (plots_evaluation.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from minigpt.report.facts import RunFacts, column, comparable, number
from minigpt.report.html import Html, shown
from minigpt.report.svg import DASHES, INK, MARKERS, MUTED, SERIES, drawing, engineering, legend, thinned

HIGHEST_LOSS = 50.0
"""Above it, perplexity has no name."""

LONG = 7_200
TIMES = (("minutes of training", 60), ("hours of training", 3_600))
"""How time is counted in a run of so many seconds, and in a longer one."""

KINDS = {"embedding": 2, "attn": 0, "mlp": 1, "head": 3}
"""Parts of a model, and their colours."""


def loss_curve(runs: Sequence[RunFacts], by: Literal["tokens", "seconds"] = "tokens") -> Html | None:
    """The loss against the tokens seen, or the time: as it went by, and as it was validated."""
    if not any(_finite(run.validations, "val_loss") or _finite(run.steps, "loss") for run in runs):
        return None
    same = comparable(runs)
    what = "loss" if same else "bits per byte of the validation text"
    long = any(run.at("seconds", run.last_step) > LONG for run in runs)
    over, unit = ("tokens seen in training", 1) if by == "tokens" else TIMES[long]
    title = f"{what[0].upper()}{what[1:]} against {'the time' if by == 'seconds' else 'the text seen'}"
    told = "; ".join(f"{run.label} {_told(run)}" for run in runs)
    hint = "Lower is better."
    if len(runs) > 1 and same and any(_finite(run.steps, "loss") for run in runs):
        hint += " Faint: training, as it went by."
    if len(runs) == 1 and runs[0].evaluation:
        hint += " Dotted: what simple models reach on the same text."
    with drawing(f"loss-{by}", title, f"{told}.", hint) as made:
        axes = made.figure.subplots()
        for place, run in enumerate(runs):
            _losses(axes, run, place, (by, unit), alone=len(runs) == 1, scale=None if same else run.bits_per_nat)
        if by == "tokens":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(engineering())
        if len(runs) == 1:
            _baselines(axes, runs[0])
        axes.set_xlabel(f"{over} (log scale)" if by == "tokens" else over)
        axes.set_ylabel("loss, nats per token" if same else what)
        if same and axes.get_ylim()[1] < HIGHEST_LOSS:
            _perplexity_axis(axes)
        legend(axes)
    return made.html


def perplexity_curve(runs: Sequence[RunFacts]) -> Html | None:
    """The perplexity at each validation against the epoch, where training and validation part."""
    if not any(_finite(run.validations, "val_perplexity") for run in runs) or not comparable(runs):
        return None
    title, told = "Perplexity against epochs", "; ".join(f"{run.label} {_told(run, 'val_perplexity')}" for run in runs)
    hint = "At each validation: lower is better."
    if len(runs) == 1:
        hint = "Where the training curve goes on falling and the other does not, the model learns by heart."
    with drawing("perplexity", title, f"{told}.", hint) as made:
        axes = made.figure.subplots()
        for place, run in enumerate(runs):
            colour = place % len(SERIES)
            series = [("val_perplexity", run.label, colour, DASHES[colour])]
            if len(runs) == 1:
                train = ("train_perplexity", "training, mean since the point before", 0, "--")
                series = [train, ("val_perplexity", "validation", 1, "-")]
            for name, label, colour, dash in series:
                epochs, values = thinned(column(run.validations, "epoch"), column(run.validations, name), above=0)
                axes.plot(epochs, values, linestyle=dash, marker=MARKERS[colour], color=SERIES[colour], label=label)
        log_y(axes)
        axes.set_xlim(left=0)
        axes.set_xlabel("epochs: passes over the training text")
        axes.set_ylabel("perplexity (log scale)")
        legend(axes)
    return made.html


def course(runs: Sequence[RunFacts]) -> list[Html]:
    """Small pictures of how training went: learning rate, size of the gradient, speed, waiting for data, memory."""
    curves: list[tuple[str, str, str, float, bool]] = [
        ("lr", "Learning rate", "learning rate", 1, False),
        ("grad_norm", "Size of the gradient", "norm before clipping (log scale)", 1, True),
        ("tokens_per_second", "Speed", "tokens per second", 1, False),
        ("memory", "Memory", "memory, GB", 1e-9, False),
    ]
    made = []
    for name, title, label, scale, logarithmic in curves:
        if any(_finite(run.steps, name) for run in runs):
            made.append(_small(runs, name, title, label, scale, logarithmic))
    return made


def _small(runs: Sequence[RunFacts], name: str, title: str, label: str, scale: float, logarithmic: bool) -> Html:
    ends = [(run.label, [value for value in column(run.steps, name) if math.isfinite(value)]) for run in runs]
    told = "; ".join(f"{who} from {v[0] * scale:.4g} to {v[-1] * scale:.4g}" for who, v in ends if v)
    clip = runs[0].config.train.grad_clip if name == "grad_norm" and len(runs) == 1 else 0
    hint = "Dotted: larger ones are clipped." if clip else ""
    with drawing(f"course-{name.replace('_', '-')}", title, f"{told}.", hint, width=4.4, height=2.7) as made:
        axes = made.figure.subplots()
        for place, run in enumerate(runs):
            values = [value * scale for value in column(run.steps, name)]
            x, y = thinned(column(run.steps, "step"), values, above=0 if logarithmic else -math.inf)
            colour = place % len(SERIES)
            axes.plot(x, y, color=SERIES[colour], linestyle=DASHES[colour], lw=1.2, label=run.label)
        if clip:
            axes.axhline(clip, color=MUTED, linestyle=":", lw=1)
        if logarithmic:
            log_y(axes)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(engineering() if name == "tokens_per_second" else "{x:g}")
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.xaxis.set_major_formatter(engineering())
        if len(runs) > 1:
            legend(axes)
    return made.html


def inside(run: RunFacts, key: str) -> list[Html]:
    """Gradients and updates of each part of the model over the steps."""
    curves = (
        ("grad_norm", "Gradient of each part", "norm before clipping (log scale)"),
        ("update_ratio", "Change of each part in one step", "share of the weights' norm (log scale)"),
    )
    made = []
    for name, title, label in curves:
        series = _parts(run, name)
        if any(math.isfinite(value) for _, values in series.values() for value in values):
            made.append(_inside(series, f"{key}-{name}", title, label))
    return made


def _inside(series: Mapping[str, tuple[list[float], list[float]]], key: str, title: str, label: str) -> Html:
    told = "Thin lines are the first layers, thick ones the last. At the end: "
    ends = ", ".join(f"{part} {values[-1]:.3g}" for part, (_, values) in series.items() if values)
    with drawing(key, title, f"{told}{ends}.", "Thin lines: the first layers; thick ones: the last.") as made:
        axes = made.figure.subplots()
        kinds = [part.rpartition(".")[2] for part in series]
        seen: dict[str, int] = {}
        for (steps, values), kind in zip(series.values(), kinds, strict=True):
            depth = seen[kind] = seen.get(kind, 0) + 1
            count, colour = kinds.count(kind), KINDS.get(kind, 4)
            share = depth / count
            axes.plot(
                *thinned(steps, values, above=0),
                color=SERIES[colour],
                linestyle=DASHES[colour],
                lw=0.7 + 1.5 * share,
                alpha=0.45 + 0.55 * share,
                label=kind if count == 1 else f"{kind}, layers 1 to {count}" if depth == count else None,
            )
        log_y(axes)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.xaxis.set_major_formatter(engineering())
        legend(axes)
    return made.html


def _parts(run: RunFacts, name: str) -> dict[str, tuple[list[float], list[float]]]:
    """Returns steps and values of each part of the model."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for record in run.health:
        for part in record["modules"]:
            if isinstance(part, dict) and isinstance(part.get("module"), str):
                steps, values = series.setdefault(shown(part["module"]), ([], []))
                steps.append(record["step"])
                values.append(number(part.get(name)))
    return series


def _losses(axes: Any, run: RunFacts, place: int, by: tuple[str, int], *, alone: bool, scale: float | None) -> None:
    """Draws the losses of one run against a value of its records, in a unit; with a scale, only of validation."""
    log_x = by[0] == "tokens"

    def x_of(records: Sequence[Mapping[str, Any]]) -> list[float]:
        return [value / by[1] for value in column(records, by[0])]

    train, val = (0, 1) if alone else (place % len(SERIES), place % len(SERIES))
    if scale is None:  # else it is another text's, and comparable to nothing
        x, y = thinned(x_of(run.steps), column(run.steps, "loss"), log_x=log_x)
        axes.plot(x, y, color=SERIES[train], alpha=0.45, lw=1, label="training, as it went by" if alone else None)
    if alone:
        x, y = thinned(x_of(run.validations), column(run.validations, "train_loss"), log_x=log_x)
        label = "training, mean since the point before"
        axes.plot(x, y, "--", marker=MARKERS[train], color=SERIES[train], label=label)
    losses = [value * (1 if scale is None else scale) for value in column(run.validations, "val_loss")]
    x, y = thinned(x_of(run.validations), losses, log_x=log_x)
    label = "validation" if alone else f"{run.label}, validation"
    axes.plot(x, y, linestyle=DASHES[0 if alone else val], marker=MARKERS[val], color=SERIES[val], label=label)


def _baselines(axes: Any, run: RunFacts) -> None:
    """Draws what simple models reach, as lines that bear their names."""
    if run.evaluation is None:
        return
    for name, estimate in run.evaluation.metrics.baselines.items():
        axes.axhline(estimate.value, color=MUTED, linestyle=":", lw=1)
        axes.annotate(
            name,
            (0, estimate.value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(3, 2),
            textcoords="offset points",
            color=MUTED,
            fontsize=8,
        )


def _perplexity_axis(axes: Any) -> None:
    """Adds perplexity, exp(loss), on the right."""
    import numpy as np
    from matplotlib.ticker import FixedLocator, NullLocator

    right = axes.secondary_yaxis("right", functions=(np.exp, lambda value: np.log(np.maximum(value, 1e-30))))
    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high - low < 7 else (1,)
    ticks = [m * 10.0**power for power in range(22) for m in steps]
    right.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= math.log(tick) <= high]))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter("{x:,g}")
    right.set_ylabel("perplexity")
    right.set_color(INK)


def log_y(axes: Any) -> None:
    """Makes the vertical axis logarithmic, with round numbers at its ticks."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high / low < 8:
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter("{x:,g}")


def _finite(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(math.isfinite(value) for value in column(records, name))


def _told(run: RunFacts, name: str = "val_loss") -> str:
    """Returns the first, lowest and last of a run's validations in words."""
    values = [value for value in column(run.validations, name) if math.isfinite(value)]
    if not values:
        return "was not validated"
    return f"begins at {values[0]:.4g}, is {min(values):.4g} at its lowest and ends at {values[-1]:.4g}"
