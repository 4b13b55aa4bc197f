"""Import: a GPT-2 checkpoint in Hugging Face's format as a run, which appears whole or not at all.

The files are read as untrusted input (safe_load.py); GPT-2's configuration and tensors are in gpt2_names.py, tokenizers
in tokenizer_in.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt import runtime
from minigpt.config import Config, GPTConfig, vocabulary_fits
from minigpt.errors import CheckpointError, RunError, TokenizerError, did_you_mean_folder
from minigpt.export.gpt2_names import (
    DEFAULTS,
    OUTPUT_PROJECTION,
    TOKEN_EMBEDDING,
    bare_names,
    from_gpt2_config,
    from_gpt2_tensors,
    gpt2_shapes,
)
from minigpt.export.hugging_face import CONFIG
from minigpt.export.safe_load import (
    StoredTensor,
    check_tensors,
    find_tensors,
    quote,
    read_json,
    read_tensor,
    refusal,
)
from minigpt.export.tokenizer_in import read_tokenizer
from minigpt.files import is_dir, is_file
from minigpt.model.accounting import parameter_count
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.text_utils import pluralize
from minigpt.tokenizers import Tokenizer, make_tokenizer, reads_training_text


@dataclass(frozen=True)
class ImportedModel:
    """The result of an import.

    Attributes:
        run: the run folder.
        config: the model's shape.
        tokenizer: which of Mini-GPT's tokenizers gives its ids.
        parameters: the number of weights.
        notes: differences between checkpoint and run, as sentences.
    """

    run: Path
    config: GPTConfig
    tokenizer: str
    parameters: int
    notes: tuple[str, ...]


def import_hugging_face(folder: Path | str, run: Path | str, *, tokenizer: str | None = None) -> ImportedModel:
    """Makes a run of a GPT-2 checkpoint in Hugging Face's format: for generation, evaluation and `train --init-from`.

    Args:
        folder: contains `config.json`, `model.safetensors` or its shards, and usually the tokenizer's files.
        run: the run folder to make; it must not exist.
        tokenizer: `gpt2`, `byte` or the folder of a run, instead of the tokenizer in the folder.

    Raises:
        CheckpointError: if the checkpoint is damaged, hostile, or not a model that Mini-GPT supports.
        TokenizerError: if the tokenizer is not supported, or does not belong to the model.
        MiniGPTError: if the run folder cannot be made. Nothing is left behind in any of these cases.
    """
    RunFolder(run).check_absent()
    folder = Path(folder)
    _check_folder(folder)
    found = read_json(folder / CONFIG)
    config = from_gpt2_config(found)
    stored = bare_names(find_tensors(folder))
    head = stored.pop(OUTPUT_PROJECTION, None) if config.tie_word_embeddings else None
    check_tensors(stored, gpt2_shapes(config))
    chosen, notes = _tokenizer(folder, tokenizer, config.vocab_size)
    notes = [*notes, *_notes(found, config, chosen)]
    tensors = from_gpt2_tensors(config, lambda name: read_tensor(stored[name]))
    if head is not None:
        _check_tied(head, stored[TOKEN_EMBEDDING])
    whole = Config(model=config)
    made = RunFolder.create(
        run,
        whole,
        chosen,
        {"folder": "", "tokenizer": {"spec": chosen.spec, "identity": chosen.identity}, "splits": {}},
        runtime.environment(runtime.detect_runtime("cpu", "float32")),
        origin={"kind": "Hugging Face folder", "folder": os.fspath(folder.resolve()), "notes": notes},
        first=({MODEL: tensors}, {"config": whole.to_dict()}),
    )
    return ImportedModel(made.path, config, chosen.spec, parameter_count(config), tuple(notes))


def _check_folder(folder: Path) -> None:
    if is_file(folder):
        raise RunError("Not a folder", got=folder, remedy=f"Give the folder that contains it: {folder.parent}")
    if is_file(RunFolder(folder).config_file) and not (folder / CONFIG).exists():
        raise RunError(
            "Already a run of Mini-GPT",
            got=folder,
            remedy="It needs no import: `minigpt generate` and the other commands read it directly.",
        )
    if not is_file(folder / CONFIG):
        what = "Not a checkpoint: config.json not found" if is_dir(folder) else "Folder not found"
        near = did_you_mean_folder(folder, CONFIG)
        raise CheckpointError(what, got=folder, remedy=f"{near}Give a local folder; nothing is downloaded.")


def _tokenizer(folder: Path, named: str | None, vocab_size: int) -> tuple[Tokenizer, list[str]]:
    """Returns the named tokenizer, or else the folder's, if its ids fit the model's vocabulary."""
    if named is not None and reads_training_text(named):
        raise TokenizerError(
            "This tokenizer is made from a text, so it cannot be the checkpoint's",
            got=named,
            remedy="Give gpt2, byte, or the folder of a run or data set.",
        )
    tokenizer, notes = read_tokenizer(folder, vocab_size) if named is None else (make_tokenizer(named), [])
    if not vocabulary_fits(vocab_size, tokenizer.vocab_size):
        raise TokenizerError(
            "The tokenizer does not belong to the model",
            got=f"{tokenizer.spec} has {tokenizer.vocab_size:,} ids, the model {vocab_size:,}",
            remedy="Give the one that the model was trained with: --tokenizer gpt2, byte, or the folder of a run.",
        )
    return tokenizer, notes


def _notes(found: Mapping[str, Any], config: GPTConfig, tokenizer: Tokenizer) -> Iterator[str]:
    """Yields the differences between the checkpoint and the run, as sentences."""
    if padding := config.vocab_size - tokenizer.vocab_size:
        yield f"the model has {pluralize(padding, 'id')} more than its tokenizer: padding, which is never generated"
    if any(found.get(name, DEFAULTS[name]) != config.dropout for name in ("embd_pdrop", "attn_pdrop")):
        yield f"the dropout probabilities differ; resid_pdrop's {config.dropout} is used for all"
    end = found.get("eos_token_id")
    if end is not None and end != tokenizer.end_of_text:
        yield (
            f"config.json ends a text with id {quote(end)}, the tokenizer with id {tokenizer.end_of_text}; the "
            "tokenizer's is used"
        )


def _check_tied(head: StoredTensor, embedding: StoredTensor) -> None:
    if head.shape != embedding.shape or not torch.equal(read_tensor(head), read_tensor(embedding)):
        raise refusal(
            "The output projection differs from the token embedding, but config.json ties them",
            f"{OUTPUT_PROJECTION} {head.shape}, {TOKEN_EMBEDDING} {embedding.shape}",
            "If they should differ, set tie_word_embeddings to false in config.json.",
        )
