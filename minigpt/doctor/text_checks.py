"""What the data set tells: too little text, a split that overlaps, a vocabulary that is hardly used.

Each check is a pure function from the evidence to a finding, or None.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minigpt.atomic import unused_path
from minigpt.config_warnings import MIN_VAL_TOKENS
from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding
from minigpt.text_utils import pluralize, shell_line

ENOUGH = 20
"""Tokens for each parameter at which model and text are in balance (Hoffmann et al. 2022, "Chinchilla")."""

TOO_FEW = 0.5
"""Below this there is too little text, the first four epochs counted in full (Muennighoff et al. 2023). Preset laptop
has 2 on the Python library's texts, and still gains in its fifth epoch."""

TURNED = 0.01
"""A validation loss has turned if the last two are this share above the best; from one to the next it may waver."""

WORTH = 4
"""So many epochs over the same text are nearly as good as new text (the same)."""

OVERLAP, MUCH_OVERLAP = 0.05, 0.2
"""Shares of validation windows that stand in training: licences and the like made up 2.7 % of the Python library's."""

FEWEST_WINDOWS = 20

HARDLY_USED = 0.5
"""Share of a vocabulary: GPT-2's was used to 76 % by 97 MB of English books, to 23 % by Tiny Shakespeare."""

HEAVY = 0.1
"""Idle words matter where they are this share of all parameters; those of `byte` and `char` never are."""

SMALL_VOCABULARY = 1000

MOST_VALIDATED = 0.5
"""The largest share of validation that `minigpt prepare` takes."""


def too_little_text(evidence: Evidence) -> Finding | None:
    """Fewer tokens than the model could take up, once the validation loss has turned: until then they are enough."""
    outer, body = evidence.parameters
    losses = [record["val_loss"] for record in evidence.validations]
    if min(losses[-2:]) <= (1 + TURNED) * min(losses):
        return None
    tokens, epochs = evidence.train_tokens, evidence.total_steps / evidence.steps_per_epoch
    if evidence.origin or tokens * max(1.0, min(epochs, WORTH)) / (outer + body) >= TOO_FEW:
        return None
    model = evidence.config.model
    width = model.n_head * max(8, model.head_dim // 4 * 2)  # rope turns pairs
    smaller = f"; else a smaller model: `{evidence.again('smaller', '--model.n-embd', str(width))}`"
    return Finding(
        "too little text",
        "hint",
        f"{tokens:,} tokens for {outer + body:,} parameters ({outer:,} of them embeddings): "
        f"{tokens / (outer + body):.2g} a parameter; {ENOUGH} would be in balance (Hoffmann et al. 2022).",
        "The model can learn this text by heart sooner than its language: watch the validation loss.",
        "More text helps most" + (smaller if width < model.n_embd else "."),
    )


def overlap(evidence: Evidence) -> Finding | None:
    """Validation text that stands in training too."""
    report = evidence.report
    assert report is not None
    if report.contamination <= OVERLAP or report.contamination_windows < FEWEST_WINDOWS:
        return None
    remedy = "Take reprints and near copies out of the texts, and prepare them anew."
    if report.split_by == "sequence":
        remedy = f"Split them by whole documents: {_prepared(evidence, 'apart', split_by='document')}"
    return Finding(
        "overlap",
        "problem" if report.contamination > MUCH_OVERLAP else "hint",
        f"{report.contamination:.1%} of {report.contamination_windows:,} stretches of the validation text "
        "also occur in training.",
        "The validation loss is lower than on new text: it measures memory as well.",
        remedy,
    )


def idle_vocabulary(evidence: Evidence) -> Finding | None:
    """A vocabulary of which the training text uses little, at the cost of many parameters.

    Whoever begins with another's weights has no choice of it.
    """
    report, model = evidence.report, evidence.config.model
    assert report is not None
    unused = report.vocab_size - report.vocab_in_train
    idle = unused * model.n_embd * (1 if model.tie_word_embeddings else 2) / sum(evidence.parameters)
    used = report.vocab_in_train / report.vocab_size
    if evidence.origin or report.vocab_size < SMALL_VOCABULARY or used >= HARDLY_USED or idle < HEAVY:
        return None
    size = 4096 if report.train.text_bytes < 10_000_000 else 16_384
    return Finding(
        "vocabulary",
        "hint",
        f"Of {report.vocab_size:,} tokens of {report.tokenizer} the training text uses {report.vocab_in_train:,} "
        f"({used:.0%}); the others are {idle:.0%} of all parameters.",
        "They cost memory and time and learn nothing; a vocabulary made from the text says more with less.",
        "Prepare the text anew: " + _prepared(evidence, f"bpe{size}", tokenizer=f"bpe:{size}"),
    )


def small_validation(evidence: Evidence) -> Finding | None:
    """A validation split too short for its loss to mean much."""
    tokens = int(evidence.data["splits"]["val"]["tokens"])
    if tokens >= MIN_VAL_TOKENS:
        return None
    report, larger = evidence.report, ""
    if report and report.val_fraction is not None and report.val_fraction < MOST_VALIDATED:
        share = min(MOST_VALIDATED, max(0.2, 2 * report.val_fraction))
        larger = _prepared(evidence, "more-val", val_fraction=share)
    return Finding(
        "small validation",
        "hint",
        f"The validation split holds {pluralize(tokens, 'token')}.",
        "Its loss depends on which few passages they are; small differences between runs mean nothing.",
        "More text helps" + (f", or a larger share of it: {larger}" if larger else "."),
    )


def _prepared(evidence: Evidence, suffix: str, **changes: Any) -> str:
    """Returns how to prepare the same texts in another way: a command where it is sure to run, else words."""
    report = evidence.report
    assert report is not None
    folder = Path(str(evidence.data["folder"]))
    asked = {
        "tokenizer": evidence.origin or report.tokenizer,  # a run's folder means its tokenizer
        "val_fraction": "0.1" if report.val_fraction is None else f"{report.val_fraction:g}",
        "split_by": report.split_by,
        "block_size": report.block_size,
        "seed": report.seed,
    } | {name: f"{value:g}" if isinstance(value, float) else value for name, value in changes.items()}
    usual = {"val_fraction": "0.1", "split_by": "document", "block_size": 512, "seed": 0}
    options = report.source_options.arguments() + [
        word
        for name, value in asked.items()
        if name in changes or usual.get(name) != value
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    options += ["--val", *report.val_sources] if report.val_sources else []
    sources = [*report.sources, *report.val_sources]
    if not all(source in ("pylib", "pylib-code") or Path(source).exists() for source in sources):
        return f"with the options that it was given, a new --out, and {shell_line(options)}."
    out = unused_path(folder.with_name(f"{folder.name}-{suffix}"))
    return f"`{shell_line(['minigpt', 'prepare', *report.sources, '--out', str(out), *options])}`"
