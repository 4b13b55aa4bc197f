"""Training from end to end, on a model that takes a second."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from minigpt.config import Config, GPTConfig, ScheduleConfig
from minigpt.data import Batch, BatchLoader, prepare
from minigpt.errors import ConfigError, DataError, MiniGPTError, RunError
from minigpt.evaluation import split_loss
from minigpt.model import GPT
from minigpt.records import read_metrics
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder, load
from minigpt.runtime import detect_runtime
from minigpt.training import train
from minigpt.training.api import start
from tests.conftest import tiny


def weights(run, which="latest"):
    return checkpoint.load_tensors(RunFolder.open(run).find_checkpoint(which), "model")


def test_it_learns(run_folder):
    rows = read_metrics(run_folder / "metrics.jsonl", "validation")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["val_loss"] < rows[0]["val_loss"] < 0.7 * math.log(257)
    for row in rows:
        assert row["val_perplexity"] == pytest.approx(math.exp(row["val_loss"]))
        assert row["train_perplexity"] == pytest.approx(math.exp(row["train_loss"]))


def test_the_run_folder_is_self_contained(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    assert names == {
        ".lock",
        ".samples.lock",
        "checkpoints",
        "config.toml",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "samples.jsonl",
        "tokenizer",
        "training_metrics.png",
    }
    assert (run_folder / "training_metrics.png").read_bytes().startswith(b"\x89PNG")
    environment = json.loads((run_folder / "environment.json").read_text())
    assert environment["precision"] == "float32"
    assert environment["precision_reason"] == "as requested"


def test_the_metrics_have_their_fields(run_folder):
    steps = read_metrics(run_folder / "metrics.jsonl", "step")
    assert [r["step"] for r in steps] == sorted({r["step"] for r in steps})
    for name in (
        "step",
        "epoch",
        "tokens",
        "loss",
        "lr",
        "grad_norm",
        "tokens_per_second",
        "seconds",
        "data_wait_ratio",
    ):
        assert all(isinstance(r[name], int | float) for r in steps), name


def test_the_mean_training_loss_is_over_every_token_of_the_epoch(run_folder, dataset):
    steps = read_metrics(run_folder / "metrics.jsonl", "step")
    first, second = read_metrics(run_folder / "metrics.jsonl", "validation")
    assert first["tokens"] == dataset.train.n_tokens - 1
    assert second["tokens"] == 2 * first["tokens"]
    inside = [r["loss"] for r in steps if r["epoch"] <= 1]
    assert min(inside) < first["train_loss"] < max(inside)


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(data_folder, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(data_folder, tmp_path / name, tiny(train__steps=4, train__seed=seed))
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["wte.weight"], c["wte.weight"])


def test_accumulation_gives_the_large_batchs_result(data_folder, tmp_path):
    results = []
    for parts in (1, 2, 4):
        run = tmp_path / str(parts)
        # 25 steps pass the end of the epoch, where a batch has rows of padding
        train(data_folder, run, tiny(train__grad_accum_steps=parts, train__steps=25, model__dropout=0.0))
        results.append((read_metrics(run / "metrics.jsonl", "step"), weights(run)))
    whole_steps, whole = results[0]
    for steps, tensors in results[1:]:
        for ours, theirs in zip(steps, whole_steps, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, whole[name], rtol=0, atol=2e-3, msg=name)


def test_one_accumulated_step_equals_the_plain_gradient_step(data_folder, tmp_path):
    """Against torch used the plain way: mean cross-entropy of the whole batch, one optimizer step."""
    config = tiny(train__grad_accum_steps=2, model__dropout=0.0, train__grad_clip=0.5)
    training = start(data_folder, tmp_path / "run", config)
    batch = Batch(*(array.copy() for array in training.batches.batch(0)))
    batch.y[0, 5:] = -1  # parts with unequal numbers of targets
    reference = GPT(training.model.config)
    reference.load_state_dict(training.model.state_dict())
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    x, y = (torch.from_numpy(array) for array in batch)
    loss = torch.nn.functional.cross_entropy(reference(x).flatten(0, 1), y.flatten(), ignore_index=-1)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
    optimizer.step()

    loss_sum, tokens, _, grad_norm, problem = training.step(batch, 0.01)
    assert problem is None
    assert tokens == int((y != -1).sum())
    assert loss_sum / tokens == pytest.approx(loss.item(), rel=1e-5)
    assert grad_norm == pytest.approx(norm.item(), rel=1e-4)
    for (name, ours), theirs in zip(training.model.named_parameters(), reference.parameters(), strict=True):
        # where a gradient is rounding alone, Adam's first step is of either sign
        assert (ours - theirs).abs().median() < 1e-6, name


def test_validation_is_deterministic_and_leaves_training_alone(data_folder, dataset, tmp_path):
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    train(data_folder, often, tiny(train__steps=12, train__validate_every=3))
    train(data_folder, seldom, tiny(train__steps=12))
    assert len(read_metrics(often / "metrics.jsonl", "validation")) == 4
    one, other = weights(often), weights(seldom)
    assert all(torch.equal(one[name], other[name]) for name in one)

    model, _ = load(often, "latest")
    machine = detect_runtime("cpu", "float32")
    before = torch.get_rng_state()
    results = [split_loss(model, dataset.val, machine, batch_size=size) for size in (1, 3, 8)]
    assert torch.equal(before, torch.get_rng_state())
    last = read_metrics(often / "metrics.jsonl", "validation")[-1]
    for result in results:
        assert result.loss == pytest.approx(last["val_loss"], rel=1e-6)
        assert result.tokens == dataset.val.n_tokens - 1


def test_validation_equals_the_loss_written_out(run_folder, dataset):
    model, _ = load(run_folder)
    result = split_loss(model, dataset.val, detect_runtime("cpu", "float32"))
    tokens = torch.from_numpy(dataset.val.tokens.astype(np.int64))
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, 32):
            piece = tokens[start : start + 33]
            logits = model(piece[None, :-1])[0]
            total += torch.nn.functional.cross_entropy(logits, piece[1:], reduction="sum").item()
    assert result.loss == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
    bits_per_token, bytes_per_token = result.loss / math.log(2), dataset.val.n_bytes / dataset.val.n_tokens
    assert result.bits_per_byte == pytest.approx(bits_per_token / bytes_per_token)


def test_the_best_checkpoint_is_kept(data_folder, dataset, tmp_path):
    run = tmp_path / "run"
    # a rate that destroys what was learned, after a warm-up that learns
    config = tiny(
        train__steps=40, train__validate_every=5, train__keep_checkpoints=1, train__lr=3.0, train__grad_clip=0.0
    )
    config = replace(config, schedule=ScheduleConfig(warmup_steps=400))
    outcome = train(data_folder, run, config)
    rows = read_metrics(run / "metrics.jsonl", "validation")
    lowest = min(rows, key=lambda row: row["val_loss"])
    assert outcome.best_step == lowest["step"]
    assert outcome.best_loss == lowest["val_loss"]
    folder = RunFolder.open(run)
    kept = {int(path.name.removeprefix("step-")) for path in folder.checkpoint_folders()}
    assert kept == {40, lowest["step"]}
    model, _ = load(run, "best")
    assert split_loss(model, dataset.val, detect_runtime("cpu", "float32")).loss == pytest.approx(
        lowest["val_loss"], rel=1e-6
    )


def test_a_gradient_that_is_not_finite_is_never_applied(data_folder, tmp_path):
    training = start(data_folder, tmp_path / "run", tiny())
    with torch.no_grad():
        training.model.h[0].mlp.c_fc.bias[0] = math.nan
    before = {name: p.clone() for name, p in training.model.named_parameters()}
    with pytest.raises(MiniGPTError, match=r"5 consecutive steps.*step 5: the loss is nan.*reliability"):
        training.run()
    for name, parameter in training.model.named_parameters():
        assert torch.equal(parameter, before[name]) or parameter.isnan().any(), name
    notes = read_metrics(tmp_path / "run" / "metrics.jsonl", "note")
    assert len([note for note in notes if "was skipped" in note["text"]]) == 5


def test_a_high_first_loss_is_a_finding(data_folder, tmp_path):
    records = []
    training = start(data_folder, tmp_path / "run", tiny(train__steps=1), callbacks=[records.append])
    with torch.no_grad():
        training.model.wte.weight.mul_(100)
    training.run()
    assert "initial loss" in [record["finding"].check for record in records if record["kind"] == "finding"]


def test_a_healthy_run_has_no_notes(run_folder):
    assert read_metrics(run_folder / "metrics.jsonl", "note") == []


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_learns_like_float32(data_folder, run_folder, tmp_path, precision):
    outcome = train(data_folder, tmp_path / "run", tiny(machine__precision=precision))
    reference = read_metrics(run_folder / "metrics.jsonl", "validation")[-1]["val_loss"]
    assert outcome.best_loss == pytest.approx(reference, rel=0.1)
    assert all(t.dtype == torch.float32 for t in weights(tmp_path / "run").values())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd", "one-cycle", "linear"])
def test_every_optimizer_and_schedule_trains(data_folder, tmp_path, optimizer, schedule):
    config = tiny(train__steps=12, optimizer__name=optimizer, schedule__name=schedule)
    train(data_folder, tmp_path / "run", config)
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl", "step")
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_it_stops_when_asked_and_has_saved(data_folder, tmp_path):
    asked = iter([False, False, True])
    outcome = train(data_folder, tmp_path / "run", tiny(), should_stop=lambda: next(asked))
    assert outcome.stopped
    assert outcome.steps == 3
    assert RunFolder.open(tmp_path / "run").find_checkpoint("latest").name == "step-000000003"


def test_mistakes_leave_nothing_behind(data_folder, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(DataError, match="No such data set"):
        train(tmp_path / "nothing", run, tiny())
    with pytest.raises(DataError, match="block-size"):
        train(data_folder, run, tiny(model__block_size=100_000))
    with pytest.raises(ConfigError, match="divisible"):
        train(data_folder, run, Config(model=GPTConfig(n_head=3)))
    assert not run.exists()


def test_an_existing_run_is_left_as_it_is(data_folder, run_folder):
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    with pytest.raises(RunError, match="already exists"):
        train(data_folder, run_folder, tiny())
    assert before == {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}


def test_batches_come_from_the_seed_and_the_step(data_folder, dataset, tmp_path):
    training = start(data_folder, tmp_path / "run", tiny(train__seed=5))
    expected = BatchLoader(dataset.train, 32, 4, 5).batch(7)
    assert np.array_equal(training.batches.batch(7).x, expected.x)


def test_no_target_is_learned_across_segments(text_folder, tmp_path):
    """Sequences drawn at random are no continuation of each other: their borders are nobody's target."""
    prepare([str(text_folder)], tmp_path / "data", tokenizer="byte", block_size=32, split_by="sequence")
    training = start(tmp_path / "data", tmp_path / "run", tiny())
    batch = training.batches.batch(0)
    assert (batch.y[:, -1] == -1).all()
    assert (batch.y[:, :-1] != -1).any()
