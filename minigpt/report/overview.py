"""The top of the report: what the runs are and how good they are, in a few sentences and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigpt.evaluation.evaluate import IN_TRAINING, NOTEWORTHY
from minigpt.evaluation.metrics import RESAMPLES, Estimate, EvalMetrics
from minigpt.evaluation.paired_bootstrap import beats_bigram, difference, surely_best
from minigpt.report import formatting
from minigpt.report.facts import RunFacts, measured_alike, number, one_tokenizer, same_text
from minigpt.report.html import Child, Html, element, name, table, with_code
from minigpt.text_utils import display_name, pluralize

PAIRED = (
    f"The difference is of the same documents, {RESAMPLES:,} times resampled, so it is far surer than the two losses "
    "beside each other. Bold: better than every other run, and not by the chance of these documents. Another seed of "
    "the same training would give another difference: that is not in these intervals."
)


def overview(runs: Sequence[RunFacts]) -> list[Html]:
    """Returns the title, a paragraph for each run, the figures side by side, and what is missing."""
    heading = "Report of " + formatting.listed([run.label for run in runs])
    parts = [element("h1", element("bdi", heading)), *(element("p", _sentences(run), class_="lead") for run in runs)]
    parts += [_tiles(runs[0])] if len(runs) == 1 else _side_by_side(runs)
    parts += [element("p", with_code(text), class_="warning") for text in _warnings(runs)]
    missing = [(run.label, with_code(run.shortened(text))) for run in runs for text in run.missing]
    if missing:
        lines = [element("li", [name(label), ": "] if len(runs) > 1 else None, text) for label, text in missing]
        parts.append(element("div", element("p", "Left out:"), element("ul", lines), class_="aside"))
    return parts


def _sentences(run: RunFacts) -> list[Child]:
    model = run.config.model
    shape = (
        f"{pluralize(model.n_layer, 'layer')}, {model.n_embd} wide, a context of {pluralize(model.block_size, 'token')}"
    )
    what = f" is a transformer of {formatting.amount(run.parameters)} parameters ({shape})"
    return [element("b", name(run.label)), what, *_training(run), *_quality(run)]


def _training(run: RunFacts) -> list[Child]:
    """What it was trained on, for how long, and where."""
    train = run.data["splits"].get("train")
    began: list[Child] = (
        [" that began with the weights of ", name(display_name(str(run.origin["folder"])))] if run.origin else []
    )
    if not train:
        return [*began, ". "]
    parts: list[Child] = [*began, ", trained" if began else ", trained from scratch", " on ", data_name(run)]
    parts.append(
        f" ({formatting.amount(train['tokens'])} tokens of {run.tokenizer.get('spec', 'an unknown tokenizer')}). "
    )
    seen = run.seen
    if "tokens" in seen:
        goes_on = run.step < run.last_step
        epochs = f", {seen['epoch']:.2f} epochs" if "epoch" in seen else ""
        time = f" in {formatting.duration(seen['seconds'])}" if "seconds" in seen else ""
        began_so = f"At step {run.step:,} it had" if goes_on else "It has"
        end = f"; the training went on to step {run.last_step:,}" if goes_on else ""
        parts.append(f"{began_so} seen {formatting.amount(seen['tokens'])} tokens{epochs},{time}{_machine(run)}{end}. ")
    if run.total_steps is not None and run.last_step < run.total_steps:
        done = f"{run.last_step:,} of {pluralize(run.total_steps, 'step')}"
        way = "is still being trained, and has done" if run.running else "was stopped after"
        if run.ended_early and not run.running:
            waited = pluralize(run.config.train.patience, "validation")
            way = f"ended early, with no lower validation loss in {waited}, after"
        parts.append(f"It {way} {done}. ")
    return parts


def _quality(run: RunFacts) -> list[Child]:
    """How good it is, and beside what."""
    if run.evaluation is None:
        if run.best is None:
            return ["Its loss has not been measured on other text."]
        loss, perplexity = (number(run.best.get(which)) for which in ("val_loss", "val_perplexity"))
        said = f"Its lowest validation loss was {loss:.3f} nats per token, a perplexity of {perplexity:,.1f}"
        return [said, f", after step {run.best['step']:,}."]
    found = run.evaluation.metrics
    text = "that it was not trained on" if run.unseen else "of the text it was measured on"
    if run.unseen and run.prepared and run.prepared.contamination > NOTEWORTHY:
        text += f" (but {run.prepared.contamination:.1%} of their passages stand in its training text too)"
    said = f"After step {run.evaluation.step:,}, on {formatting.amount(found.tokens)} tokens {text}, "
    between = f" (95 % interval {formatting.interval(found.loss)})" if found.loss.interval else ""
    said += f"its loss is {found.loss.value:.3f} nats per token{between}: a perplexity of "
    said += f"{found.perplexity.value:,.1f}, {found.bits_per_byte.value:.3f} bits per byte. "
    return [said, f"Its first guess is right for {found.accuracy.value:.1%} of the tokens. ", _beside(found)]


def _beside(found: EvalMetrics) -> str:
    simple = {name: estimate.value for name, estimate in found.baselines.items()}
    if "bigram" not in simple:
        return f"Guessing blindly would have a loss of {simple['uniform']:.3f}."
    said = f"Guessing blindly would have a loss of {simple['uniform']:.3f}, knowing how often each token occurs "
    said += f"{simple['unigram']:.3f}, and knowing what follows what {simple['bigram']:.3f}"
    if beats_bigram(found):
        return f"{said}; so it has learned to read what stands before."
    if found.loss.value < simple["bigram"]:
        return f"{said}: it is better than that by no more than chance, and barely reads what stands before."
    return f"{said}: counting pairs of tokens still beats it, and it has not learned to read context yet."


def data_name(run: RunFacts) -> Html:
    """Returns what a run's text is called: its sources, or else its folder."""
    sources = [display_name(source) for source in run.prepared.sources] if run.prepared else []
    called = formatting.listed(sources[:3] + ([f"{len(sources) - 3} more"] if len(sources) > 3 else []))
    return name(called or display_name(str(run.data["folder"])) or "an unknown text")


def _machine(run: RunFacts) -> str:
    known = run.environment
    where = known.get("gpu") or known.get("processor")
    cores = "" if known.get("gpu") or not known.get("cores") else f", {known['cores']} cores"
    return f" on {where} ({known.get('precision', 'precision unknown')}{cores})" if where else ""


def _tiles(run: RunFacts) -> Html:
    """The few figures that everybody asks for, large."""
    tiles: list[tuple[str, str, str]] = []
    if run.evaluation:
        found = run.evaluation.metrics
        tiles += [
            ("loss", f"{found.loss.value:.3f}", "nats per token"),
            ("perplexity", f"{found.perplexity.value:,.1f}", "as if guessing among that many"),
            ("bits per byte", f"{found.bits_per_byte.value:.3f}", "of text"),
        ]
    elif run.best:
        loss, perplexity = (number(run.best.get(which)) for which in ("val_loss", "val_perplexity"))
        tiles += [
            ("validation loss", f"{loss:.3f}", "nats per token"),
            ("perplexity", f"{perplexity:,.1f}", "as if guessing among that many"),
        ]
    tiles.append(("parameters", formatting.amount(run.parameters), "trained numbers"))
    if "tokens" in run.seen:
        tiles.append(("seen", formatting.amount(run.seen["tokens"]), "tokens of text"))
    if "seconds" in run.seen:
        tiles.append(("trained for", formatting.duration(run.seen["seconds"]), "validations included"))
    boxes = [
        element("div", element("dt", title), element("dd", element("b", value), element("small", unit)))
        for title, value, unit in tiles
    ]
    return element("dl", boxes, class_="tiles")


ESTIMATES = (
    ("loss, nats per token", "loss", "{:.4f}"),
    ("perplexity", "perplexity", "{:,.2f}"),
    ("bits per byte", "bits_per_byte", "{:.4f}"),
    ("accuracy of the first guess", "accuracy", "{:.2%}"),
    ("accuracy of the first five", "top5_accuracy", "{:.2%}"),
)


def _side_by_side(runs: Sequence[RunFacts]) -> list[Html]:
    """The figures of several runs; where they are of one text, how far apart they are, and which is surely best."""
    rows: list[list[Child]] = [
        ["parameters", *(formatting.amount(run.parameters) for run in runs)],
        ["tokens seen", *(formatting.amount(run.seen.get("tokens", math.nan)) for run in runs)],
        ["epochs", *(formatting.figure(run.seen.get("epoch", math.nan), "{:.2f}") for run in runs)],
        ["time of training", *(formatting.duration(run.seen.get("seconds", math.nan)) for run in runs)],
        ["steps", *(f"{run.step:,}" for run in runs)],
    ]
    lowest = [number(run.best.get("val_loss")) if run.best else math.nan for run in runs]
    rows.append(["lowest validation loss in training", *(formatting.figure(value, "{:.4f}") for value in lowest)])
    measured = [run.evaluation.metrics if run.evaluation else None for run in runs]
    alike = measured_alike(runs)
    best = surely_best(measured) if alike or same_text(runs) else None
    for title, which, form in ESTIMATES if any(measured) else ():
        marked = best if which == "bits_per_byte" or (alike and which in ("loss", "perplexity")) else None
        found = [getattr(figures, which) if figures else None for figures in measured]
        rows.append([title, *(_estimate(one, form, place == marked) for place, one in enumerate(found))])
    notes = []
    if alike and (first := measured[0]):
        away = [difference(first, figures) if figures else None for figures in measured[1:]]
        if any(away):
            beside: Child = ["loss beside ", name(runs[0].label)]
            rows.append([beside, formatting.NONE, *(_estimate(one, "{:+.4f}", marked=False) for one in away)])
            notes.append(element("p", PAIRED, class_="note"))
    errors = [figures.calibration_error if figures else math.nan for figures in measured]
    if any(map(math.isfinite, errors)):
        rows.append(["calibration error", *(formatting.figure(error, "{:.2%}") for error in errors)])
    apart = [
        element("li", element("bdi", run.label), ": ", note)
        for run in runs
        for note in (run.evaluation.notes if run.evaluation else ())
        if note.startswith(IN_TRAINING)
    ]
    notes += [element("ul", apart, class_="note")] if apart else []
    return [table(["", *(name(run.label) for run in runs)], rows, caption="Figures, with their 95 % intervals"), *notes]


def _estimate(estimate: Estimate | None, form: str, marked: bool) -> Child:
    if estimate is None:
        return formatting.NONE
    value = formatting.figure(estimate.value, form)
    between = formatting.interval(estimate, form)
    said: Child = element("b", value) if marked else value
    return [said, element("small", element("br"), between) if between else None]


def _warnings(runs: Sequence[RunFacts]) -> list[str]:
    """What stands in the way of comparing runs."""
    found, tokens_alike, text_alike = [], one_tokenizer(runs), same_text(runs)
    if not text_alike:
        advice = " Measure them on one text with --data." if tokens_alike else ""
        found.append(
            "The runs were validated on different texts while they trained: their curves cannot be compared"
            + ("." if measured_alike(runs) else f", nor can their figures.{advice}")
        )
    if not tokens_alike:
        where = "" if text_alike else " on the same text: `minigpt evaluate RUN --text FILE` for each"
        found.append(
            "The runs have different tokenizers: loss, perplexity and accuracy are of different tokens. Compare bits "
            f"per byte{where}."
        )
    return found
