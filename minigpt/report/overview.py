"""The top of the report: what the runs are and how good they are, in a few sentences and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from minigpt.evaluation.eval_tables import ESTIMATES, format_interval
from minigpt.evaluation.evaluate import IN_TRAINING, NOTEWORTHY
from minigpt.evaluation.metrics import RESAMPLES, Estimate, EvalMetrics
from minigpt.evaluation.paired_bootstrap import beats_bigram, difference, significantly_best
from minigpt.records import number
from minigpt.report.facts import RunFacts, measured_alike, one_tokenizer, same_text
from minigpt.report.formatting import MISSING, amount, duration, enumerate_words, format_number
from minigpt.text_utils import display_name, pluralize

PAIRED = (
    f"The difference is a paired bootstrap over the same documents ({RESAMPLES:,} resamples), so its interval is far "
    "narrower than those of the two losses. Bold: significantly better than every other run on these documents. The "
    "intervals do not cover the variation between random seeds."
)


class Cell(NamedTuple):
    """A cell of the comparison: the value, its interval, and whether it is significantly the best."""

    value: str
    interval: str = ""
    best: bool = False


def overview(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """Returns what the top shows: a paragraph for each run, the metrics, and what is missing."""
    several = len(runs) > 1
    return {
        "runs": [_introduce(run) for run in runs],
        "tiles": [] if several else _tiles(runs[0]),
        **(_compare(runs) if several else {"comparison": []}),
        "warnings": _warnings(runs),
        "missing": [(run.label, run.shortened(text)) for run in runs for text in run.missing],
    }


def _introduce(run: RunFacts) -> dict[str, str]:
    model, train = run.config.model, run.data["splits"].get("train")
    layers, context = pluralize(model.n_layer, "layer"), pluralize(model.block_size, "token")
    return {
        "label": run.label,
        "parameters": amount(run.parameters),
        "shape": f"{layers}, {model.n_embd} wide, a context of {context}",
        "origin": display_name(str(run.origin["folder"])) if run.origin else "",
        "data": data_name(run) if train else "",
        "tokens": f"{amount(train['tokens'])} tokens of {run.tokenizer['spec']}" if train else "",
        "training": describe_training(run) if train else "",
        "quality": _describe_quality(run),
    }


def describe_training(run: RunFacts) -> str:
    """Returns sentences about how long the run was trained, and where."""
    parts = []
    if "tokens" in run.seen:
        earlier = run.step < run.last_step
        words = f"At step {run.step:,} it had" if earlier else "It has"
        words += f" seen {amount(run.seen['tokens'])} tokens"
        words += f" ({run.seen['epoch']:.2f} epochs)" if "epoch" in run.seen else ""
        words += f" in {duration(run.seen['seconds'])}" if "seconds" in run.seen else ""
        words += _machine(run)
        parts.append(words + (f"; training continued to step {run.last_step:,}." if earlier else "."))
    if run.total_steps is not None and run.last_step < run.total_steps:
        done = f"{run.last_step:,} of {pluralize(run.total_steps, 'step')}"
        if run.running:
            parts.append(f"It is still being trained and has completed {done}.")
        elif run.ended_early:
            waited = pluralize(run.config.train.patience, "validation")
            parts.append(f"It ended early, with no lower validation loss in {waited}, after {done}.")
        else:
            parts.append(f"It was stopped after {done}.")
    return " ".join(parts)


def _machine(run: RunFacts) -> str:
    known = run.environment
    where = known.get("gpu") or known.get("processor")
    cores = "" if known.get("gpu") or not known.get("cores") else f", {known['cores']} cores"
    return f" on {where} ({known.get('precision', 'precision unknown')}{cores})" if where else ""


def _describe_quality(run: RunFacts) -> str:
    if run.evaluation is None:
        if run.best is None:
            return "Its loss on other text has not been measured."
        loss, perplexity = (number(run.best.get(which)) for which in ("val_loss", "val_perplexity"))
        return (
            f"Its lowest validation loss was {loss:.3f} nats per token, a perplexity of {perplexity:,.1f}, after step "
            f"{run.best['step']:,}."
        )
    found = run.evaluation.metrics
    text = "of text held out from training" if run.unseen else "of the given text"
    if run.unseen and run.prepared and run.prepared.contamination > NOTEWORTHY:
        text += f" ({run.prepared.contamination:.1%} of whose passages also occur in the training text)"
    between = f" (95 % interval {format_interval(found.loss, '{:.3f}')})" if found.loss.interval else ""
    return (
        f"After step {run.evaluation.step:,}, its loss on {amount(found.tokens)} tokens {text} is "
        f"{found.loss.value:.3f} nats per token{between}: a perplexity of {found.perplexity.value:,.1f}, "
        f"{found.bits_per_byte.value:.3f} bits per byte. Its first guess is right for {found.accuracy.value:.1%} of "
        f"the tokens. {compare_with_baselines(found)}"
    )


def compare_with_baselines(found: EvalMetrics) -> str:
    """Returns a sentence about the losses of the baselines, and what follows from them."""
    losses = {name: estimate.value for name, estimate in found.baselines.items()}
    words = f"A uniform guess would have a loss of {losses['uniform']:.3f}"
    if "bigram" not in losses:
        return f"{words}."
    words += f", token frequencies alone (unigram) {losses['unigram']:.3f}, and pairs of tokens (bigram) "
    words += f"{losses['bigram']:.3f}"
    if beats_bigram(found):
        return f"{words}: the model has learned to use its context."
    if found.loss.value < losses["bigram"]:
        return f"{words}: the model is better than the bigram, but not significantly, so it hardly uses its context."
    return f"{words}: the bigram is still better, so the model has not learned to use its context yet."


def data_name(run: RunFacts) -> str:
    """Returns what a run's text is called: its sources, or else its folder."""
    sources = [display_name(source) for source in run.prepared.sources] if run.prepared else []
    named = enumerate_words(sources[:3] + ([f"{len(sources) - 3} more"] if len(sources) > 3 else []))
    return named or display_name(str(run.data["folder"])) or "an unknown text"


def _tiles(run: RunFacts) -> list[tuple[str, str, str]]:
    """Returns the most important numbers: name, value, unit."""
    measured, best = run.evaluation and run.evaluation.metrics, run.best or {}
    loss, perplexity = (number(best.get(name)) for name in ("val_loss", "val_perplexity"))
    if measured:
        loss, perplexity = measured.loss.value, measured.perplexity.value
    tiles = []
    if measured or best:
        tiles.append(("loss" if measured else "validation loss", f"{loss:.3f}", "nats per token"))
        tiles.append(("perplexity", f"{perplexity:,.1f}", "as uncertain as a guess among that many"))
    if measured:
        tiles.append(("bits per byte", f"{measured.bits_per_byte.value:.3f}", "of text"))
    tiles.append(("parameters", amount(run.parameters), "in the model"))
    if "tokens" in run.seen:
        tiles.append(("tokens seen", amount(run.seen["tokens"]), "in training"))
    if "seconds" in run.seen:
        tiles.append(("training time", duration(run.seen["seconds"]), "including validation"))
    return tiles


def _compare(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """Returns the metrics of several runs; measured on one text, also their differences and which is best."""

    def row(title: str, form: str | Callable[[float], str], values: Iterable[Any]) -> tuple[str, list[Cell]]:
        return title, [Cell(format_number(number(value), form)) for value in values]

    rows = [
        row("parameters", amount, (run.parameters for run in runs)),
        row("tokens seen", amount, (run.seen.get("tokens") for run in runs)),
        row("epochs", "{:.2f}", (run.seen.get("epoch") for run in runs)),
        row("training time", duration, (run.seen.get("seconds") for run in runs)),
        row("steps", "{:,.0f}", (run.step for run in runs)),
        row("lowest validation loss in training", "{:.4f}", ((run.best or {}).get("val_loss") for run in runs)),
    ]
    measured = [run.evaluation.metrics if run.evaluation else None for run in runs]
    alike = measured_alike(runs)
    best = significantly_best(measured) if alike or same_text(runs) else None
    for title, name, form, _ in ESTIMATES if any(measured) else ():
        comparable = name == "bits_per_byte" or (alike and name in ("loss", "perplexity"))
        found = [getattr(metrics, name) if metrics else None for metrics in measured]
        rows.append((title, [_cell(one, form, comparable and place == best) for place, one in enumerate(found)]))
    paired = False
    if alike and (first := measured[0]):
        away = [difference(first, metrics) if metrics else None for metrics in measured[1:]]
        if paired := any(away):
            title = f"loss minus that of {runs[0].label}"
            rows.append((title, [Cell(MISSING), *(_cell(one, "{:+.4f}") for one in away)]))
    if any(measured):
        errors = (metrics.calibration_error if metrics else None for metrics in measured)
        rows.append(row("calibration error", "{:.2%}", errors))
    notes = [(run.label, note) for run in runs if run.evaluation for note in run.evaluation.notes]
    return {
        "comparison": rows,
        "comparison_note": PAIRED if paired else "",
        "notes": [(label, note) for label, note in notes if note.startswith(IN_TRAINING)],
    }


def _cell(estimate: Estimate | None, form: str, best: bool = False) -> Cell:
    if estimate is None:
        return Cell(MISSING)
    return Cell(format_number(estimate.value, form), format_interval(estimate, form), best)


def _warnings(runs: Sequence[RunFacts]) -> list[str]:
    """Returns what limits the comparison of the runs."""
    found = []
    tokens_alike, text_alike = one_tokenizer(runs), same_text(runs)
    if not text_alike:
        advice = " Use --data to measure them on one text." if tokens_alike else ""
        found.append(
            "The runs were validated on different texts during training, so their curves cannot be compared"
            + ("." if measured_alike(runs) else f", nor can their metrics.{advice}")
        )
    if not tokens_alike:
        where = "" if text_alike else " on the same text: `minigpt evaluate RUN --text FILE` for each"
        found.append(
            "The runs use different tokenizers, so loss, perplexity and accuracy refer to different tokens. Compare "
            f"bits per byte{where}."
        )
    return found
