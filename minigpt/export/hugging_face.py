"""Export format `hf`: a folder that Hugging Face's transformers opens as GPT-2.

GPT-2's configuration and tensors are in gpt2_names.py, tokenizers in tokenizer_out.py, the README in model_card.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigpt.export.exporting import ExportSource
from minigpt.export.gpt2_names import to_gpt2_config, to_gpt2_tensors
from minigpt.export.model_card import model_card
from minigpt.export.safe_load import WEIGHTS
from minigpt.export.tokenizer_out import save_tokenizer
from minigpt.runs.checkpoint import write_tensors

CONFIG, GENERATION_CONFIG, CARD = "config.json", "generation_config.json", "README.md"


def write(source: ExportSource, folder: Path) -> None:
    """Writes configuration, weights, generation settings, tokenizer and model card into an empty folder.

    Raises:
        ConfigError: if GPT-2's architecture cannot express the model.
    """
    config, tokenizer = source.model.config, source.tokenizer
    settings = to_gpt2_config(config, tokenizer.end_of_text)
    write_tensors(folder / WEIGHTS, to_gpt2_tensors(source.model), {"format": "pt"})
    _write_json(folder / CONFIG, settings)
    generation = {name: settings[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if padding := list(range(tokenizer.vocab_size, config.vocab_size)):
        generation["suppress_tokens"] = padding
    _write_json(folder / GENERATION_CONFIG, generation)
    save_tokenizer(tokenizer, folder, config.block_size)
    (folder / CARD).write_text(model_card(source), encoding="utf-8", newline="\n")


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")
