"""In and out of Hugging Face's form: a run as a folder that `transformers` opens, and such a folder as a run.

Both are written whole or not at all, and nothing that exists is overwritten. What the two forms have in common is in
gpt2_names.py, how a stranger's files are read in safe_load.py, tokenizers in tokenizer_in.py and tokenizer_out.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt import runtime
from minigpt.config import Config, GPTConfig
from minigpt.data.atomic_directory import atomic_directory
from minigpt.errors import CheckpointError, ConfigError, RunError, TokenizerError, did_you_mean_folder
from minigpt.export.gpt2_names import (
    DEFAULTS,
    HEAD,
    WORDS,
    bare_names,
    from_gpt2_config,
    from_gpt2_tensors,
    gpt2_shapes,
    to_gpt2_config,
    to_gpt2_tensors,
)
from minigpt.export.model_card import model_card
from minigpt.export.safe_load import (
    SINGLE,
    Stored,
    check_tensors,
    find_tensors,
    read_json,
    read_tensor,
    refused,
    shown_name,
)
from minigpt.export.tokenizer_in import read_tokenizer
from minigpt.export.tokenizer_out import save_tokenizer
from minigpt.files import is_dir, is_file
from minigpt.model.accounting import parameter_count
from minigpt.runs.checkpoint import write_tensors
from minigpt.runs.folder import MODEL, RunFolder, load
from minigpt.text_utils import pluralize
from minigpt.tokenizers import Tokenizer, make_tokenizer, reads_training_text

CONFIG, GENERATION, CARD = "config.json", "generation_config.json", "README.md"

MOST_PADDING = 1024
"""So many rows may a model have beyond its tokenizer's ids, to make its vocabulary a round number."""


@dataclass(frozen=True)
class Imported:
    """What became of a checkpoint.

    Attributes:
        run: the run folder.
        config: the model's shape.
        tokenizer: which of our tokenizers gives its ids.
        parameters: how many weights it has.
        notes: what the user should know, as sentences.
    """

    run: Path
    config: GPTConfig
    tokenizer: str
    parameters: int
    notes: tuple[str, ...]


def export_hugging_face(
    run: Path | str, out: Path | str, *, checkpoint: str = "best", license: str | None = None
) -> Path:
    """Writes a run's model and tokenizer as a folder that `AutoModelForCausalLM` and `AutoTokenizer` open.

    Args:
        run: the run folder.
        out: the folder to make; it must not exist.
        checkpoint: `best` (lowest validation loss), `latest`, or a step number.
        license: the model's licence, for its card, as the hub spells it (`mit`, `cc-by-4.0`).

    Returns:
        `out`.

    Raises:
        ConfigError: if GPT-2's architecture cannot express the model; by name, with what would be needed.
        MiniGPTError: if the run cannot be read, or the folder not be written; nothing is left then.
    """
    folder, out = RunFolder.open(run), Path(out)
    if license is not None and not license.isprintable():
        remedy = "Spell it as the hub does: mit, apache-2.0, cc-by-4.0."
        raise ConfigError("The licence is no text", got=repr(license), remedy=remedy)
    model, tokenizer = load(run, checkpoint)
    settings = to_gpt2_config(model.config, tokenizer.end_of_text)
    with atomic_directory(out) as made:
        write_tensors(made / SINGLE, to_gpt2_tensors(model), {"format": "pt"})
        _write_json(made / CONFIG, settings)
        ids = {name: settings[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        _write_json(made / GENERATION, ids)
        save_tokenizer(tokenizer, made, model.config.block_size)
        card = model_card(folder, model.config, folder.find_checkpoint(checkpoint).name, license)
        (made / CARD).write_text(card, encoding="utf-8", newline="\n")
    return out


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def import_hugging_face(folder: Path | str, run: Path | str, *, tokenizer: str | None = None) -> Imported:
    """Makes a run of a GPT-2 checkpoint in Hugging Face's form: it can generate, be evaluated, and trained on from.

    Args:
        folder: holds `config.json`, `model.safetensors` or its shards, and, if there is one, the tokenizer's files.
        run: the run folder to make; it must not exist.
        tokenizer: `gpt2`, `byte` or the folder of a run, instead of the one in the folder.

    Raises:
        CheckpointError: if the checkpoint is damaged, hostile, or not of a model that ours can be; by name.
        TokenizerError: if the tokenizer's files cannot be followed, or are of another vocabulary than the model.
        MiniGPTError: if the run folder cannot be made. Nothing is left in any of these cases.
    """
    RunFolder(run).check_absent()
    folder = Path(folder)
    if is_file(folder):
        raise RunError("This is a file", got=folder, remedy=f"Give the folder that it is in: {folder.parent}")
    if is_file(RunFolder(folder).config_file) and not (folder / CONFIG).exists():
        raise RunError(
            "This is a run of Mini-GPT already",
            got=folder,
            remedy="It needs no import: `minigpt generate` and the other commands take it as it is.",
        )
    if not is_file(folder / CONFIG):
        what = "The folder holds no checkpoint: it has no config.json" if is_dir(folder) else "There is no such folder"
        near = did_you_mean_folder(folder, CONFIG)
        raise CheckpointError(what, got=folder, remedy=f"{near}Give a folder of this machine: nothing is downloaded.")
    found = read_json(folder / CONFIG)
    config = from_gpt2_config(found)
    stored = bare_names(find_tensors(folder))
    head = stored.pop(HEAD, None) if config.tie_word_embeddings else None
    check_tensors(stored, gpt2_shapes(config))
    chosen, notes = _tokenizer(folder, tokenizer, config.vocab_size)
    notes = [*notes, *_notes(found, config, chosen)]
    tensors = from_gpt2_tensors(config, lambda name: _read(stored, name, chosen.vocab_size))
    if head is not None:
        _check_tied(head, stored[WORDS])
    whole = Config(model=replace(config, vocab_size=chosen.vocab_size))
    made = RunFolder.create(
        run,
        whole,
        chosen,
        {"folder": "", "tokenizer": {"spec": chosen.spec, "identity": chosen.identity}, "splits": {}},
        runtime.environment(runtime.detect_runtime("cpu", "float32")),
        origin={"kind": "Hugging Face folder", "folder": os.fspath(folder.resolve()), "notes": notes},
        first=({MODEL: tensors}, {"config": whole.to_dict()}),
    )
    return Imported(made.path, whole.model, chosen.spec, parameter_count(whole.model), tuple(notes))


def _tokenizer(folder: Path, named: str | None, vocab_size: int) -> tuple[Tokenizer, list[str]]:
    """Returns the checkpoint's tokenizer, the one that was named or the folder's, if its ids fit the model's."""
    if named is not None and reads_training_text(named):
        raise TokenizerError(
            "This tokenizer is made from a text, and so not the checkpoint's",
            got=named,
            remedy="Name gpt2, byte, or the folder of a run or data set.",
        )
    tokenizer, notes = read_tokenizer(folder, vocab_size) if named is None else (make_tokenizer(named), [])
    if not 0 <= vocab_size - tokenizer.vocab_size <= MOST_PADDING:
        raise TokenizerError(
            "The tokenizer's vocabulary is not the model's",
            got=f"{tokenizer.vocab_size:,} ids of {tokenizer.spec}, {vocab_size:,} of the model",
            remedy="Name the one that the model was trained with: --tokenizer gpt2, byte, or the folder of a run.",
        )
    return tokenizer, notes


def _notes(found: Mapping[str, Any], config: GPTConfig, tokenizer: Tokenizer) -> Iterator[str]:
    """Yields what differs between the checkpoint and the run, as sentences."""
    if surplus := config.vocab_size - tokenizer.vocab_size:
        yield (
            f"the model has {pluralize(surplus, 'row')} more than its tokenizer has ids, as padding: left out, "
            "and their share of the probability with them"
        )
    if any(found.get(name, DEFAULTS[name]) != config.dropout for name in ("embd_pdrop", "attn_pdrop")):
        yield f"of several dropout shares, resid_pdrop's {config.dropout} is taken for all"
    end = found.get("eos_token_id")
    if end is not None and end != tokenizer.end_of_text:
        yield (
            f"config.json ends a text with id {shown_name(end)}, the tokenizer with id {tokenizer.end_of_text}: "
            "that one counts"
        )


def _read(stored: Mapping[str, Stored], name: str, vocab_size: int) -> Tensor:
    """Returns a tensor, of those with a row for each word as many rows as the tokenizer has ids."""
    tensor = read_tensor(stored[name])
    return tensor[:vocab_size].contiguous() if name in (WORDS, HEAD) else tensor


def _check_tied(head: Stored, words: Stored) -> None:
    if head.shape != words.shape or not torch.equal(read_tensor(head), read_tensor(words)):
        raise refused(
            "The output projection is not the token embedding, though config.json ties them",
            f"{HEAD} {head.shape}, {WORDS} {words.shape}",
            "If they are meant to differ: set tie_word_embeddings to false in config.json.",
        )
