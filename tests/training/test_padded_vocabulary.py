"""A model whose vocabulary is larger than its tokenizer's: trained, resumed, evaluated, exported and imported."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from minigpt import load, resume
from minigpt.config import with_vocabulary
from minigpt.errors import ConfigError
from minigpt.evaluation import evaluate
from minigpt.runs.folder import RunFolder
from minigpt.training import train
from tests.conftest import tiny

PADDED = 320  # a multiple of 64; the tokenizer has 257 ids


@pytest.fixture(scope="module")
def padded_run(data_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("padded") / "run"
    train(data_folder, run, tiny(model__vocab_size=PADDED, train__steps=40, train__save_every=20))
    return run


def test_the_padding_is_part_of_the_model_and_learns_to_be_unlikely(padded_run):
    model, tokenizer = load(padded_run)
    assert RunFolder.open(padded_run).config().model.vocab_size == PADDED
    assert (model.wte.weight.shape, tokenizer.vocab_size) == ((PADDED, 16), 257)
    with torch.no_grad():
        probabilities = model(torch.arange(32)[None]).softmax(dim=-1)
    assert probabilities[..., 257:].sum(dim=-1).max() < 63 / PADDED


def test_a_resumed_run_is_exact(padded_run, data_folder, tmp_path):
    steps = iter(range(40))
    config = tiny(model__vocab_size=PADDED, train__steps=40, train__save_every=20)
    train(data_folder, tmp_path / "run", config, should_stop=lambda: next(steps) > 10)
    resume(tmp_path / "run")
    assert torch.equal(load(tmp_path / "run", "40")[0].wte.weight, load(padded_run, "40")[0].wte.weight)


def test_baselines_ignore_the_padding(padded_run):
    found = evaluate(padded_run).metrics
    assert found.baselines["uniform"].value == math.log(257)
    assert np.isfinite(found.loss.value)


@pytest.mark.parametrize("size", [256, 257 + 1025])
def test_another_vocabulary_is_refused(data_folder, tmp_path, size):
    with pytest.raises(ConfigError, match=rf"model.vocab_size {size:,}, the tokenizer has 257 ids"):
        train(data_folder, tmp_path / "run", tiny(model__vocab_size=size))
    assert not (tmp_path / "run").exists()


def test_the_tokenizers_vocabulary_is_the_default():
    assert with_vocabulary(tiny(), 257).model.vocab_size == 257
    assert with_vocabulary(tiny(model__vocab_size=PADDED), 257).model.vocab_size == PADDED
