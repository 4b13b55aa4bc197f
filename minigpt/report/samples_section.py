"""What the models say: the same prompts at every epoch and temperature, side by side, and the figures of that.

The prompt stands apart from what the model wrote, and what is copied from the training text is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minigpt.evaluation.sample_metrics import SampleMetrics
from minigpt.generation.sample_log import SampleRecord
from minigpt.report import formatting
from minigpt.report.facts import RunFacts
from minigpt.report.html import Child, Html, element, folded, name, table
from minigpt.report.sample_analysis import CopiedPassage
from minigpt.text_utils import pluralize

MOST_STEPS = 6
"""Points of a run's history that are shown, evenly spaced."""

MOST_CHARACTERS = 4_000
BEGINNING = "(the beginning of a document)"
OPEN = 2
"""Prompts whose history is not folded away."""


def samples(runs: Sequence[RunFacts]) -> list[Html]:
    """Returns the section; nothing if there are no samples."""
    there = [run for run in runs if run.said.kept]
    if not there:
        return []
    hint = "Underlined: the prompt. "
    if any(run.said.copies for run in there):
        hint += "Marked: eight tokens or more that stand word for word in the training text. "
    parts: list[Html] = [element("p", hint, "The same seed everywhere.", class_="note")]
    if len(there) > 1:
        parts += _side_by_side(there)
    for run in there:
        prompts = [prompt for prompt in _numbered(run) if len(there) == 1 or len(_steps(run, prompt[1])) > 1]
        history = [_history(run, prompt, number <= OPEN and len(there) == 1) for number, prompt in prompts]
        if len(there) == 1:
            parts += history
        elif history:
            parts.append(folded([name(run.label), ": how its language formed"], history))
    parts += [part for run in there for part in _figures(run, several=len(there) > 1)]
    return parts


def _numbered(run: RunFacts) -> Iterable[tuple[int, str]]:
    """Returns the prompts with numbers from 1, the reader's own first."""
    ordered = sorted(run.said.kept, key=lambda one: one.source != "own")
    return enumerate(dict.fromkeys(one.prompt for one in ordered), start=1)


def _side_by_side(runs: Sequence[RunFacts]) -> list[Html]:
    """The last texts of several runs to each prompt that they share, or that only one has."""
    parts: list[Html] = []
    prompts = dict.fromkeys(prompt for run in runs for _, prompt in _numbered(run))
    for prompt in prompts:
        rows = _notes(runs, prompt)
        for run in runs:
            kept = [one for one in run.said.kept if one.prompt == prompt]
            if kept:
                last = max(one.step for one in kept)
                texts = sorted((one for one in kept if one.step == last), key=lambda one: one.temperature)
                rows += [element("h4", name(run.label), f", {_when(texts[0])}"), _row(run, texts)]
        parts.append(folded(_title(prompt), rows, opened=len(parts) < OPEN))
    return parts


def _steps(run: RunFacts, prompt: str) -> list[int]:
    return sorted({one.step for one in run.said.kept if one.prompt == prompt})


def _title(prompt: str) -> Html:
    """Returns a prompt as a title; one that is empty is where every document begins."""
    return element("q", element("bdi", prompt[:MOST_CHARACTERS])) if prompt else element("i", BEGINNING)


def _notes(runs: Sequence[RunFacts], prompt: str) -> list[Html]:
    """What the models do not see of a prompt."""
    said = dict.fromkeys(note for run in runs for note in run.said.notes.get(prompt, ()))
    return [element("p", f"{note[0].upper()}{note[1:]}.", class_="note") for note in said]


def _history(run: RunFacts, prompt: str, opened: bool) -> Html:
    """The texts that follow a prompt, step by step."""
    kept = [one for one in run.said.kept if one.prompt == prompt]
    steps = _few(_steps(run, prompt))
    rows = _notes([run], prompt)
    for step in steps:
        texts = sorted((one for one in kept if one.step == step), key=lambda one: one.temperature)
        rows += [element("h4", _when(texts[0])), _row(run, texts)]
    return folded(_title(prompt), rows, opened=opened)


def _row(run: RunFacts, texts: Sequence[SampleRecord]) -> Html:
    """Texts of one step side by side, by temperature."""
    return element("div", [_sample(one, run.said.copies.get(one, ())) for one in texts], class_="said")


def _sample(one: SampleRecord, copies: Sequence[CopiedPassage]) -> Html:
    text, cut = one.text[:MOST_CHARACTERS], len(one.text) > MOST_CHARACTERS
    end: Child = " …" if cut else element("small", " (ended)") if one.ended else None
    prompt = element("span", one.prompt[:MOST_CHARACTERS], class_="prompt")
    return element(
        "div",
        element("small", _temperature(one.temperature)),
        element("div", prompt, _marked(text, copies), end, class_="words", dir="auto"),
        _told(copies),
        class_="sample",
    )


def _marked(text: str, copies: Sequence[CopiedPassage]) -> list[Child]:
    """Returns a text with what is copied marked; parts that overlap or touch are one."""
    parts: list[Child] = []
    done = 0
    for start, end in _joined(copies):
        parts += [text[done:start], element("mark", text[start:end]) if text[start:end] else None]
        done = end
    return [*parts, text[done:]]


def _joined(copies: Sequence[CopiedPassage]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted((copy.start, copy.end) for copy in copies):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _told(copies: Sequence[CopiedPassage]) -> Html | None:
    """Says how long the longest copied part is, and where it stands."""
    if not copies:
        return None
    longest = max(copies, key=lambda copy: copy.tokens)
    said = f"{longest.tokens} tokens in a row stand in training, in "
    if (count := len(_joined(copies))) > 1:
        said = f"{count} parts stand in training, the longest of {longest.tokens} tokens, in "
    return element("p", said, element("q", name(longest.document)), class_="note")


def _figures(run: RunFacts, *, several: bool) -> list[Html]:
    """The figures of the samples by step and temperature, beside those of real text."""
    if not run.said.metrics:
        return []
    steps = set(_few(sorted({step for step, _ in run.said.metrics})))
    when = {one.step: _when(one) for one in run.said.kept}
    rows: list[list[Child]] = [
        [when.get(step, f"step {step:,}"), f"{temperature:g}", *_row_of_figures(found, found)]
        for (step, temperature), found in sorted(run.said.metrics.items())
        if step in steps
    ]
    head = ["samples of", "temperature", "samples", "distinct-1", "distinct-2", "distinct-3", "self-BLEU",
            "longest copied run", "repetition", "known words", "copied 8-grams"]  # fmt: skip
    title = f"Figures of the samples of {run.label}" if several else "Figures of the samples"
    real, much = run.said.real, run.said.much_real
    if not (real and much):
        return [table(head, rows, words=(0,), caption=title)]
    rows.append(["real text, not trained on", "", *_row_of_figures(real, much)])
    pieces = pluralize(real.n_samples, "piece")
    hint = (
        f"The last row is real validation text, cut to the same length: {pieces} as far as the longest copied run, "
        f"{much.n_samples} for the shares behind it. Good samples come near it. Much more copied than "
        "there suggests learning by heart; much more repetition, or less that is distinct, going in circles. A few "
        "samples differ by chance, too: only what several rows show is worth a conclusion."
    )
    return [
        table(head, rows, words=(0,), caption=title, marked=[len(rows) - 1]),
        element("p", hint, class_="note"),
    ]


def _row_of_figures(found: SampleMetrics, shares: SampleMetrics) -> list[Child]:
    """Returns the figures that depend on how many samples there are, then those that do not, of maybe more."""

    def share(value: float | None, form: str = "{:.0%}") -> str:
        return formatting.NONE if value is None else form.format(value)

    longest = formatting.NONE if found.longest_copy is None else pluralize(found.longest_copy, "token")
    return [
        f"{found.n_samples}",
        *(share(value, "{:.2f}") for value in (found.distinct_1, found.distinct_2, found.distinct_3, found.self_bleu)),
        longest,
        share(shares.repetition),
        share(shares.known_words),
        share(shares.copied_share),
    ]


def _few(steps: Sequence[int]) -> list[int]:
    """Returns at most MOST_STEPS of them, the first and the last among these."""
    if len(steps) <= MOST_STEPS:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (MOST_STEPS - 1))] for place in range(MOST_STEPS)]


def _when(one: SampleRecord) -> str:
    return f"step {one.step:,}" if one.epoch is None else f"epoch {one.epoch:.4g}, step {one.step:,}"


def _temperature(value: float) -> str:
    return f"temperature {value:g}" + (": always its first guess" if value == 0 else "")
