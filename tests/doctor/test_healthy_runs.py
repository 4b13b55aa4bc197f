"""Healthy runs: nothing may be said of them."""

from __future__ import annotations

import random

import pytest

from minigpt.config import preset_names, resolve
from minigpt.data import prepare
from minigpt.doctor import diagnose, read_evidence
from minigpt.training import train
from minigpt.training.api import resume
from tests.doctor.conftest import SMALL


@pytest.mark.parametrize("preset", preset_names())
def test_of_each_preset_in_small_nothing_is_said(treat, preset):
    """A narrow model takes a higher rate, and a short run a shorter warm-up."""
    length = 320 if preset == "seed" else 200  # a constant rate takes longer to come to rest
    patient = treat(
        preset=preset, train__steps=length, train__validate_every=length // 4, train__lr=1e-2, schedule__warmup_steps=10
    )
    assert patient.said == []
    diagnosis = patient.diagnosis()
    assert [finding.observation for finding in diagnosis.findings] == []
    assert diagnosis.skipped == {}
    assert diagnosis.checks_run >= 20


def test_single_sequences_with_a_line_each(treat):
    patient = treat(
        train__batch_size=1, train__log_every=1, train__steps=300, train__lr=3e-3, schedule__warmup_steps=10
    )
    assert patient.said == []


def test_many_validations_at_a_constant_rate(treat):
    patient = treat(train__lr=1e-2, train__steps=400, train__validate_every=20, schedule__warmup_steps=10)
    assert patient.said == []


def test_few_letters(treat, tmp_path):
    """The loss falls by a hundredth, and that is all there is to learn."""
    text = "".join(random.Random(0).choices("ACGT", [4, 3, 3, 2], k=60_000))
    (tmp_path / "dna.txt").write_text(text, encoding="utf-8")
    prepare([str(tmp_path / "dna.txt")], tmp_path / "dna", tokenizer="char", block_size=32)
    patient = treat(on=tmp_path / "dna", train__lr=3e-3, train__steps=150)
    assert patient.said == []


def test_a_run_that_begins_with_anothers_weights(treat, data, tmp_path):
    """Those of a model whose weights have grown large."""
    parent = treat(name="parent", train__lr=0.1, train__steps=100, train__health_every=0)
    said = []
    watch = [lambda record: said.append(record) if record["kind"] == "finding" else None]
    model = resolve(overrides=SMALL | {"train.lr": 1e-3, "train.steps": 60, "model.vocab_size": 23})
    train(data, tmp_path / "child", model, init_from=parent.run, callbacks=watch)
    assert said == []
    assert {finding.severity for finding in diagnose(read_evidence(tmp_path / "child")).findings} <= {"hint"}


def test_a_run_that_is_made_longer(treat):
    patient = treat(preset="laptop", train__lr=1e-2, train__steps=150)
    resume(patient.run, steps=400, callbacks=[patient.watch])
    assert patient.said == []
