"""What a look inside tells: norms against torch's own, and units made dead and saturated on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from minigpt.config import IGNORE_INDEX
from minigpt.data import Batch, BatchLoader
from minigpt.model import GPT
from minigpt.records import read_metrics
from minigpt.runtime import detect_runtime
from minigpt.training import train
from minigpt.training.accumulate import GradientAccumulator
from minigpt.training.api import start
from minigpt.training.health_probe import HealthProbe, module_of, probe_ids
from tests.conftest import tiny

CPU = detect_runtime("cpu", "float32")


def model_with_gradients(**changes: str | int | bool) -> tuple[GPT, Batch]:
    torch.manual_seed(0)
    model = GPT(tiny(model__vocab_size=257, model__n_layer=2, **changes).model)
    x, y = np.random.default_rng(0).integers(257, size=(2, 4, 32))
    batch = Batch(x, y)
    GradientAccumulator(model, CPU, torch.amp.GradScaler("cpu", enabled=False), 4).add(batch, 1, 0)
    return model, batch


def look(model: GPT, batch: Batch, lr: float = 0.0) -> dict[str, dict[str, float]]:
    seen = HealthProbe(model, batch.x, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1 + lr
    return {part["module"]: part for part in seen.read()}


def test_every_parameter_has_a_module():
    model, batch = model_with_gradients(model__tie_word_embeddings=False)
    parts = look(model, batch)
    assert list(parts) == ["embedding", "h.0.attn", "h.0.mlp", "h.1.attn", "h.1.mlp", "head"]
    for measured in ("grad_norm", "weight_norm"):
        whole = sum(part[measured] ** 2 for part in parts.values()) ** 0.5
        tensors = [p.grad if measured == "grad_norm" else p for p in model.parameters()]
        assert whole == pytest.approx(float(torch.cat([t.detach().flatten() for t in tensors]).norm()), rel=1e-3)
    assert {module_of(name) for name, _ in model.named_parameters()} == set(parts)


def test_the_update_is_the_relative_change():
    parts = look(*model_with_gradients(), lr=0.003)
    assert [part["update_ratio"] for part in parts.values()] == pytest.approx([0.003] * len(parts), rel=1e-3)


def test_the_update_is_estimated_on_a_sample_of_the_weights(monkeypatch):
    monkeypatch.setattr("minigpt.training.health_probe.SAMPLED", 100)
    model, batch = model_with_gradients()
    torch.manual_seed(0)
    probe = HealthProbe(model, batch.x, CPU)
    assert max(len(sample) for sample in probe.before.values()) <= 100
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter) * parameter.square().mean().sqrt()
    assert all(part["update_ratio"] == pytest.approx(0.01, rel=0.4) for part in probe.read())


@pytest.mark.parametrize("mlp", ["gelu", "relu2", "swiglu"])
def test_dead_units_are_counted(mlp):
    model, batch = model_with_gradients(model__mlp=mlp)
    healthy = look(model, batch)
    units = model.h[1].mlp
    with torch.no_grad():
        (units.c_gate if mlp == "swiglu" else units.c_fc).bias[:8] = -100.0  # of 32
    sick = look(model, batch)
    assert healthy["h.1.mlp"]["dead_unit_ratio"] == 0.0 == sick["h.0.mlp"]["dead_unit_ratio"]
    assert sick["h.1.mlp"]["dead_unit_ratio"] == 0.25


def test_saturated_heads_are_counted():
    model, batch = model_with_gradients()
    healthy = look(model, batch)
    with torch.no_grad():
        model.h[0].attn.c_attn.weight[:8] *= 1e3  # the queries of the first of two heads
        model.h[0].attn.c_attn.weight[16:24] *= 1e3  # and its keys
    sick = look(model, batch)
    assert healthy["h.0.attn"]["saturated_head_ratio"] == 0.0 == sick["h.1.attn"]["saturated_head_ratio"]
    assert sick["h.0.attn"]["saturated_head_ratio"] == 0.5


def test_health_checks_are_made_when_due_and_change_nothing(data_folder, tmp_path):
    train(data_folder, tmp_path / "with", tiny(train__steps=10, train__health_every=4))
    train(data_folder, tmp_path / "without", tiny(train__steps=10, train__health_every=0))
    records = read_metrics(tmp_path / "with" / "metrics.jsonl", "health")
    assert [record["step"] for record in records] == [1, 4, 8, 10]
    assert all(set(part) >= {"module", "grad_norm", "weight_norm", "update_ratio"} for part in records[0]["modules"])
    assert read_metrics(tmp_path / "without" / "metrics.jsonl", "health") == []
    weights = [(tmp_path / run / "checkpoints/step-000000010/model.safetensors") for run in ("with", "without")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_probe_has_a_thousand_tokens_for_any_batch_size(dataset):
    for batch_size in (1, 4):
        batches = BatchLoader(dataset.train, 32, batch_size, seed=1)
        for step in (0, batches.steps_per_epoch - 1):  # the last batch of an epoch is filled up with padding
            ids = probe_ids(batches, step)
            assert ids.shape == (32, 32)
            rows = {tuple(row) for later in range(40) for row in batches.batch(step + later).x.tolist()}
            assert all(tuple(row) in rows for row in ids.tolist())
            padded = [
                b.x[(b.y == IGNORE_INDEX).any(axis=1)] for b in map(batches.batch, range(2 * batches.steps_per_epoch))
            ]
            assert not any((row == ids).all(axis=1).any() for part in padded for row in part)


def test_a_health_check_that_fails_does_not_end_the_run(data_folder, tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("minigpt.training.callbacks.health.HealthProbe", fail)
    outcome = train(data_folder, tmp_path / "run", tiny(train__steps=2))
    assert outcome.steps == 2
    notes = read_metrics(tmp_path / "run" / "metrics.jsonl", "note")
    assert [note["text"] for note in notes] == [
        "the health of the model was not measured: OutOfMemoryError: CUDA out of memory"
    ]


@pytest.mark.parametrize(("device_busy", "waits"), [(0.0, True), (0.05, False)])
def test_prefetching_counts_as_data_wait_only_when_the_device_is_idle(
    data_folder, tmp_path, device_busy, waits, monkeypatch
):
    training = start(data_folder, tmp_path / "run", tiny())
    batch = training.batches.batch(0)
    clock = [0.0]

    def read(step: int) -> Batch:
        clock[0] += 0.03
        return batch

    class Loss:
        def __float__(self) -> float:
            clock[0] += max(0.0, device_busy - 0.03)
            return 100.0

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    training.prefetches, training.batches.batch = True, read
    real = training.gradients.add
    training.gradients.add = lambda *arguments: (Loss(), real(*arguments)[1])
    training.intervals = replace(training.intervals, config=tiny(train__health_every=0))
    training.step(batch, 1e-3)
    assert training.throughput.data_wait == pytest.approx(0.03 if waits else 0.0)
