"""The gradient of a batch in parts, and the way down when memory runs out."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from minigpt.config import IGNORE_INDEX
from minigpt.data import Batch
from minigpt.model import GPT
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder
from minigpt.runtime import detect_runtime
from minigpt.training import api, train
from minigpt.training.accumulate import GradientAccumulator
from tests.conftest import tiny

SCALER = torch.amp.GradScaler("cpu", enabled=False)


def make(rows: int, dropout: float = 0.0) -> tuple[GradientAccumulator, Batch, list[str]]:
    config = tiny(model__vocab_size=257, model__dropout=dropout)
    torch.manual_seed(0)
    model = GPT(config.model)
    rng = np.random.default_rng(0)
    x, y = rng.integers(257, size=(2, 8, 32))
    y[2, 20:] = IGNORE_INDEX
    y[7] = IGNORE_INDEX
    notes: list[str] = []
    return GradientAccumulator(model, detect_runtime("cpu", "float32"), SCALER, rows, notes.append), Batch(x, y), notes


def gradient_of(gradients: GradientAccumulator, batch: Batch) -> tuple[float, list[torch.Tensor]]:
    loss_sum, tokens = gradients.add(batch, 1, 0)
    found = [p.grad.clone() for p in gradients.model.parameters() if p.grad is not None]
    gradients.model.zero_grad(set_to_none=True)
    return loss_sum.item() / tokens, found


def full_above(gradients: GradientAccumulator, most_rows: int, unless_recomputed: bool = False) -> list[int]:
    """Makes the model's first block raise what a full GPU raises, when it gets more rows; notes what it got."""
    seen: list[int] = []

    def fail(block: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(inputs[0]))
        if len(inputs[0]) > most_rows or (unless_recomputed and not gradients.model.gradient_checkpointing):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    gradients.model.h[0].register_forward_pre_hook(fail)
    return seen


@pytest.mark.parametrize("rows", [1, 3, 5, 8, 100])
def test_micro_batches_add_up_to_the_whole_batch(rows):
    whole = gradient_of(*make(8)[:2])
    parts = gradient_of(*make(rows)[:2])
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-4, atol=1e-7)


def test_out_of_memory_halves_the_micro_batches_and_keeps_the_gradient():
    expected = gradient_of(*make(8)[:2])
    gradients, batch, notes = make(8)
    seen = full_above(gradients, 2)
    loss, found = gradient_of(gradients, batch)
    assert seen == [8, 4, 2, 2, 2, 2]
    assert loss == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(found, expected[1], rtol=1e-4, atol=1e-7)
    assert ["micro-batches of 4 sequences" in notes[0], "micro-batches of 2 sequences" in notes[1]] == [True, True]
    gradient_of(gradients, batch)
    assert len(notes) == 2  # said once
    assert not gradients.model.gradient_checkpointing


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_out_of_memory_with_one_sequence_turns_on_gradient_checkpointing(dropout):
    gradients, batch, _ = make(1, dropout)
    expected = gradient_of(gradients, batch)
    gradients, batch, notes = make(2, dropout)
    full_above(gradients, 1, unless_recomputed=True)
    loss, found = gradient_of(gradients, batch)
    assert loss == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(found, expected[1], rtol=1e-4, atol=1e-7)
    assert "recomputed" in notes[-1]
    assert len(notes) == 2
    gradients.model.eval()
    assert torch.isfinite(gradients.model(torch.from_numpy(batch.x[:1]))).all()


def test_out_of_memory_is_raised_when_nothing_helps():
    gradients, batch, notes = make(2)
    full_above(gradients, 0)
    with pytest.raises(torch.OutOfMemoryError):
        gradients.add(batch, 0, 0)
    assert len(notes) == 2


def test_other_errors_are_raised_at_once():
    gradients, batch, notes = make(2)
    gradients.model.h[0].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        gradients.add(batch, 0, 0)
    assert not notes


def test_a_failed_attempt_leaves_nothing_in_memory():
    gradients, batch, _ = make(8)
    outputs: list[weakref.ref[torch.Tensor]] = []
    gradients.model.h[0].register_forward_hook(
        lambda *inputs_and_output: outputs.append(weakref.ref(inputs_and_output[2]))
    )

    def fail_once(head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) == 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert outputs[0]() is None  # what the first attempt made is gone before the second one needs the room

    gradients.model.ln_f.register_forward_pre_hook(fail_once)
    gradient_of(gradients, batch)
    assert gradients.rows == 4


def test_a_run_that_is_out_of_memory_continues_and_notes_it(data_folder, tmp_path, monkeypatch):
    original = GradientAccumulator._add

    def full(self, batch, seed, step):
        if self.rows > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, batch, seed, step)

    usual, small = tmp_path / "usual", tmp_path / "small"
    config = tiny(model__vocab_size=257, train__steps=4, model__dropout=0.0)
    train(data_folder, usual, config)
    plan = api.estimate_training(config, detect_runtime("cpu", "float32"))
    monkeypatch.setattr(api, "estimate_training", lambda *_: plan)
    monkeypatch.setattr(GradientAccumulator, "_add", full)
    train(data_folder, small, config)
    losses = [
        [record["loss"] for record in read_metrics(RunFolder(run).metrics_file, "step")] for run in (usual, small)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    notes = [record["text"] for record in read_metrics(small / "metrics.jsonl", "note")]
    assert [note.split(":")[0] for note in notes] == ["out of memory in step 1"] * 2
