"""What the data set tells: too little text, a contaminated split, a vocabulary that is hardly used.

Each check is a pure function from the evidence to a finding, or None.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minigpt.atomic import unused_path
from minigpt.config_warnings import config_warnings
from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding, hint, problem
from minigpt.text_utils import shell_line

BALANCE = 20
"""Tokens for each parameter at which model and text are in balance (Hoffmann et al. 2022, "Chinchilla")."""

MIN_TOKENS = 0.5
"""Tokens for each parameter below which there is too little text, the first four epochs counted in full (Muennighoff
et al. 2023). Preset laptop has 2 on the Python library's texts, and still gains in its fifth epoch."""

TURNED = 0.01
"""A validation loss has turned if the last two are this share above the best."""

GOOD_EPOCHS = 4
"""Up to so many epochs over the same text are nearly as good as new text (the same)."""

CONTAMINATED, MUCH_CONTAMINATED = 0.05, 0.2
"""Shares of validation windows that also occur in training: licences and the like made up 2.7 % of the Python library's
texts."""

MIN_WINDOWS = 20

HARDLY_USED = 0.5
"""Share of a vocabulary: GPT-2's was used to 76 % by 97 MB of English books, to 23 % by Tiny Shakespeare."""

HEAVY = 0.1
"""Unused tokens matter if they are this share of all parameters; those of `byte` and `char` never are."""

SMALL_VOCABULARY = 1000

MAX_VAL_FRACTION = 0.5
"""The largest share of validation that `minigpt prepare` takes."""


def too_little_text(evidence: Evidence) -> Finding | None:
    """Fewer tokens than the model could use, once the validation loss has turned: until then they are enough."""
    outer, body = evidence.parameters
    losses = [record["val_loss"] for record in evidence.validations]
    if min(losses[-2:]) <= (1 + TURNED) * min(losses):
        return None
    tokens, epochs = evidence.train_tokens, evidence.total_steps / evidence.steps_per_epoch
    if evidence.origin or tokens * max(1.0, min(epochs, GOOD_EPOCHS)) / (outer + body) >= MIN_TOKENS:
        return None
    model = evidence.config.model
    width = model.n_head * max(8, model.head_dim // 4 * 2)  # rope turns pairs
    smaller = f"; else train a smaller model: {evidence.train_again('smaller', '--model.n-embd', str(width))}"
    return hint(
        "too little text",
        f"{tokens:,} tokens for {outer + body:,} parameters ({outer:,} of them embeddings): "
        f"{tokens / (outer + body):.2g} per parameter; {BALANCE} would be in balance (Hoffmann et al. 2022).",
        "The model can memorize this text before it learns its language: watch the validation loss.",
        "More text helps most" + (smaller if width < model.n_embd else "."),
    )


def contamination(evidence: Evidence) -> Finding | None:
    """Validation text that also occurs in the training text."""
    card = evidence.card
    assert card is not None
    if card.contamination <= CONTAMINATED or card.contamination_windows < MIN_WINDOWS:
        return None
    fix = "Remove reprints and near copies from the texts, and prepare them again."
    if card.split_by == "sequence":
        fix = f"Split them by whole documents: {_prepare_again(evidence, 'by-document', split_by='document')}"
    return (problem if card.contamination > MUCH_CONTAMINATED else hint)(
        "contamination",
        f"{card.contamination:.1%} of {card.contamination_windows:,} windows of the validation text also occur in the "
        "training text.",
        "The validation loss is lower than on new text: it also measures memory.",
        fix,
    )


def unused_vocabulary(evidence: Evidence) -> Finding | None:
    """A vocabulary of which the training text uses little, at the cost of many parameters.

    With --init-from there is no choice of it.
    """
    card, model = evidence.card, evidence.config.model
    assert card is not None
    unused = card.vocab_size - card.vocab_in_train
    idle = unused * model.n_embd * (1 if model.tie_word_embeddings else 2) / sum(evidence.parameters)
    used = card.vocab_in_train / card.vocab_size
    if evidence.origin or card.vocab_size < SMALL_VOCABULARY or used >= HARDLY_USED or idle < HEAVY:
        return None
    size = 4096 if card.train.text_bytes < 10_000_000 else 16_384
    return hint(
        "unused vocabulary",
        f"The training text uses {card.vocab_in_train:,} ({used:.0%}) of the {card.vocab_size:,} tokens of "
        f"{card.tokenizer}; the others are {idle:.0%} of all parameters.",
        "Unused tokens cost memory and time and learn nothing; a vocabulary learned from the text does more with less.",
        f"Prepare the text again: {_prepare_again(evidence, f'bpe{size}', tokenizer=f'bpe:{size}')}",
    )


def small_validation(evidence: Evidence) -> Finding | None:
    """A validation split too short for its loss to mean much."""
    found = next((each for each in config_warnings(evidence.intervals) if each.name == "small validation"), None)
    if found is None:
        return None
    card, larger = evidence.card, ""
    if card and card.val_fraction is not None and card.val_fraction < MAX_VAL_FRACTION:
        share = min(MAX_VAL_FRACTION, max(0.2, 2 * card.val_fraction))
        larger = f", or a larger share of it: {_prepare_again(evidence, 'more-val', val_fraction=share)}"
    observation, _, explanation = found.text.partition(": ")
    return hint(
        "small validation",
        f"{observation}.",
        f"{explanation[0].upper()}{explanation[1:]}",
        f"More text helps{larger or '.'}",
    )


def _prepare_again(evidence: Evidence, suffix: str, **changes: Any) -> str:
    """Returns how to prepare the same texts with changed options: a command if it can be run, else words."""
    card = evidence.card
    assert card is not None
    folder = Path(str(evidence.data["folder"]))
    asked = {
        "tokenizer": evidence.origin or card.tokenizer,  # a run's folder means its tokenizer
        "val_fraction": "0.1" if card.val_fraction is None else f"{card.val_fraction:g}",
        "split_by": card.split_by,
        "block_size": card.block_size,
        "seed": card.seed,
    } | {name: f"{value:g}" if isinstance(value, float) else value for name, value in changes.items()}
    defaults = {"val_fraction": "0.1", "split_by": "document", "block_size": 512, "seed": 0}
    options = card.source_options.arguments() + [
        word
        for name, value in asked.items()
        if name in changes or defaults.get(name) != value
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    options += ["--val", *card.val_sources] if card.val_sources else []
    sources = [*card.sources, *card.val_sources]
    if not all(source in ("pylib", "pylib-code") or Path(source).exists() for source in sources):
        return f"with the same options as before, a new --out, and {shell_line(options)}."
    out = unused_path(folder.with_name(f"{folder.name}-{suffix}"))
    return f"`{shell_line(['minigpt', 'prepare', *card.sources, '--out', str(out), *options])}`"
