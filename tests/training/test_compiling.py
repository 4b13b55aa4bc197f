"""Whether torch.compile is used: decided by what is there and what it saves, and never a crash."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from minigpt.runs.folder import RunFolder
from minigpt.runtime import detect_runtime
from minigpt.training import compiling, resume, train
from minigpt.training.accumulate import GradientAccumulator
from minigpt.training.compiling import decide_compile
from tests.conftest import tiny
from tests.training.test_accumulate import SCALER, gradient_of, make

CPU = detect_runtime("cpu", "float32")


def test_off_and_auto_on_a_cpu_do_not_compile(monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    assert decide_compile(CPU, tiny(machine__compile="off"), 100).compiled == "off"
    auto = decide_compile(CPU, tiny(), 10**9)
    assert auto.compiled == "off"
    assert "slower than our kernels" in auto.compiled_reason


def test_a_failing_compiler_does_not_stop_a_run(monkeypatch):
    def broken(function, mode):
        raise RuntimeError("no C++ compiler\nand much more text")

    monkeypatch.setattr(torch, "compile", broken)
    machine = decide_compile(CPU, tiny(model__vocab_size=257, machine__compile="on"), 100)
    assert machine.compiled == "off"
    assert machine.compiled_reason == "torch.compile failed: RuntimeError: no C++ compiler"


@pytest.mark.parametrize(("steps", "expected"), [(10, "off"), (1000, "default"), (100_000, "reduce-overhead")])
def test_compile_time_is_weighed_against_what_it_saves(monkeypatch, steps, expected):
    costs = {"off": (0.0, 0.010), "default": (5.0, 0.004), "reduce-overhead": (20.0, 0.002)}
    monkeypatch.setattr(compiling, "_trial", lambda machine, config: costs[machine.compiled])
    machine = compiling._try(CPU, tiny(), steps, ("default", "reduce-overhead"), eager_too=True)
    assert machine.compiled == expected
    assert "10.0 ms a step" in machine.compiled_reason


def test_a_mode_that_fails_leaves_the_others(monkeypatch):
    def trial(machine, config):
        if machine.compiled == "reduce-overhead":
            raise AssertionError("graphs")
        return {"off": (0.0, 0.010), "default": (1.0, 0.004)}[machine.compiled]

    monkeypatch.setattr(compiling, "_trial", trial)
    machine = compiling._try(CPU, tiny(), 10_000, ("default", "reduce-overhead"), eager_too=True)
    assert machine.compiled == "default"
    assert "torch.compile failed: AssertionError: graphs" in machine.compiled_reason


def test_a_compiled_run_is_resumed_compiled(monkeypatch, data_folder, tmp_path):
    """With torch.compile standing in for itself, so that the test takes no minute."""
    modes = []

    def stand_in(function, mode):
        modes.append(mode)
        return function

    monkeypatch.setattr(torch, "compile", stand_in)
    run = tmp_path / "run"
    config = tiny(machine__compile="on", train__steps=3)
    train(data_folder, run, config)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["compiled"] == "default"
    assert environment["compiled_reason"].startswith("as requested")
    resume(run, steps=5)
    assert set(modes) == {"default"}
    assert RunFolder(run).environment()["compiled"] == "default"
    assert len(modes) >= 3  # the trial, the run, the resumed run


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_compiled_gradients_are_the_same(monkeypatch, dropout):
    """Captured and differentiated by torch's compiler; making code of it is left out, for the time that takes."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode: real(function, backend="aot_eager"))
    gradients, batch, _ = make(8, dropout)
    expected = gradient_of(gradients, batch)
    compiled = GradientAccumulator(gradients.model, replace(CPU, compiled="default"), SCALER, 8)
    assert compiled.forward is not compiled.model
    found = gradient_of(compiled, batch)
    if dropout:  # compiled code draws other random numbers
        assert found[0] == pytest.approx(expected[0], rel=0.05)
        return
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=1e-6)
