"""Samples of the models: the same prompts at every epoch and temperature, next to each other, and their metrics.

The prompt is set apart from what the model generated, and what is copied from the training text is marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from minigpt.evaluation.sample_metrics import SampleMetrics
from minigpt.generation.sample_log import SampleRecord
from minigpt.report.facts import RunFacts
from minigpt.report.formatting import MISSING
from minigpt.report.sample_analysis import CopiedPassage
from minigpt.tables import Table
from minigpt.text_utils import pluralize

MAX_STEPS = 6
"""Steps of a run that are shown, evenly spaced."""

MAX_CHARACTERS = 4_000
N_OPEN = 2
"""Prompts that are unfolded at first."""

METRICS_HEADER = (
    *("samples of", "temperature", "samples", "distinct-1", "distinct-2", "distinct-3", "self-BLEU"),
    *("longest copied passage", "repetition", "known words", "copied 8-grams"),
)


def samples(runs: Sequence[RunFacts]) -> dict[str, Any] | None:
    """Returns the samples by prompt, and their metrics; None if there are none.

    Of several runs, the last samples are shown by prompt, and how they changed by run.
    """
    runs = [run for run in runs if run.sampled.samples]
    if not runs:
        return None
    prompts: list[dict[str, Any]] = []
    histories: list[tuple[str, list[dict[str, Any]]]] = []
    if len(runs) == 1:
        prompts = [_history(runs[0], prompt) for prompt in _prompts(runs)]
    else:
        prompts = [_last(runs, prompt) for prompt in _prompts(runs)]
        for run in runs:
            changing = [prompt for prompt in _prompts([run]) if len(_steps(run, prompt)) > 1]
            if changing:
                histories.append((run.label, [_history(run, prompt) for prompt in changing]))
    return {
        "prompts": prompts,
        "histories": histories,
        "n_open": N_OPEN,
        "any_copied": any(run.sampled.copies for run in runs),
        "tables": [_metrics_table(run, several=len(runs) > 1) for run in runs if run.sampled.metrics],
    }


def _prompts(runs: Sequence[RunFacts]) -> list[str]:
    """Returns all prompts, of each run the reader's own first."""
    ordered = (one for run in runs for one in sorted(run.sampled.samples, key=lambda one: one.source != "own"))
    return list(dict.fromkeys(one.prompt for one in ordered))


def _steps(run: RunFacts, prompt: str) -> list[int]:
    return sorted({one.step for one in run.sampled.samples if one.prompt == prompt})


def _history(run: RunFacts, prompt: str) -> dict[str, Any]:
    return _prompt([run], prompt, [_group(run, prompt, step, "") for step in _few(_steps(run, prompt))])


def _last(runs: Sequence[RunFacts], prompt: str) -> dict[str, Any]:
    groups = [_group(run, prompt, steps[-1], run.label) for run in runs if (steps := _steps(run, prompt))]
    return _prompt(runs, prompt, groups)


def _prompt(runs: Sequence[RunFacts], prompt: str, groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    notes = dict.fromkeys(note for run in runs for note in run.sampled.prompt_notes.get(prompt, ()))
    return {
        "prompt": prompt[:MAX_CHARACTERS],
        "notes": [f"{note[0].upper()}{note[1:]}." for note in notes],
        "groups": groups,
    }


def _group(run: RunFacts, prompt: str, step: int, label: str) -> dict[str, Any]:
    """Returns the samples of a prompt at one step, by temperature."""
    found = [one for one in run.sampled.samples if (one.prompt, one.step) == (prompt, step)]
    found.sort(key=lambda one: one.temperature)
    return {
        "label": label,
        "when": _when(found[0]),
        "samples": [_sample(one, run.sampled.copies.get(one, ())) for one in found],
    }


def _sample(one: SampleRecord, copies: Sequence[CopiedPassage]) -> dict[str, Any]:
    marked = merged(copies)
    longest = max(copies, key=lambda copy: copy.tokens, default=None)
    copied = ""
    if longest:
        copied = f"{longest.tokens} tokens in a row also occur in the training text, in"
        if len(marked) > 1:
            copied = f"{len(marked)} passages also occur in the training text; the longest has {longest.tokens} tokens "
            copied += "and is in"
    return {
        "temperature": f"temperature {one.temperature:g}"
        + (": always the first guess" if one.temperature == 0 else ""),
        "prompt": one.prompt[:MAX_CHARACTERS],
        "parts": list(_parts(one.text[:MAX_CHARACTERS], marked)),
        "cut": len(one.text) > MAX_CHARACTERS,
        "ended": one.ended,
        "copied": copied,
        "longest": longest.document if longest else "",
    }


def _parts(text: str, marked: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """Yields a text in parts, and whether each is copied."""
    done = 0
    for start, end in marked:
        yield text[done:start], False
        yield text[start:end], True
        done = end
    yield text[done:], False


def merged(copies: Sequence[CopiedPassage]) -> list[tuple[int, int]]:
    """Returns starts and ends of the copied characters; passages that overlap or touch are one."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted((copy.start, copy.end) for copy in copies):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return spans


def _metrics_table(run: RunFacts, *, several: bool) -> Table:
    """Returns the metrics of the samples by step and temperature, with those of real text below."""
    steps = set(_few(sorted({step for step, _ in run.sampled.metrics})))
    when = {one.step: _when(one) for one in run.sampled.samples}
    rows = [
        [when.get(step, f"step {step:,}"), f"{temperature:g}", *_metrics(found, found)]
        for (step, temperature), found in sorted(run.sampled.metrics.items())
        if step in steps
    ]
    caption = f"Metrics of the samples of {run.label}" if several else "Metrics of the samples"
    reference, large = run.sampled.reference, run.sampled.large_reference
    if not (reference and large):
        return Table(METRICS_HEADER, rows, caption=caption)
    rows.append(["real text, held out", "", *_metrics(reference, large)])
    note = (
        "The last row is real validation text, cut to the same length: "
        f"{pluralize(reference.n_samples, 'piece')} up to the longest copied passage, {large.n_samples} for the shares "
        "after it. Good samples come close to it. Much more copied text suggests memorization; much more repetition or "
        "lower distinct values suggest loops. Single rows vary by chance: draw conclusions only from several."
    )
    return Table(METRICS_HEADER, rows, caption=caption, highlighted=[len(rows) - 1], note=note)


def _metrics(found: SampleMetrics, shares: SampleMetrics) -> list[str]:
    """Returns the metrics that depend on the number of samples, then the shares, which may be of more samples."""

    def form(value: float | None, form: str) -> str:
        return MISSING if value is None else form.format(value)

    diversity = (found.distinct_1, found.distinct_2, found.distinct_3, found.self_bleu)
    return [
        f"{found.n_samples}",
        *(form(value, "{:.2f}") for value in diversity),
        MISSING if found.longest_copy is None else pluralize(found.longest_copy, "token"),
        *(form(value, "{:.0%}") for value in (shares.repetition, shares.known_words, shares.copied_share)),
    ]


def _few(steps: Sequence[int]) -> list[int]:
    """Returns at most MAX_STEPS of the steps, with the first and the last."""
    if len(steps) <= MAX_STEPS:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (MAX_STEPS - 1))] for place in range(MAX_STEPS)]


def _when(one: SampleRecord) -> str:
    return f"step {one.step:,}" if one.epoch is None else f"epoch {one.epoch:.4g}, step {one.step:,}"
