"""In doubt a check is silent: records that look sick and are not, made by hand, beside some that are."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from minigpt.config import Optimizer, resolve
from minigpt.data import Dataset
from minigpt.doctor import (
    LiveDoctor,
    data_checks,
    diagnose,
    entropy,
    health_checks,
    loss_checks,
    read_evidence,
    references,
)
from minigpt.doctor.entropy import conditional_entropy, unigram_entropy
from minigpt.doctor.references import collect, higher_lr, lower_lr
from minigpt.records import read_metrics
from minigpt.source_options import SourceOptions
from minigpt.text_utils import pluralize
from tests.test_docs import wrong_in


def lines(evidence: Any, losses: Any, rates: Any = None, tokens: int = 2000) -> None:
    """Gives the run these lines of metrics."""
    usual = evidence.steps[0]
    rates = [evidence.config.train.lr] * len(losses) if rates is None else rates
    evidence.steps = [
        {**usual, "step": 10 * n, "tokens": tokens * n, "loss": float(loss), "lr": float(lr), "epoch": n / 10}
        for n, (loss, lr) in enumerate(zip(losses, rates, strict=True), start=1)
    ]
    evidence.last_step = evidence.steps[-1]["step"]


def validations(evidence: Any, losses: list[float], per_epoch: int = 1) -> None:
    usual = evidence.validations[-1]
    evidence.validations = [
        {
            **usual,
            "step": 10 * n,
            "epoch": n / per_epoch,
            "tokens": 1000 * n,
            "val_loss": loss,
            "train_loss": 5 - n / 100,
        }
        for n, loss in enumerate(losses, start=1)
    ]
    evidence.epochs = len(losses) / per_epoch


@pytest.mark.parametrize(
    "odd",
    [
        {
            "kind": "step",
            "step": 60,
            "epoch": 0.2,
            "loss": 1.0,
            "lr": 0.1,
            "grad_norm": None,
            "tokens": 9,
            "seconds": 1,
        },
        {"kind": "step", "step": 60, "loss": 1.0},
        {"kind": "step", "step": 60, "epoch": 0.2},
        {"kind": "validation", "step": 60, "epoch": 1.0},
        {"kind": "validation", "step": 60, "epoch": 1.0, "val_loss": 1.0},
        {"kind": "health", "step": 60, "epoch": 1.0, "modules": "none"},
        {"kind": "health", "step": 60, "epoch": 1.0, "modules": [{"module": "h.0.attn"}]},
        {"kind": "health", "step": 60, "epoch": 1.0, "modules": [3]},
        {"kind": "note", "step": 60, "epoch": 1.0},
        {"kind": "plan", "step": 60, "epoch": 1.0},
        {"step": 60},
    ],
)
def test_odd_records_count_for_nothing(trained, tmp_path, odd):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(odd) + "\n" + json.dumps({"kind": "note", "step": 60, "epoch": 1.0, "text": "-"}) + "\n")
    assert set(diagnose(read_evidence(run)).skipped.values()) == {"the run has one validation"}


def test_a_run_of_steps_that_lack_their_norm(evidence):
    whole = evidence.steps[-1]
    evidence.steps.clear()
    for number in range(60, 100):
        evidence.add({**whole, "step": number, "grad_norm": 1.0 if number % 2 else None})
    assert len(evidence.steps) == 20
    assert set(diagnose(evidence).skipped.values()) == {"the run has one validation"}


def test_a_rate_that_came_back(evidence):
    rates = [*np.linspace(1, 0, 50), *np.linspace(0.7, 0.4, 50)]
    lines(evidence, [*np.linspace(3, 1, 50), *[1.4] * 50], rates)
    assert health_checks.lr_too_high(evidence) is None
    lines(evidence, [*np.linspace(3, 1, 50), *[1.4] * 50], [1.0] * 100)
    assert "risen to 1.400" in health_checks.lr_too_high(evidence).observation


def test_noise_is_no_rise(evidence):
    lines(evidence, [*np.geomspace(3, 0.074, 50), *[0.081] * 20])
    assert health_checks.lr_too_high(evidence) is None  # a text known by heart
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.7, 1000)
        lines(evidence, 4 + noise, tokens=64)
        assert health_checks.lr_too_high(evidence) is None


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ([2.0, 1.142, 1.163, 1.15, 1.163, 1.132], False),
        ([2.0, 1.142, 1.163, 1.163, 1.163], False),
        ([2.0, 1.142, 1.17, 1.2, 1.14201], False),
        ([2.0, 1.142, 1.17, 1.2, 1.22], True),
        ([2.0, 1.142, 1.19], False),
        ([2.0, 1.142, 1.3], True),
    ],
)
def test_validations_that_waver(evidence, losses, found):
    validations(evidence, losses)
    assert (loss_checks.overfitting(evidence) is not None) == found


def test_the_remedies_of_overfitting(evidence):
    validations(evidence, [2.0, 1.1, 1.2, 1.3])
    evidence.config = replace(evidence.config, train=replace(evidence.config.train, steps=None, epochs=4))
    assert "--model.dropout 0.1`; 2 epochs" in loss_checks.overfitting(evidence).fix
    assert "--epochs 2`" in loss_checks.overfitting(evidence).fix
    evidence.config = replace(evidence.config, model=replace(evidence.config.model, dropout=0.5))
    assert "--model.dropout" not in loss_checks.overfitting(evidence).fix


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [
        ([4.0 * 0.9985**n for n in range(60)], None),
        ([4.0, 3.0, 2.0, 2.01, 2.0, 2.02, 2.03], None),
        ([4.0, 3.0, 2.0, 1.999, 1.9989], None),
        ([*np.geomspace(4.0, 1.2, 40), 1.1999, 1.1998, 1.1997, 1.1996], None),
        ([4.0, 3.0, 2.0, 1.999, 1.9989, 1.9988], 3),
    ],
)
def test_epochs_are_judged_together(evidence, losses, epoch):
    validations(evidence, losses)
    finding = loss_checks.diminishing_returns(evidence)
    assert (finding and finding.epoch) == epoch
    if finding:
        assert f"--steps {3 * evidence.steps_per_epoch}`" in finding.fix  # the run's own --steps would win


def test_a_line_is_compared_over_all_of_it(treat, monkeypatch):
    monkeypatch.setattr(references, "_loss_settings", lambda config: {})
    patient = treat(train__lr=1e-3, train__steps=300)
    reference = collect(patient.run, "letters")
    evidence = read_evidence(patient.run)
    first, *others = evidence.steps
    evidence.steps = [first] + [
        {**some[-1], "loss": float(np.mean([line["loss"] for line in some]))}
        for some in (others[n : n + 20] for n in range(0, len(others), 20))
    ]
    for end in range(2, len(evidence.steps)):
        here = replace(evidence, steps=evidence.steps[: end + 1])
        assert diagnose(here, references=[reference]).normality.verdict in ("normal", "unknown", "roughly")
    assert diagnose(evidence, references=[reference]).normality.verdict == "normal"


def heads(evidence: Any, saturated: float, gradient: float) -> None:
    for record in evidence.health:
        record["modules"] = [
            {**part, "saturated_head_ratio": saturated, "grad_norm": gradient * part["grad_norm"]}
            if part["module"] == "h.0.attn"
            else part
            for part in record["modules"]
        ]


def test_few_heads_and_heads_that_learn(evidence):
    heads(evidence, 1.0, 1.0)
    assert health_checks.saturated_heads(evidence) is None  # two heads, that learn
    evidence.config = replace(evidence.config, model=replace(evidence.config.model, n_head=4))
    assert health_checks.saturated_heads(evidence) is None
    heads(evidence, 1.0, 1e-3)
    assert health_checks.saturated_heads(evidence) is not None
    evidence.health = evidence.health[:2]  # one look behind that of the first step
    assert health_checks.saturated_heads(evidence) is None
    heads(evidence, 0.5, 1.0)
    assert health_checks.saturated_heads(evidence) is None


def test_units_must_be_dead_twice(evidence):
    for part in evidence.health[-1]["modules"]:
        part["dead_unit_ratio"] = 0.5
    assert health_checks.dead_units(evidence) is None
    for record in evidence.health:
        for part in record["modules"]:
            part["dead_unit_ratio"] = 0.5
    assert health_checks.dead_units(evidence) is not None
    evidence.origin = "elsewhere"  # they were dead when they came
    assert health_checks.dead_units(evidence) is None
    for part in evidence.health[0]["modules"]:
        part["dead_unit_ratio"] = 0.0
    assert "--model" not in health_checks.dead_units(evidence).fix


def test_weights_that_were_large_from_the_beginning(evidence):
    for record in evidence.health:
        record["modules"] = [{**part, "weight_norm": 50 * part["weight_norm"]} for part in record["modules"]]
    assert health_checks.lr_too_high(evidence) is not None
    evidence.origin = "elsewhere"
    assert health_checks.lr_too_high(evidence) is None


def test_large_weights_are_a_hint_if_the_validation_loss_fell_to_the_end(evidence):
    for record in evidence.health:
        record["modules"] = [{**part, "weight_norm": 50 * part["weight_norm"]} for part in record["modules"]]
    validations(evidence, [3.0, 2.5, 2.6])
    assert health_checks.lr_too_high(evidence).severity == "problem"
    validations(evidence, [3.0, 2.5, 2.4])
    finding = health_checks.lr_too_high(evidence)
    assert finding.severity == "hint"
    assert "the validation loss fell until the end" in finding.observation


def test_a_first_step_as_large_as_many_weights(evidence):
    for part in evidence.health[0]["modules"]:
        part["update_ratio"] = 5.0  # of their size, which is a tenth of what is usual between layers
    assert health_checks.lr_too_high(evidence) is None
    for part in evidence.health[0]["modules"]:
        part["update_ratio"] = 1e8
    finding = health_checks.lr_too_high(evidence)
    assert finding.step == 1
    assert "grew to more than a million times their initial size within 1 step." in finding.observation
    for part in evidence.health[0]["modules"]:
        part.update(update_ratio=1.0, weight_norm=50 * part["weight_norm"])  # large, and not by this step
    del evidence.health[1:]
    assert health_checks.lr_too_high(evidence) is None


@pytest.mark.parametrize(
    ("preset", "changes", "lr", "lower"),
    [
        ("laptop", {}, 0.12, 0.004),
        ("laptop", {}, 0.01, 0.0033),
        ("laptop", {"model.n_layer": 2}, 50.0, 0.004),
        ("laptop", {"model.n_layer": 2}, 0.02, 0.0067),
        ("seed", {"model.n_layer": 1}, 1e9, 0.0005),
        ("seed", {}, 0.0005, 0.00017),
        ("deep", {"model.n_layer": 1}, 16.7, 0.001),
    ],
)
def test_a_rate_that_a_person_would_type(preset, changes, lr, lower):
    assert lower_lr(resolve(preset, overrides={**changes, "train.lr": lr})) == lower
    assert higher_lr(resolve(preset, overrides={**changes, "train.lr": 1.2345e-9})) == resolve(preset).train.lr


def test_each_optimizer_has_a_known_rate():
    for name in get_args(Optimizer):
        assert lower_lr(resolve(overrides={"optimizer.name": name, "model.n_layer": 1, "train.lr": 1e9})) < 0.01


def test_bad_steps_here_and_there_end_no_run(evidence):
    """Four in a row, and five of which one went well."""
    for bad in ([57, 58, 59, 60], [55, 56, 58, 59, 60]):
        evidence.notes = [
            {"kind": "note", "step": step, "epoch": 0.2, "text": "the loss is nan; the step was skipped"}
            for step in bad
        ]
        assert loss_checks.diverged(evidence) is None
        assert [finding.check for finding in diagnose(evidence).findings] == ["non-finite steps"]


def test_one_of_a_thing():
    assert [pluralize(number, "step") for number in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]


@pytest.mark.parametrize(
    ("loss", "bigram", "found"),
    [(1.376, 1.30, True), (1.353, 1.30, False), (1.376, 1.377, False), (1.376, None, False)],
)
def test_text_with_little_order(evidence, loss, bigram, found):
    evidence.unigram_entropy, evidence.bigram_entropy = 1.377, bigram
    lines(evidence, [1.5, *[loss - 0.001, loss + 0.001] * 50])
    evidence.steps[0]["step"] = 1
    assert (loss_checks.plateau(evidence) is not None) == found


def test_the_first_loss_of_few_letters(evidence):
    evidence.config = replace(evidence.config, model=replace(evidence.config.model, vocab_size=4))
    evidence.steps[0] = {**evidence.steps[0], "loss": 1.386 + 0.25}
    assert loss_checks.initial_loss(evidence) is None
    evidence.steps[0] = {**evidence.steps[0], "loss": 1.386 + 0.4}
    assert loss_checks.initial_loss(evidence) is not None


def test_bad_steps_before_a_rewind(evidence):
    for number in range(55, 60):
        evidence.add(
            {"kind": "note", "step": number + 5, "epoch": 0.2, "text": "the loss is nan; the step was skipped"}
        )
    text = "went back from step 64 to step 40, and on with the data in another order"
    evidence.add({"kind": "note", "step": 40, "epoch": 0.1, "text": text})
    assert "went back from step 64 to step 40." in loss_checks.nonfinite_steps(evidence).observation


def test_how_to_prepare_anew(evidence, text, tmp_path):
    evidence.card = replace(evidence.card, val_fraction=0.15, seed=3, sources=(str(text), "-"))
    assert "`" not in data_checks.small_validation(low(evidence)).fix  # nobody knows what came through the pipe
    evidence.card = replace(evidence.card, sources=(str(text),), source_options=SourceOptions(split_lines=True))
    evidence.data = {**evidence.data, "folder": str(tmp_path / "data")}
    (tmp_path / "data-more-val").mkdir()
    remedy = data_checks.small_validation(low(evidence)).fix
    command = shlex.split(remedy.split("`")[1])
    assert wrong_in(command[1:]) == ""
    assert str(tmp_path / "data-more-val2") in command
    assert remedy.endswith("--split-lines --tokenizer char --val-fraction 0.3 --block-size 32 --seed 3`")
    own = {"val_sources": (str(text),), "val_fraction": None, "split": "files"}  # then no share can be larger
    evidence.card = replace(evidence.card, **own, contamination=0.5, contamination_windows=1000)
    assert "--val" not in data_checks.small_validation(low(evidence)).fix
    assert "--val" in data_checks._prepare_again(evidence, "more", tokenizer="byte")
    assert wrong_in(shlex.split(data_checks._prepare_again(evidence, "more", tokenizer="byte").strip("`"))[1:]) == ""


@pytest.mark.parametrize(("split_by", "command"), [("document", False), ("sequence", True)])
def test_preparing_anew_is_advised_where_it_changes_something(evidence, text, split_by, command):
    sources = (str(next(text.iterdir())),)
    evidence.card = replace(
        evidence.card, contamination=0.5, contamination_windows=100, split_by=split_by, split=split_by, sources=sources
    )
    remedy = data_checks.contamination(evidence).fix
    assert ("minigpt prepare" in remedy) == command
    assert ("--split-by document" in remedy) == command


def low(evidence: Any) -> Any:
    splits = evidence.data["splits"]
    evidence.data = {**evidence.data, "splits": {**splits, "val": {**splits["val"], "tokens": 10}}}
    return evidence


def test_a_smaller_model_that_rope_can_turn(evidence):
    evidence.validations = [{**evidence.validations[-1], "val_loss": loss} for loss in (1.0, 1.1, 1.1)]
    evidence.config = replace(
        evidence.config, model=replace(evidence.config.model, n_embd=2000, n_head=80, n_inner=9000)
    )
    width = int(data_checks.too_little_text(evidence).fix.split("--model.n-embd ")[1].rstrip("`"))
    replace(evidence.config, model=replace(evidence.config.model, n_embd=width, position="rope")).check()
    assert width < 2000


@pytest.mark.parametrize(
    ("losses", "said"),
    [([3.0], False), ([3.0, 2.0], False), ([2.0, 2.5], False), ([2.0, 2.5, 1.9], False), ([2.0, 2.1, 2.1], True)],
)
def test_live_and_afterwards_one_opinion_of_too_little_text(evidence, losses, said):
    evidence.validations = [{**evidence.validations[-1], "val_loss": loss} for loss in losses]
    evidence.config = replace(evidence.config, model=replace(evidence.config.model, n_embd=2000, n_inner=9000))
    for evidence.last_step in (30, 60):
        assert (data_checks.too_little_text(evidence) is not None) == said
    evidence.validations = evidence.validations[:1]
    assert "too little text" in diagnose(evidence).skipped


def test_the_range_of_curves_is_told(evidence, trained, monkeypatch):
    monkeypatch.setattr(references, "_loss_settings", lambda config: {})
    reference = collect(trained, "letters")
    other = replace(reference, sha256="another", points=((10_000_000, 3.0, 3.0), (20_000_000, 2.0, 2.0)))
    text = diagnose(evidence, [other]).normality.text
    assert "cover 10.00 to 20.00 M tokens, not 0.0" in text
    assert "preset deep has no curve" in diagnose(evidence, []).normality.text


def test_the_command_of_a_reference_runs(trained, monkeypatch):
    monkeypatch.setattr(references, "_loss_settings", lambda config: {})
    prepared, training = collect(trained, "letters").command.split(" && ")
    for command in (prepared, training):
        assert wrong_in(shlex.split(command)[1:]) == ""
    assert "prepare text --tokenizer char" in prepared
    assert "--steps 60" in training


def test_counting_in_pieces(data, monkeypatch):
    train = Dataset.open(data).train
    ids = np.asarray(train.tokens)
    shares = np.bincount(ids) / len(ids)
    expected = -float(sum(share * np.log(share) for share in shares if share))
    monkeypatch.setattr(entropy, "CHUNK_TOKENS", 1000)
    assert unigram_entropy(train) == pytest.approx(expected)
    assert conditional_entropy(train, 2) == pytest.approx(np.log(3), rel=0.02)  # three letters may follow each


def test_of_the_looks_of_a_long_run_few_are_kept(evidence):
    doctor = LiveDoctor(evidence, lambda finding: None, lambda text: None)
    look, first = evidence.health[-1], len(evidence.health)
    for step in range(100, 5000, 100):
        doctor({**look, "step": step})
    assert len(doctor.evidence.health) < first + 10 + 6
    assert [record["step"] for record in doctor.evidence.health][-3:] == [4700, 4800, 4900]
    assert len(read_metrics(evidence.run / "metrics.jsonl", "health")) == first
