"""Every finding, on a run that was made sick on purpose and really trained. A GPU's are in test_machine.py."""

from __future__ import annotations

import json
import math
import random
import time

import numpy as np
import pytest
import torch

from minigpt.config import resolve
from minigpt.data import Batch, prepare
from minigpt.doctor import diagnose, loss_checks, read_evidence, references, speed_checks
from minigpt.doctor.references import collect
from minigpt.records import read_metrics
from minigpt.training.api import resume
from tests.doctor.conftest import write_texts


def test_a_first_loss_too_high(treat):
    def enlarge(training):
        with torch.no_grad():
            training.model.wte.weight.mul_(100)

    patient = treat(before=enlarge, train__steps=1)
    assert patient.live == ["initial loss"]
    finding = patient.found["initial loss"]
    assert finding.severity == "problem"
    assert "too large" in finding.explanation
    assert "ln(vocabulary) = 3.135" in finding.observation
    assert finding.step == 1


def test_a_first_loss_too_low(treat):
    """The bias of each answer stands in the question: every target is the token itself."""

    def leak(training):
        batch = training.batches.batch
        training.batches.batch = lambda step: Batch(batch(step).x, batch(step).x)
        with torch.no_grad():
            training.model.wte.weight.mul_(20)

    patient = treat(before=leak, train__steps=1)
    assert "see its targets" in patient.found["initial loss"].explanation


def test_a_loss_that_does_not_move(treat):
    patient = treat(train__lr=1e-9, train__steps=120, train__health_every=0)
    assert "loss plateau" in patient.live
    finding = patient.found["loss plateau"]
    assert finding.severity == "problem"
    assert "--train.lr 0.0005" in finding.fix


def test_a_loss_that_stands_where_counting_brings_it(treat, monkeypatch):
    """The targets are shuffled: how often each occurs is all that can be learned."""

    def shuffle(training):
        batch, chance = training.batches.batch, np.random.default_rng(0)
        training.batches.batch = lambda step: Batch(batch(step).x, chance.permuted(batch(step).y, axis=1))

    monkeypatch.setattr(loss_checks, "UNIGRAM_STEPS", 150)
    patient = treat(before=shuffle, train__lr=1e-2, train__steps=200, model__n_layer=1)
    assert "loss plateau" in patient.live
    assert "how often each token occurs" in patient.found["loss plateau"].observation


@pytest.mark.parametrize("preset", ["seed", "laptop"])
def test_a_learning_rate_far_too_high(treat, preset):
    patient = treat(preset=preset, train__lr=2.0, train__steps=100)
    assert patient.live == ["learning rate too high"]
    assert list(patient.found) == ["learning rate too high"]
    finding = patient.found["learning rate too high"]
    assert "times their initial size" in finding.observation
    assert f"--train.lr {resolve(preset).train.lr:g}`" in finding.fix


def test_a_loss_that_rises_again(treat):
    """No look inside: the loss alone tells it."""
    patient = treat(
        train__lr=3.0, train__grad_clip=0.0, train__steps=100, train__health_every=0, schedule__warmup_steps=1000
    )
    finding = patient.found["learning rate too high"]
    assert "has risen" in finding.observation
    assert finding.step < 90


def test_a_learning_rate_far_too_low(treat):
    patient = treat(train__lr=1e-6, train__steps=120)
    assert "learning rate too low" in patient.live
    assert "loss plateau" not in patient.found
    assert "--train.lr 0.0005" in patient.found["learning rate too low"].fix


def test_overfitting(treat, little_data):
    patient = treat(
        on=little_data, preset="laptop", train__lr=2e-2, train__epochs=20, model__n_embd=64, train__batch_size=4
    )
    assert "overfitting" in patient.live
    assert "diminishing returns" not in patient.found
    finding = patient.found["overfitting"]
    best = min(patient.validations, key=lambda record: record["val_loss"])
    assert (finding.epoch, finding.step) == (best["epoch"], best["step"])
    assert finding.severity == "problem"
    assert f"at epoch {best['epoch']:g}" in finding.observation
    assert {"too little text", "small validation"} <= set(patient.found)


def test_epochs_that_bring_nothing_more(treat, tmp_path):
    """Letters at random, and a model too small to know them by heart: it has soon learned all there is."""
    (tmp_path / "text.txt").write_text("".join(random.Random(1).choices("abcdefghik", k=16_000)), encoding="utf-8")
    prepare([str(tmp_path / "text.txt")], tmp_path / "random", tokenizer="char")
    patient = treat(on=tmp_path / "random", train__lr=3e-3, train__epochs=7, model__n_layer=1, model__n_embd=16)
    assert list(patient.found) == ["diminishing returns", "small validation"]
    assert patient.found["diminishing returns"].severity == "hint"
    assert "--epochs" in patient.found["diminishing returns"].fix


def test_an_end_that_comes_too_early(treat):
    patient = treat(train__lr=3e-3, train__steps=60, train__validate_every=30)
    finding = patient.found["ended too early"]
    assert patient.live == []
    assert "minigpt resume" in finding.fix
    assert "--steps 120" in finding.fix
    decayed = treat(name="decayed", train__lr=3e-3, train__steps=60, train__validate_every=30, schedule__name="linear")
    assert "minigpt train" in decayed.found["ended too early"].fix


def test_a_layer_whose_gradient_is_nothing(treat):
    def empty(training):
        with torch.no_grad():
            for parameter in training.model.h[1].mlp.parameters():
                parameter.zero_()

    patient = treat(before=empty, train__lr=1e-2, train__steps=60, model__bias=False)
    assert patient.live == ["vanishing gradient"]
    assert "h.1.mlp" in patient.found["vanishing gradient"].observation


def test_a_gradient_that_explodes(treat):
    def enlarge(training):
        if training.state.step == 150:
            training.gradients._add = lambda *arguments, add=training.gradients._add: enlarged(
                training, add(*arguments)
            )

    def enlarged(training, result):
        for parameter in training.model.parameters():
            parameter.grad *= 1000
        return result

    patient = treat(after_step=enlarge, train__lr=1e-2, train__steps=200)
    assert "exploding gradient" in patient.live
    finding = patient.found["exploding gradient"]
    assert 150 < finding.step <= 160
    assert "has the largest" in finding.observation


def test_dead_units(treat):
    def kill(training):
        with torch.no_grad():
            training.model.h[1].mlp.c_fc.bias[:32] = -100.0  # of 64

    patient = treat(before=kill, train__lr=1e-2, train__steps=60)
    assert patient.live == ["dead units"]
    assert "50% of the hidden units of h.1.mlp" in patient.found["dead units"].observation


def test_saturated_heads(treat):
    def saturate(training):
        with torch.no_grad():
            training.model.h[0].attn.c_attn.weight[: 2 * 32] *= 300  # all queries and keys

    patient = treat(before=saturate, train__lr=1e-3, train__steps=40, train__grad_clip=1e-3, model__n_head=4)
    assert "saturated heads" in patient.live
    assert "100% of the heads of h.0.attn" in patient.found["saturated heads"].observation


def test_steps_without_a_finite_gradient(treat):
    def break_once(training):
        bias = training.model.h[0].mlp.c_fc.bias
        with torch.no_grad():
            bias[0] = float("nan") if training.state.step == 10 else 0.0

    patient = treat(after_step=break_once, train__lr=1e-2, train__steps=30)
    assert "non-finite steps" in patient.live
    assert patient.found["non-finite steps"].step == 11


def test_a_run_that_diverges_at_once_has_one_cause(treat):
    """It has saved nothing, and going on would diverge again."""
    patient = treat(diverges=True, train__lr=1e9, train__steps=30)
    (finding,) = patient.diagnosis().findings
    assert finding.check == "learning rate too high"
    assert patient.live == ["learning rate too high"]
    assert finding.command.endswith("--train.lr 0.0005")


@pytest.mark.parametrize("save_every", [None, 5])
def test_bad_steps_that_end_a_run_have_one_cause(treat, save_every):
    """No rate that looks too high: a weight breaks, and stays broken."""

    def break_for_good(training):
        if training.state.step >= 10:
            with torch.no_grad():
                training.model.h[0].mlp.c_fc.bias[0] = float("nan")

    patient = treat(
        diverges=True, after_step=break_for_good, train__lr=1e-2, train__steps=30, train__save_every=save_every
    )
    assert patient.live == []
    (finding,) = patient.diagnosis().findings
    assert (finding.check, finding.step) == ("diverged", 11)
    assert finding.observation == "The last 5 steps had no finite loss or gradient, which ended the run."
    assert finding.command.startswith("minigpt train")
    assert finding.command.endswith("--train.lr 0.0005")


def test_a_run_that_was_stopped(treat):
    patient = treat(after_step=lambda training: training.state.step == 30, train__lr=1e-2, train__steps=300)
    assert patient.live == []
    assert "30 of 300 steps" in patient.found["stopped"].observation
    assert patient.found["stopped"].command == f"minigpt resume {patient.run}"


def test_a_validation_split_that_stands_in_training(treat, tmp_path):
    folder = write_texts(tmp_path / "text", 40, 500)
    same = (folder / "000.txt").read_text("utf-8")
    for file in folder.iterdir():
        file.write_text(file.read_text("utf-8")[:100] + same, encoding="utf-8")  # not equal, but nearly
    prepare([str(folder)], tmp_path / "data", tokenizer="char", block_size=32)
    patient = treat(on=tmp_path / "data", train__steps=20)
    assert "contamination" in patient.live
    assert patient.found["contamination"].severity == "problem"


def test_a_vocabulary_that_is_hardly_used(treat, text, tmp_path):
    prepare([str(text)], tmp_path / "data", tokenizer="gpt2", block_size=32)
    patient = treat(on=tmp_path / "data", train__steps=2)
    assert "unused vocabulary" in patient.live
    assert "of the 50,257 tokens" in patient.found["unused vocabulary"].observation.lower()
    assert "--tokenizer bpe:4096" in patient.found["unused vocabulary"].fix


def test_a_loader_that_is_slow(treat, monkeypatch):
    monkeypatch.setattr(speed_checks, "MIN_SECONDS", 0.0)

    def slow_down(training):
        batch = training.batches.batch
        training.batches.batch = lambda step: (time.sleep(0.03), batch(step))[1]

    patient = treat(before=slow_down, train__lr=1e-2, train__steps=60)
    assert "data-bound" in patient.live
    assert patient.found["data-bound"].severity == "hint"


def test_a_loss_higher_than_the_references(treat, monkeypatch):
    """Another seed is normal, and a hundredth of the rate is not."""
    monkeypatch.setattr(
        references, "_loss_settings", lambda config: {"train.lr": config.train.lr}
    )  # any model is preset deep's
    options = {"train__lr": 1e-3, "train__steps": 80}
    reference = collect(treat(name="reference", **options).run, "letters")
    again = treat(name="again", train__seed=2, **options).diagnosis(references=[reference])
    assert again.normality.verdict == "normal"
    assert again.normality.reference == "preset deep on letters"
    slow = treat(name="slow", train__health_every=0, **{**options, "train__lr": 1e-5})
    diagnosis = slow.diagnosis(references=[reference])
    assert diagnosis.normality.verdict == "high"
    assert diagnosis.findings[0].check == "loss"
    assert "1e-05 is too low" in diagnosis.findings[0].explanation


def test_nothing_is_said_twice_when_a_run_is_resumed(treat, data):
    patient = treat(after_step=lambda training: training.state.step == 60, train__lr=2.0, train__steps=100)
    assert patient.live == ["learning rate too high"]
    later: list[str] = []
    resume(patient.run, callbacks=[lambda r: later.append(r["finding"].check) if r["kind"] == "finding" else None])
    assert "learning rate too high" not in later


def test_a_check_that_fails_ends_no_run(treat, monkeypatch):
    monkeypatch.setattr(speed_checks, "_lines", lambda evidence: 1 / 0)
    patient = treat(train__lr=1e-2, train__steps=120)
    assert sorted(text for text in patient.texts if "doctor" in text) == [
        f"the doctor's check '{name}' failed and is skipped from here on: ZeroDivisionError: division by zero"
        for name in ("data-bound", "launch-bound", "memory-bound")
    ]
    diagnosis = patient.diagnosis()
    assert diagnosis.skipped["data-bound"] == "it failed (ZeroDivisionError: division by zero)"
    assert diagnosis.skipped_lines()[-1].endswith("division by zero): data-bound, launch-bound, memory-bound")


@pytest.mark.parametrize("number", [math.nan, None])
def test_a_look_with_a_norm_that_is_no_number_counts_for_nothing(treat, number):
    patient = treat(train__steps=20, train__health_every=10)
    record = read_metrics(patient.run / "metrics.jsonl", "health")[-1]
    record["modules"][1]["grad_norm"] = number
    with (patient.run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    evidence = read_evidence(patient.run)
    assert len(evidence.health) == 3
    assert diagnose(evidence).checks_run >= 20
