"""A training that keeps what its model says is the same training, to the last bit, and nothing in it ends a run."""

from __future__ import annotations

import io
import math
import shutil

import pytest
import torch

from minigpt.cli.console import Console
from minigpt.cli.train_view import SHOWN_TEMPERATURE, TrainView
from minigpt.generation.fixed_prompts import fixed_prompts
from minigpt.generation.sample_log import SEED, TEMPERATURES, SampleRecord, read_sample_log
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder
from minigpt.training import resume, train
from minigpt.training.api import start
from minigpt.training.resume_check import differences
from tests.conftest import tiny


class Crash(Exception):
    """Stands for a power failure."""


def crash_at(kind, step):
    def watch(record):
        if (record["kind"], record["step"]) == (kind, step):
            raise Crash

    return watch


def samples(run):
    return (run / "samples.jsonl").read_bytes()


def small(**changes):
    """Settings of a run of two epochs of six steps."""
    return tiny(**{"train__batch_size": 32, "train__sample_prompts": 2, **changes})


@pytest.fixture(scope="module")
def whole(data_folder, tmp_path_factory):
    """A run which nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(data_folder, run, small())
    return run


def test_samples_of_each_epoch_and_of_the_end_are_kept(data_folder, dataset, tmp_path):
    run = tmp_path / "run"
    train(data_folder, run, small(train__steps=8, train__validate_every=4))
    kept = read_sample_log(RunFolder.open(run))
    expected = [
        (step, epoch, temperature, prompt)
        for step, epoch in ((6, 1.0), (8, round(8 / 6, 4)))
        for temperature in TEMPERATURES
        for prompt in fixed_prompts(dataset, 2)
    ]
    assert [(k.step, k.epoch, k.temperature, k.prompt) for k in kept] == expected
    assert {(k.source, k.seed) for k in kept} == {("fixed", SEED)}
    assert len({k.text for k in kept}) > 6


@pytest.mark.parametrize("changes", [{}, {"machine__precision": "bfloat16"}], ids=["float32", "bfloat16"])
def test_sampling_does_not_change_the_training(data_folder, tmp_path, changes):
    states = []
    for number in (0, 3):
        train(data_folder, tmp_path / str(number), small(train__sample_prompts=number, **changes))
        states.append(torch.get_rng_state())
    assert not (tmp_path / "0" / "samples.jsonl").exists()
    (tmp_path / "0" / "samples.jsonl").write_bytes(samples(tmp_path / "3"))
    assert differences(tmp_path / "0", tmp_path / "3") == []
    assert torch.equal(*states)


def test_runs_with_other_samples_differ(whole, tmp_path):
    other = shutil.copytree(whole, tmp_path / "other")
    assert differences(whole, other) == []
    (other / "samples.jsonl").unlink()
    assert differences(whole, other) == ["samples.jsonl differs"]


@pytest.mark.parametrize("crash", [crash_at("validation", 6), crash_at("samples", 6), crash_at("progress", 9)])
def test_after_a_crash_samples_are_there_once(data_folder, whole, tmp_path, crash):
    run = tmp_path / "run"
    with pytest.raises(Crash):
        train(data_folder, run, small(), callbacks=[crash])
    resume(run)
    assert samples(run) == samples(whole)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.49, 0.8, 0.999])
def test_a_truncated_sample_log_is_completed(data_folder, whole, tmp_path, share):
    run = shutil.copytree(whole, tmp_path / "run")
    data = samples(whole)
    (run / "samples.jsonl").write_bytes(data[: int(share * len(data))])
    resume(run)  # it is finished: nothing but the last epoch's samples can be missing
    last = [one for one in read_sample_log(RunFolder.open(run)) if one.step == 12]
    assert last == [one for one in read_sample_log(RunFolder.open(whole)) if one.step == 12]
    if share > 0.5:
        assert samples(run) == data
    before = samples(run)
    resume(run)
    assert samples(run) == before


def test_samples_after_the_checkpoint_are_deleted(data_folder, whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    for place in RunFolder.open(run).checkpoint_folders():
        if RunFolder.checkpoint_step(place) > 6:
            shutil.rmtree(place)
    with pytest.raises(Crash):
        resume(run, callbacks=[crash_at("progress", 7)])
    assert {one.step for one in read_sample_log(RunFolder.open(run))} == {6}
    resume(run)
    assert samples(run) == samples(whole)


def test_a_damaged_sample_log_does_not_stop_a_run(data_folder, whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "samples.jsonl").write_bytes(b"\xff\x00\n" + samples(whole))
    assert resume(run).steps == 12
    assert samples(run) == samples(whole)


@pytest.mark.parametrize(
    "error", [MemoryError("too large"), RuntimeError("CUDA out of memory"), OSError(28, "No space left"), KeyError(3)]
)
def test_an_error_while_sampling_is_one_note(data_folder, tmp_path, monkeypatch, error):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("minigpt.training.callbacks.sample.extend_sample_log", fail)
    outcome = train(data_folder, tmp_path / "run", small(train__steps=6))
    assert outcome.best_step == 6
    notes = [record["text"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl", "note")]
    assert ["no samples of this epoch" in note for note in notes] == [True]


def test_nonfinite_weights_are_not_sampled(data_folder, tmp_path):
    training = start(data_folder, tmp_path / "run", small())
    training.state.step = 6
    with torch.no_grad():
        training.model.wte.weight[0, 0] = math.inf
    training.notify("on_restore")
    notes = [record["text"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl", "note")]
    assert ["not finite numbers" in note for note in notes] == [True]
    assert not training.folder.samples_file.exists()


def test_gradient_checkpointing_does_not_change_the_samples(data_folder, whole, tmp_path):
    training = start(data_folder, tmp_path / "run", small())
    training.gradients.rows = 1
    assert training.gradients._reduce_memory(1, 0)
    training.run()
    before, now = (
        [one.text for one in read_sample_log(RunFolder.open(run)) if one.temperature == 0]
        for run in (whole, tmp_path / "run")
    )
    assert len(before) == len(now)
    assert training.model.gradient_checkpointing
    assert training.model.training


def shown(*kept, terminal=False):
    """What the live view prints of an epoch's samples."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    TrainView(console)({"kind": "samples", "step": 1, "samples": kept})
    return out.getvalue()


def test_a_sample_is_shown_in_one_escaped_line():
    kept = [
        SampleRecord(1, 1.0, "fixed", prompt, (1,), temperature, SEED, text, (2,), False)
        for temperature in (0.0, SHOWN_TEMPERATURE)
        for prompt, text in (("Once\x1b[2J upon", f" a {temperature}\n\n[red]t\x07ime[/red]" + "y" * 300), ("no", "no"))
    ]
    line = shown(*kept)
    assert line.startswith(f"  sample: Once␛[2J upon | a {SHOWN_TEMPERATURE} [red]t␇ime[/red]yyy")
    assert line.count("\n") == 1
    assert len(line) < 160
    assert shown() == ""
    assert "\x1b[2J" not in shown(*kept, terminal=True)
