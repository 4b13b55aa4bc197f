"""Findings of the clock and of a GPU, on a real run's records changed by hand; a healthy run's stay silent."""

from __future__ import annotations

from typing import Any

import pytest

from minigpt.doctor import Evidence, examine, read_evidence
from minigpt.doctor.inner_checks import exploding
from minigpt.model.cost import flops_per_token


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    from minigpt.config import resolve
    from minigpt.training import train
    from tests.doctor.conftest import SMALL

    run = tmp_path_factory.mktemp("machine") / "run"
    train(data, run, resolve(overrides={**SMALL, "train.steps": 60, "train.lr": 1e-2, "train.log_every": 2}))
    return run


@pytest.fixture
def evidence(trained) -> Evidence:
    return read_evidence(trained)


def on_gpu(evidence: Evidence, flops: float, **changes: Any) -> Evidence:
    """As if it had run for minutes on a GPU that does 100 TFLOP/s in matrix products, and this share of them here."""
    speed = flops * 1e14 / sum(flops_per_token(evidence.config.model).values())
    usual = {"tokens_per_second": speed, "use": 0.97, "data_wait": 0.01, **changes}
    evidence.steps = [{**line, **usual, "seconds": 10.0 * number} for number, line in enumerate(evidence.steps)]
    evidence.environment = {**evidence.environment, "device": "cuda"}
    evidence.plan = {**(evidence.plan or {}), "matrix_rate": 1e14, "planned_seconds": None}
    return evidence


def found(evidence: Evidence) -> set[str]:
    return {finding.check for finding in examine(evidence).findings} - {"ended too early"}


def test_a_gpu_that_is_well_used(evidence):
    assert found(on_gpu(evidence, flops=0.4)) == set()


def test_a_gpu_that_waits_for_launches(evidence):
    sick = on_gpu(evidence, flops=0.02, use=0.3)
    assert found(sick) == {"launch-bound"}
    (finding,) = [f for f in examine(sick).findings if f.check == "launch-bound"]
    assert "30% of the time" in finding.seen
    assert "--machine.compile on" in finding.remedy
    sick.environment = {**sick.environment, "compiled": "default"}
    (finding,) = [f for f in examine(sick).findings if f.check == "launch-bound"]
    assert "--train.batch-size 32" in finding.remedy


def test_a_gpu_that_waits_for_data(evidence):
    assert found(on_gpu(evidence, flops=0.02, use=0.3, data_wait=0.6)) == {"data-bound"}


def test_a_gpu_that_moves_numbers(evidence):
    assert found(on_gpu(evidence, flops=0.03)) == {"memory-bound"}
    del evidence.plan
    evidence.plan = None
    assert found(evidence) == set()


def test_memory_that_ran_out(evidence):
    evidence.add(
        {"kind": "note", "step": 0, "epoch": 0.0, "text": "out of memory in step 1: sequences at once 4 from here on."}
    )
    (finding,) = [f for f in examine(evidence).findings if f.check == "out of memory"]
    assert "--train.accumulate 2" in finding.remedy


def test_a_machine_that_is_busy_with_something_else(evidence):
    plan = {"steps": 60, "planned_seconds": 1.0}
    evidence.plan = plan
    evidence.steps = [
        {**line, "tokens_per_second": 60 * 256 / 4, "seconds": 10.0 * number}
        for number, line in enumerate(evidence.steps)
    ]
    assert found(evidence) == {"slow"}
    evidence.plan = {**plan, "planned_seconds": 3.0}
    assert found(evidence) == set()


def test_short_runs_are_not_judged_by_the_clock(evidence):
    sick = on_gpu(evidence, flops=0.02, use=0.3, data_wait=0.6)
    sick.steps = [{**line, "seconds": 1.0} for line in sick.steps]
    assert found(sick) == set()


def test_what_is_missing_silences_its_checks(evidence):
    evidence.health, evidence.report, evidence.unigram = [], None, None
    evidence.absent = {"health": "nobody looked", "report": "it is away"}
    diagnosis = examine(evidence)
    assert set(diagnosis.left_out) == {"nobody looked", "it is away"}
    assert "vanishing gradient" in diagnosis.left_out["nobody looked"]
    assert set(diagnosis.left_out["it is away"]) == {"overlap", "vocabulary"}
    assert exploding(evidence) is None


def test_a_run_that_went_back_tells_each_step_once(evidence):
    last = evidence.steps[-1]
    evidence.add({**last, "step": 31})
    steps = [line["step"] for line in evidence.steps]
    assert steps == sorted(set(steps))
    assert steps[-1] == 31
