"""Settings that do not fit the run, a model that counting beats, and what too little was seen of: really trained."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigpt.config import resolve
from minigpt.data import Dataset, prepare
from minigpt.doctor import diagnose, loss_checks, read_evidence
from minigpt.doctor.entropy import bigram_val_loss, conditional_entropy
from minigpt.doctor.references import read_references
from minigpt.evaluation import evaluate
from minigpt.report.cache import cached_evaluation
from minigpt.runs.folder import RunFolder
from minigpt.runs.snapshot import RunSnapshot


@pytest.fixture(scope="session")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters that follow from the two before them, so that pairs do not tell all."""
    folder, language, chance = tmp_path_factory.mktemp("ordered"), random.Random(0), random.Random(1)
    after = {a + b: language.sample("abcdefgh", 2) for a in "abcdefgh" for b in "abcdefgh"}
    text = "ab"
    for _ in range(20_000):
        text += chance.choice(after[text[-2:]])
    (folder / "text.txt").write_text(text + "\n", encoding="utf-8")
    prepare([str(folder / "text.txt")], folder / "data", tokenizer="char", block_size=32)
    return folder / "data"


@pytest.mark.parametrize(
    ("changes", "name", "severity", "option"),
    [
        ({"schedule__warmup_steps": 100}, "warm-up", "problem", "--schedule.warmup-steps 2"),
        (
            {"schedule__name": "wsd", "schedule__warmup_steps": 8, "schedule__decay_ratio": 0.9},
            "decay",
            "hint",
            "--schedule.decay-ratio 0.3",
        ),
        ({"train__batch_size": 64}, "batch size", "hint", "--train.batch-size 4"),
    ],
)
def test_what_does_not_fit_is_said_before_the_run_and_found_after_it(
    treat, little_data, changes, name, severity, option
):
    patient = treat(on=little_data, train__steps=20, **{"train__lr": 1e-3, **changes})
    finding = patient.found[name]
    assert finding.severity == severity
    assert option in finding.fix
    assert any(text.startswith(finding.observation) and option in text for text in patient.texts)


def test_a_run_shorter_than_its_warm_up_is_not_judged_by_its_rate(treat):
    """Its rate is low because it rises, not because it has come to its end."""
    patient = treat(train__steps=60, train__validate_every=20, train__lr=3e-3, schedule__warmup_steps=200)
    found = patient.found
    assert "200 steps of the run's 60" in found["warm-up"].observation
    assert not {"ended too early", "learning rate too low", "worse than bigram"} & found.keys()
    assert "no health record from around the peak" in patient.diagnosis().skipped["learning rate too low"]
    evidence = read_evidence(patient.run)
    assert not evidence.decayed
    assert "minigpt resume" in loss_checks._longer(evidence, 2)


def test_two_health_records_of_which_one_is_the_first_step_are_no_series(treat):
    patient = treat(train__steps=30, train__health_every=100, train__lr=1e-3)
    skipped = patient.diagnosis().skipped
    assert skipped["dead units"] == skipped["saturated heads"]
    assert "fewer than two health records after its first step; --train.health-every" in skipped["dead units"]


def test_a_model_that_counting_pairs_beats(treat, ordered):
    patient = treat(on=ordered, train__steps=12, train__validate_every=6, train__lr=3e-3)
    finding = patient.found["worse than bigram"]
    assert finding.severity == "problem"
    assert finding.fix == f"Continue it: `minigpt resume {patient.run} --steps 48`"
    assert "ended too early" not in patient.found
    assert "worse than bigram" not in patient.live  # until it has ended, each model is worse than that
    evidence = read_evidence(patient.run)
    lowest = min(record["val_loss"] for record in evidence.validations)
    assert f"{lowest:.3f}; that of a bigram model is {evidence.bigram_loss:.3f}" in finding.observation
    evidence.bigram_loss = lowest + 1e-3
    assert loss_checks.worse_than_bigram(evidence) is None
    evidence.bigram_loss, evidence.last_step = 0.1, 11
    assert loss_checks.worse_than_bigram(evidence) is None  # it was stopped
    evidence.last_step = 12
    evidence.validations[-1]["train_loss"] = 0.05
    assert "more text helps" in loss_checks.worse_than_bigram(evidence).fix


def test_a_model_that_has_learned_more_than_pairs(treat, ordered):
    patient = treat(on=ordered, train__steps=160, train__lr=1e-2)
    assert "worse than bigram" not in patient.found
    evidence = read_evidence(patient.run)
    assert evidence.validations[-1]["val_loss"] < evidence.bigram_loss < evidence.unigram_entropy


def test_where_pairs_are_all_there_is_nobody_need_do_better(data, ordered):
    """In the text of the other runs each letter depends on one before it; in the ordered one, on two."""
    few, more = Dataset.open(data), Dataset.open(ordered)
    assert conditional_entropy(few.train, 3) == pytest.approx(conditional_entropy(few.train, 2), rel=0.02)
    assert conditional_entropy(more.train, 3) == pytest.approx(np.log(2), rel=0.02)
    assert conditional_entropy(more.train, 3) < 0.9 * conditional_entropy(more.train, 2)


def test_the_loss_of_pairs_is_the_evaluations(run_folder, dataset, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    exact = evaluate(run, machine=RunFolder(run).config().machine).metrics.baselines["bigram"].value
    assert bigram_val_loss(dataset) == pytest.approx(exact, abs=1e-5)
    folder = RunFolder(run)
    cached_evaluation(RunSnapshot.read(run), "best", dataset, folder.config().machine, lambda *_: None)
    content = json.loads(folder.evaluation_file.read_text())
    content["evaluation"]["metrics"]["baselines"]["bigram"]["value"] = 1.25  # of a text too long to count here
    folder.evaluation_file.write_text(json.dumps(content))
    assert read_evidence(run).bigram_loss == 1.25
    content["made_of"]["val"] = "another text"
    folder.evaluation_file.write_text(json.dumps(content))
    assert read_evidence(run).bigram_loss == pytest.approx(exact, abs=1e-5)


def test_without_the_data_set_the_check_is_left_out(evidence, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**data, "folder": str(tmp_path / "gone")}))
    assert "the data set is not available" in diagnose(read_evidence(run)).skipped["worse than bigram"]


def like(evidence: Any, preset: str, reference: Any, **changes: Any) -> Any:
    """Evidence of a run with a preset's settings on a reference's text."""
    splits = {
        "train": {"tokens": reference.train_tokens, "text_bytes": reference.text_bytes - 1000, "sha256": "other"},
        "val": {"tokens": 1000, "text_bytes": 1000, "sha256": "other"},
    }
    data = {**evidence.data, "splits": splits, "tokenizer": {"spec": changes.pop("tokenizer", reference.tokenizer)}}
    return replace(evidence, config=resolve(preset, overrides=changes), data=data)


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        (
            "shakespeare",
            {"tokenizer": "bpe:1024"},
            "same text (tinyshakespeare, tokenized with char instead of bpe:1024)",
        ),
        ("shakespeare", {}, "same text (tinyshakespeare), but split differently"),
        ("shakespeare", {"train.steps": 400}, "same text (tinyshakespeare), but split differently"),
        (
            "shakespeare",
            {"model.block_size": 32},
            "nearest, shakespeare, differs in model.block_size (here 32, there 64).",
        ),
        (
            "laptop",
            {"model.n_layer": 6, "train.grad_clip": 0.5},
            "model.n_layer (here 6, there 4), train.grad_clip (here 0.5, there 1.0).",
        ),
        (
            "laptop",
            {
                "model.n_layer": 6,
                "model.mlp": "gelu",
                "train.grad_clip": 2.0,
                "optimizer.beta2": 0.9,
                "train.batch_size": 2,
            },
            "and 1 more.",
        ),
    ],
)
def test_what_differs_from_the_reference_is_said(evidence, preset, changes, words):
    every = read_references()
    reference = next(one for one in every if (one.preset, one.corpus) == ("shakespeare", "tinyshakespeare"))
    assert words in diagnose(like(evidence, preset, reference, **changes), every).normality.text


def test_a_text_that_only_other_presets_were_trained_on(evidence):
    every = [one for one in read_references() if one.preset != "deep"]
    text = diagnose(like(evidence, "deep", every[0]), every).normality.text
    assert text.startswith(f"Only other presets have reference runs on this text, {every[0].corpus} (laptop, seed")


def test_every_reference_knows_the_size_of_its_text():
    sizes = {(one.corpus, one.text_bytes) for one in read_references()}
    assert len(sizes) == len({corpus for corpus, _ in sizes})
    assert all(size > 1_000_000 for _, size in sizes)


def test_the_rates_that_are_advised_have_warm_ups_that_fit(evidence):
    from minigpt.doctor.health_checks import _gentler

    short = replace(evidence, config=resolve("shakespeare", overrides={"train.steps": 40}))
    assert "--schedule.warmup-steps 13" in _gentler(short)
    assert "--schedule.warmup-steps 200" in _gentler(replace(evidence, config=resolve("shakespeare")))
