"""Findings of the clock and of a GPU, on a real run's records changed by hand; a healthy run's stay silent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minigpt.doctor import Evidence, diagnose
from minigpt.doctor.health_checks import exploding_gradient
from minigpt.doctor.speed_checks import out_of_memory
from minigpt.model.accounting import flops_per_token


def on_gpu(evidence: Evidence, flops: float, **changes: Any) -> Evidence:
    """As if it had run for minutes on a GPU that does 100 TFLOP/s in matrix products, and this share of them here."""
    speed = flops * 1e14 / sum(flops_per_token(evidence.config.model).values())
    usual = {"tokens_per_second": speed, "device_util": 0.97, "data_wait_ratio": 0.01, **changes}
    evidence.steps = [{**line, **usual, "seconds": 10.0 * number} for number, line in enumerate(evidence.steps)]
    evidence.environment = {**evidence.environment, "device": "cuda"}
    evidence.plan = {**(evidence.plan or {}), "matmul_flops": 1e14, "step_seconds": None}
    return evidence


def found(evidence: Evidence) -> set[str]:
    return {finding.check for finding in diagnose(evidence).findings} - {"ended too early"}


def test_a_gpu_that_is_well_used(evidence):
    assert found(on_gpu(evidence, flops=0.4)) == set()


def test_a_gpu_that_waits_for_launches(evidence):
    sick = on_gpu(evidence, flops=0.02, device_util=0.3)
    assert found(sick) == {"launch-bound"}
    (finding,) = [f for f in diagnose(sick).findings if f.check == "launch-bound"]
    assert "30% of the time" in finding.observation
    assert "--train.batch-size 32" in finding.fix  # compile = "auto" has measured that it does not pay
    sick.config = replace(sick.config, machine=replace(sick.config.machine, compile="off"))
    (finding,) = [f for f in diagnose(sick).findings if f.check == "launch-bound"]
    assert "--machine.compile on" in finding.fix


def test_a_gpu_that_waits_for_data(evidence):
    assert found(on_gpu(evidence, flops=0.02, device_util=0.3, data_wait_ratio=0.6)) == {"data-bound"}


def test_a_gpu_that_moves_numbers(evidence):
    assert found(on_gpu(evidence, flops=0.03)) == {"memory-bound"}
    del evidence.plan
    evidence.plan = None
    assert found(evidence) == set()


@pytest.mark.parametrize(
    ("batch", "rows", "parts"),
    [(8, [4], 2), (12, [6, 3, 2], 6), (12, [4], 3), (12, [5], 3), (7, [4], 7), (12, [3, 1], 12)],
)
def test_memory_that_ran_out(evidence, batch, rows, parts, tmp_path):
    evidence.config = replace(evidence.config, train=replace(evidence.config.train, batch_size=batch))
    evidence.run = tmp_path
    (tmp_path / "config.toml").write_text(evidence.config.to_toml(), encoding="utf-8")
    for n in rows:
        text = f"out of memory in step 1: micro-batches of {n} sequences from here on"
        evidence.add({"kind": "note", "step": 60, "epoch": 0.1, "text": text})
    finding = out_of_memory(evidence)
    assert f"--train.grad-accum-steps {parts}`" in finding.fix
    replace(evidence.config, train=replace(evidence.config.train, grad_accum_steps=parts)).check()
    text = "out of memory with one sequence: activations are recomputed from here on, which takes longer"
    evidence.add({"kind": "note", "step": 60, "epoch": 0.1, "text": text})
    finding = out_of_memory(evidence)
    assert "computed twice" in finding.observation
    assert f"--train.grad-accum-steps {batch}`" in finding.fix


def test_short_runs_are_not_judged_by_the_clock(evidence):
    sick = on_gpu(evidence, flops=0.02, device_util=0.3, data_wait_ratio=0.6)
    sick.steps = [{**line, "seconds": 1.0} for line in sick.steps]
    assert found(sick) == set()


def test_what_is_missing_silences_its_checks(evidence):
    evidence.health, evidence.card, evidence.unigram_entropy = [], None, None
    evidence.missing = {"health": "nobody looked", "card": "it is away"}
    diagnosis = diagnose(evidence)
    assert diagnosis.skipped["vanishing gradient"] == "nobody looked"
    assert [name for name, why in diagnosis.skipped.items() if why == "it is away"] == [
        "contamination",
        "unused vocabulary",
    ]
    assert "skipped, because it is away: contamination, unused vocabulary" in diagnosis.skipped_lines()
    assert exploding_gradient(evidence) is None


def test_a_run_that_went_back_tells_each_step_once(evidence):
    last = evidence.steps[-1]
    evidence.add({**last, "step": 31})
    steps = [line["step"] for line in evidence.steps]
    assert steps == sorted(set(steps))
    assert steps[-1] == 31
