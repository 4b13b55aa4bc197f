"""`train --init-from`: a run that begins with another's weights is that model at its first step, and resumes
exactly."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

from minigpt import load, resolve, resume, train
from minigpt.config import GPTConfig
from minigpt.data import prepare
from minigpt.errors import CheckpointError, ConfigError, TokenizerError
from minigpt.evaluation import split_loss
from minigpt.records import read_metrics
from minigpt.runs.checkpoint import load_tensors
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.training.api import start
from minigpt.training.resume_check import differences
from tests.conftest import TINY, tiny


class Crash(Exception):
    """Stands for a power failure."""


def crash_at(step):
    def watch(record):
        if record["kind"] == "progress" and record["step"] == step:
            raise Crash

    return watch


def weights(run, which="best"):
    return load_tensors(RunFolder.open(run).find_checkpoint(which), MODEL)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_init_from_takes_the_best_weights_and_a_new_optimizer(run_folder, data_folder, tmp_path, optimizer):
    training = start(data_folder, tmp_path / "run", tiny(optimizer__name=optimizer), init_from=run_folder)
    assert_equal(dict(training.model.named_parameters()), weights(run_folder))
    assert_equal(weights(tmp_path / "run", "0"), weights(run_folder))
    assert training.state.step == 0
    assert not any(optimizer.state for optimizer in training.optimizers)
    origin = RunFolder.open(tmp_path / "run").origin()
    assert origin["folder"] == str(run_folder.resolve())
    assert origin["checkpoint"] == RunFolder.open(run_folder).find_checkpoint().name


def test_init_from_starts_at_the_other_runs_loss(run_folder, data_folder, dataset, tmp_path):
    seen = []
    train(
        data_folder,
        tmp_path / "run",
        tiny(train__steps=1, model__dropout=0.0),
        init_from=run_folder,
        callbacks=[seen.append],
    )
    assert not [record for record in seen if record["kind"] == "note"]
    assert any(str(run_folder) in record["text"] for record in seen if record["kind"] == "message")
    first = read_metrics(tmp_path / "run" / "metrics.jsonl", "step")[0]["loss"]
    assert first < 0.6 * math.log(257)
    fresh = start(data_folder, tmp_path / "other", tiny(), init_from=run_folder)
    best = RunFolder.open(run_folder).best()["val_loss"]
    assert split_loss(fresh.model, dataset.val, fresh.machine).loss == pytest.approx(best, rel=1e-5)


def test_resuming_is_exact_even_before_the_first_checkpoint(run_folder, data_folder, tmp_path):
    config = tiny(train__save_every=10, train__steps=25, train__keep_checkpoints=100)
    train(data_folder, tmp_path / "whole", config, init_from=run_folder)
    with pytest.raises(Crash):
        train(data_folder, tmp_path / "broken", config, init_from=run_folder, callbacks=[crash_at(3)])
    for step in (4, 14):
        with pytest.raises(Crash):
            resume(tmp_path / "broken", callbacks=[crash_at(step)])
    resume(tmp_path / "broken")
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


def test_the_initial_weights_are_kept(run_folder, data_folder, tmp_path):
    train(
        data_folder,
        tmp_path / "run",
        tiny(train__save_every=5, train__steps=30, train__keep_checkpoints=1),
        init_from=run_folder,
    )
    steps = [int(folder.name[5:]) for folder in RunFolder.open(tmp_path / "run").checkpoint_folders()]
    assert steps == [0, 30]
    model, _ = load(tmp_path / "run", "0")
    assert_equal(dict(model.named_parameters()), weights(run_folder))


def test_without_checkpoints_it_never_starts_from_random_weights(run_folder, data_folder, tmp_path):
    train(data_folder, tmp_path / "run", tiny(train__steps=5), init_from=run_folder)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000000005")
    assert resume(tmp_path / "run").steps == 5  # from step 0
    for folder in RunFolder.open(tmp_path / "run").checkpoint_folders():
        shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=r"not even its initial weights.*--init-from"):
        resume(tmp_path / "run")


def test_a_run_killed_at_creation_leaves_no_folder(run_folder, data_folder, tmp_path, monkeypatch):
    def crash(*arguments):
        raise Crash

    monkeypatch.setattr("minigpt.runs.folder.checkpoint.save", crash)
    with pytest.raises(Crash):
        train(data_folder, tmp_path / "run", tiny(), init_from=run_folder)
    assert not (tmp_path / "run").exists()


def test_init_from_overrides_the_presets_model(run_folder):
    model = load(run_folder)[0].config
    settings = resolve("laptop", overrides={"model.dropout": 0.3, "train.lr": 1.0}, model=model)
    assert settings.model == GPTConfig(**{**vars(model), "dropout": 0.3})
    assert settings.train.lr == 1.0
    assert settings.train.batch_size == resolve("laptop").train.batch_size
    assert resolve(overrides={**TINY, "model.n_layer": model.n_layer}, model=model).model == model


def test_contradicting_settings_are_named_with_both_values(run_folder, data_folder, tmp_path):
    model = load(run_folder)[0].config
    file = tmp_path / "my.toml"
    file.write_text('[model]\nposition = "none"\n')
    with pytest.raises(ConfigError) as caught:
        resolve(file=file, overrides={"model.n_layer": 7}, model=model)
    assert "model.n_layer is 7, but the existing model has 1" in str(caught.value)
    assert "model.position is 'none', but the existing model has 'learned'" in str(caught.value)
    with pytest.raises(
        ConfigError, match=r"model\.n_layer 3, in tiny 1; model\.tie_word_embeddings False, in tiny True"
    ):
        train(
            data_folder,
            tmp_path / "run",
            tiny(model__n_layer=3, model__tie_word_embeddings=False),
            init_from=run_folder,
        )
    assert not (tmp_path / "run").exists()


def test_init_from_without_settings_takes_the_model(run_folder, data_folder, tmp_path):
    asked = iter([True])
    outcome = train(data_folder, tmp_path / "run", init_from=run_folder, should_stop=lambda: next(asked))
    assert outcome.stopped
    assert RunFolder.open(tmp_path / "run").config().model == RunFolder.open(run_folder).config().model


def test_another_tokenizers_data_is_refused_by_name(run_folder, text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "char", tokenizer="char", block_size=32)
    with pytest.raises(TokenizerError, match=r"char .* instead of byte"):
        train(tmp_path / "char", tmp_path / "run", tiny(), init_from=run_folder)
    assert not (tmp_path / "run").exists()
