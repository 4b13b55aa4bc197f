"""Runs and Hugging Face folders with random weights, made in no time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt import runtime
from minigpt.config import Config, GPTConfig
from minigpt.model import GPT
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.state_dict import model_tensors
from minigpt.tokenizers import make_tokenizer

SHAPE = GPTConfig(block_size=48, n_layer=2, n_head=4, n_embd=16, n_inner=40, dropout=0.1)

TEXT = "the cat sees the dog.\nthe dog hears 12 birds, isn't it?\n" * 3


def make_run(path: Path, spec: str = "byte", text: str = TEXT, **shape: Any) -> Path:
    """A run with random weights, large ones, so that a mistake in any part of the model shows."""
    tokenizer = make_tokenizer(spec, [text])
    config = Config(model=replace(SHAPE, vocab_size=tokenizer.vocab_size, **shape))
    torch.manual_seed(0)
    model = GPT(config.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    environment = runtime.environment(runtime.detect_runtime("cpu", "float32"))
    first = {MODEL: model_tensors(model)}, {"config": config.to_dict()}
    data = {"folder": "", "tokenizer": {"spec": "", "identity": ""}, "splits": {}}
    RunFolder.create(path, config, tokenizer, data, environment, origin={"kind": "test", "folder": "."}, first=first)
    return path


@pytest.fixture(scope="session")
def make_gpt2() -> Callable[..., GPT2LMHeadModel]:
    """Makes transformers' GPT-2 with random weights; settings as GPT2Config takes them."""

    def make(**settings: Any) -> GPT2LMHeadModel:
        base = {"vocab_size": 257, "n_positions": 48, "n_embd": 16, "n_layer": 2, "n_head": 4}
        ids = {"bos_token_id": 256, "eos_token_id": 256}
        torch.manual_seed(1)
        model = GPT2LMHeadModel(GPT2Config(**{**base, **ids, **settings})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2)
        return model

    return make


@pytest.fixture(scope="session")
def plain(make_gpt2: Callable[..., GPT2LMHeadModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of it without a tokenizer, made for bytes; tests only read it."""
    folder = tmp_path_factory.mktemp("hf") / "plain"
    make_gpt2().save_pretrained(folder)
    return folder
