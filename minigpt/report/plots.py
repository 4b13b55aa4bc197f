"""The plots of the report, of one run or of several: each function returns those for which there is data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from minigpt.evaluation import eval_plots
from minigpt.plotting import MUTED, downsample, engineering, log_y, series_style
from minigpt.records import column, number
from minigpt.report.facts import RunFacts, comparable, one_tokenizer
from minigpt.report.svg import Plot, render
from minigpt.training.loss_plot import Curves, XAxis, draw_loss, draw_perplexity

MODULE_KINDS = {"embedding": 2, "attn": 0, "mlp": 1, "head": 3}
"""Kinds of modules, and their colours; others have the next one."""


def loss_plots(runs: Sequence[RunFacts]) -> list[Plot]:
    """Returns loss by tokens and, of several runs, by time; and perplexity by epoch."""
    made = []
    if any(_has(run.validations, "val_loss") or _has(run.steps, "loss") for run in runs):
        made.append(_loss(runs, "tokens"))
        if len(runs) > 1:
            made.append(_loss(runs, "seconds"))
    if any(_has(run.validations, "val_perplexity") for run in runs) and comparable(runs):
        hint = "At each validation. Lower is better."
        if len(runs) == 1:
            hint = "Where the training curve keeps falling and validation does not, the model memorizes (overfitting)."
        curves = [Curves(run.label, run.steps, run.validations) for run in runs]
        draw = partial(draw_perplexity, runs=curves)
        made.append(render("perplexity", "Perplexity by epoch", _describe(runs, "val_perplexity"), draw, hint))
    return made


def _loss(runs: Sequence[RunFacts], by: XAxis) -> Plot:
    same = comparable(runs)
    hint = "Lower is better."
    if len(runs) > 1 and same and any(_has(run.steps, "loss") for run in runs):
        hint += " Faint: training, means of a few steps."
    if len(runs) == 1 and runs[0].evaluation:
        hint += " Dotted: simple baselines on the same text."
    curves = [
        Curves(
            run.label,
            run.steps,
            run.validations,
            None if same else run.bits_per_nat,
            {name: one.value for name, one in run.evaluation.metrics.baselines.items()} if run.evaluation else {},
        )
        for run in runs
    ]
    what = "Loss" if same else "Bits per byte of the validation text"
    title = f"{what} by {'training time' if by == 'seconds' else 'tokens seen'}"
    return render(f"loss-{by}", title, _describe(runs, "val_loss"), partial(draw_loss, runs=curves, by=by), hint)


def step_plots(runs: Sequence[RunFacts]) -> list[Plot]:
    """Returns small plots over the steps: learning rate, gradient norm, throughput, memory."""
    series: list[tuple[str, str, str, float]] = [
        ("lr", "Learning rate", "learning rate", 1),
        ("grad_norm", "Gradient norm", "norm before clipping (log scale)", 1),
        ("tokens_per_second", "Throughput", "tokens per second", 1),
        ("memory", "Memory", "memory, GB", 1e-9),
    ]
    return [_over_steps(runs, *one) for one in series if any(_has(run.steps, one[0]) for run in runs)]


def _over_steps(runs: Sequence[RunFacts], name: str, title: str, label: str, scale: float) -> Plot:
    values = {run.label: [value * scale for value in column(run.steps, name)] for run in runs}
    ends = {who: [value for value in found if math.isfinite(value)] for who, found in values.items()}
    description = "; ".join(f"{who} from {v[0]:.4g} to {v[-1]:.4g}" for who, v in ends.items() if v)
    log = name == "grad_norm"
    clip = runs[0].config.train.grad_clip if log and len(runs) == 1 else 0

    def draw(axes: Any) -> None:
        for place, run in enumerate(runs):
            points = downsample(column(run.steps, "step"), values[run.label], log_y=log)
            axes.plot(*points, **{**series_style(place), "marker": None}, lw=1.2, label=run.label)
        if clip:
            axes.axhline(clip, color=MUTED, linestyle=":", lw=1)
        if log:
            log_y(axes)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(engineering() if name == "tokens_per_second" else "{x:g}")
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.xaxis.set_major_formatter(engineering())

    hint = "Dotted: larger gradients are clipped to this norm." if clip else ""
    key = f"steps-{name.replace('_', '-')}"
    return render(key, title, f"{description}.", draw, hint, legend=len(runs) > 1, width=4.4, height=2.7)


def health_plots(run: RunFacts, key: str) -> list[Plot]:
    """Returns gradient norm and update ratio of each module over the steps."""
    made = []
    for name, title, label in (
        ("grad_norm", "Gradient norm by module", "norm before clipping (log scale)"),
        ("update_ratio", "Update ratio by module", "change in one step / norm of the weights (log scale)"),
    ):
        series = _modules(run, name)
        if any(math.isfinite(value) for _, values in series.values() for value in values):
            ends = ", ".join(f"{module} {values[-1]:.3g}" for module, (_, values) in series.items() if values)
            draw = partial(_draw_modules, series=series, label=label)
            hint = "Thin lines: the first layers; thick ones: the last."
            made.append(render(f"{key}-{name.replace('_', '-')}", title, f"At the end: {ends}.", draw, hint))
    return made


def _draw_modules(axes: Any, series: Mapping[str, tuple[list[float], list[float]]], label: str) -> None:
    kinds = [module.rpartition(".")[2] for module in series]
    seen: dict[str, int] = {}
    for (steps, values), kind in zip(series.values(), kinds, strict=True):
        depth = seen[kind] = seen.get(kind, 0) + 1
        count = kinds.count(kind)
        share = depth / count
        axes.plot(
            *downsample(steps, values, log_y=True),
            **{**series_style(MODULE_KINDS.get(kind, 4)), "marker": None},
            lw=0.7 + 1.5 * share,
            alpha=0.45 + 0.55 * share,
            label=kind if count == 1 else f"{kind}, layers 1 to {count}" if depth == count else None,
        )
    log_y(axes)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.xaxis.set_major_formatter(engineering())


def _modules(run: RunFacts, name: str) -> dict[str, tuple[list[float], list[float]]]:
    """Returns steps and values of each module."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for record in run.health:
        for module in record["modules"]:
            if isinstance(module, dict) and isinstance(module.get("module"), str):
                steps, values = series.setdefault(module["module"], ([], []))
                steps.append(record["step"])
                values.append(number(module.get(name)))
    return series


def evaluation_plots(runs: Sequence[RunFacts]) -> list[Plot]:
    """Returns loss by context, by frequency and by document, and calibration; between tokenizers only the last."""
    found = [(run.label, run.evaluation.metrics) for run in runs if run.evaluation]
    one = one_tokenizer([run for run in runs if run.evaluation])
    made = []

    def add(key: str, title: str, hint: str, draw: Callable[..., None], descriptions: Iterable[str]) -> None:
        made.append(render(key, title, f"{'; '.join(descriptions)}.", partial(draw, runs=found), hint))

    if found and one:
        hint = "A falling line means that the model uses its context."
        contexts = ((who, metrics.by_context) for who, metrics in found)
        texts = [
            f"{who} from {b[0].loss:.3f} with {b[0].name} to {b[-1].loss:.3f} with {b[-1].name}" for who, b in contexts
        ]
        add("by-context", "Loss by context", hint, eval_plots.draw_by_context, texts)
    if one and (frequencies := [(who, metrics.by_frequency) for who, metrics in found if metrics.by_frequency]):
        hint = "By how often a token occurs in training: rare tokens are the hardest to learn."
        texts = [f"{who} {b[0].loss:.2f} for the rarest to {b[-1].loss:.2f}" for who, b in frequencies]
        add("by-frequency", "Loss by token frequency", hint, eval_plots.draw_by_frequency, texts)
    if found:
        hint = "Below the dotted line, the model is more confident than it is accurate."
        texts = [f"{who}: mean gap {metrics.calibration_error:.1%}" for who, metrics in found]
        add("calibration", "Calibration", hint, eval_plots.draw_calibration, texts)
    if one and any(metrics.documents > 1 for _, metrics in found):
        hint = "Each point is a document of the validation text."
        if any(metrics.documents > eval_plots.MAX_DOCUMENTS for _, metrics in found):
            hint += f" {eval_plots.MAX_DOCUMENTS:,} of them are shown, from the easiest to the hardest."
        losses = [(who, [document.loss for document in metrics.by_document]) for who, metrics in found]
        texts = [f"{who} from {min(values):.2f} to {max(values):.2f}" for who, values in losses]
        add("by-document", "Loss by document", hint, eval_plots.draw_by_document, texts)
    return made


def _has(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(math.isfinite(value) for value in column(records, name))


def _describe(runs: Sequence[RunFacts], name: str) -> str:
    """Returns the first, lowest and last of the runs' validations in words."""
    parts = []
    for run in runs:
        values = [value for value in column(run.validations, name) if math.isfinite(value)]
        words = "was not validated"
        if values:
            words = f"starts at {values[0]:.4g}, is {min(values):.4g} at its lowest and ends at {values[-1]:.4g}"
        parts.append(f"{run.label} {words}")
    return f"{'; '.join(parts)}."
