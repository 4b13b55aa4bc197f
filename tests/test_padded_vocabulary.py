"""A model whose vocabulary is larger than its tokenizer's: training, resuming, generating, evaluating, exporting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from minigpt import generate, load, resume
from minigpt.config import resolve, with_vocabulary
from minigpt.errors import ConfigError
from minigpt.evaluation import evaluate
from minigpt.export.exporting import export_run
from minigpt.export.importing import import_hugging_face
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


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padding_is_never_generated(padded_run, temperature):
    model, tokenizer = load(padded_run)
    with torch.no_grad():
        model.wte.weight[257:] = 100 * model.wte.weight[:63].sign()  # makes many of these ids the most likely ones
    ids = tokenizer.encode(generate(model, tokenizer, "the ", max_new_tokens=30, temperature=temperature, seed=1))
    assert len(ids)
    assert ids.max() < 257


def test_an_exported_run_comes_back_unchanged(padded_run, tmp_path):
    export_run(padded_run, tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text("utf-8")
    assert "257 ids, `byte`, and 63 unused" in card
    made = import_hugging_face(tmp_path / "hf", tmp_path / "back")
    assert (made.config.vocab_size, made.tokenizer) == (PADDED, "byte")
    assert torch.equal(load(tmp_path / "back")[0].wte.weight, load(padded_run)[0].wte.weight)


def test_its_weights_can_be_trained_further(padded_run, data_folder, tmp_path):
    model = load(padded_run)[0].config
    train(data_folder, tmp_path / "run", resolve(model=model, overrides={"train.steps": 2}), init_from=padded_run)
    assert load(tmp_path / "run", "latest")[0].config.vocab_size == PADDED


def test_doctor_and_report_read_it(call, padded_run, tmp_path):
    assert call("doctor", padded_run)[0] in (0, 1)
    assert call("report", padded_run, "--out", tmp_path / "report.html")[0] == 0
