"""Stopped, killed, damaged: a run goes on as if nothing had been."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from dataclasses import asdict
from itertools import pairwise

import pytest
import torch

from minigpt.errors import CheckpointError, CheckpointVersionError, ConfigError, DataError, MiniGPTError, RunError
from minigpt.model import GPT
from minigpt.records import read_metrics
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder
from minigpt.schema import validate
from minigpt.state_dict import load_weights
from minigpt.training import resume, train
from minigpt.training.api import start
from minigpt.training.loss_plot import plot_losses
from minigpt.training.resume_check import TIMES
from minigpt.training.train_state import GradientNorms, TrainState
from tests.conftest import tiny


def metrics(run):
    records = read_metrics(run / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in TIMES} for r in records if r["kind"] != "plan"]


def content(run):
    """The bytes of the newest checkpoint's tensors."""
    folder = RunFolder.open(run).find_checkpoint("latest")
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def assert_same_run(one, other):
    assert content(one) == content(other)
    assert metrics(one) == metrics(other)
    assert (one / "samples.jsonl").read_bytes() == (other / "samples.jsonl").read_bytes()
    best = [RunFolder.open(run).best_file.read_text() for run in (one, other)]
    assert best[0] == best[1]


class Crash(Exception):
    """Stands for a power failure: nothing is saved on the way out."""


def crash_at(step):
    def watch(record):
        if record["kind"] == "progress" and record["step"] == step:
            raise Crash

    return watch


def crash_when_validating(record):
    if record["kind"] == "validating":
        raise Crash


def train_with_crashes(data, run, config, crashes):
    """Trains, crashing as told, and resuming each time."""
    with pytest.raises(Crash):
        train(data, run, config, callbacks=[crashes[0]])
    for crash in crashes[1:]:
        with pytest.raises(Crash):
            resume(run, callbacks=[crash])
    resume(run)


VARIATIONS = {
    "plain": {},
    "accumulated": {"train__grad_accum_steps": 2},
    "bfloat16": {"machine__precision": "bfloat16"},
    "float16": {"machine__precision": "float16"},
    "adamw, cosine": {"optimizer__name": "adamw", "optimizer__weight_decay": 0.1, "schedule__name": "cosine"},
    "muon, wsd": {"optimizer__name": "muon", "schedule__name": "wsd", "schedule__warmup_steps": 5},
    "validated in between": {"train__validate_every": 7},
}


@pytest.mark.parametrize("changes", VARIATIONS.values(), ids=VARIATIONS.keys())
def test_a_run_with_crashes_ends_with_the_same_bytes_and_metrics(data_folder, tmp_path, changes):
    config = tiny(train__save_every=4, train__log_every=3, train__batch_size=8, **changes)  # two epochs of 21 steps
    train(data_folder, tmp_path / "whole", config)
    # before the first save; twice inside the first epoch; inside its validation; in the second epoch
    crashes = [crash_at(2), crash_at(11), crash_at(12), crash_when_validating, crash_at(31)]
    train_with_crashes(data_folder, tmp_path / "broken", config, crashes)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_no_step_is_recorded_twice(data_folder, tmp_path):
    config = tiny(train__save_every=10, train__log_every=1, train__epochs=1)
    train_with_crashes(data_folder, tmp_path / "run", config, [crash_at(17), crash_at(18), crash_at(33)])
    steps = [r["step"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl", "step")]
    assert steps == list(range(1, steps[-1] + 1))


def test_seconds_never_decrease(data_folder, tmp_path):
    train_with_crashes(data_folder, tmp_path / "run", tiny(train__save_every=5, train__log_every=1), [crash_at(17)])
    seconds = [r["seconds"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert all(a <= b for a, b in pairwise(seconds))


@pytest.mark.parametrize("tick", [-(10**6), 10**6])
def test_a_clock_that_jumps_changes_nothing(data_folder, tmp_path, monkeypatch, tick):
    config = tiny(train__steps=8, train__save_minutes=1e-9, train__keep_checkpoints=9)
    train(data_folder, tmp_path / "whole", config)
    ticks = itertools.count(10**9, tick)
    monkeypatch.setattr("time.time", lambda: next(ticks))
    train(data_folder, tmp_path / "jumping", config)
    assert_same_run(tmp_path / "whole", tmp_path / "jumping")
    assert len(RunFolder.open(tmp_path / "jumping").checkpoint_folders()) == 8


def test_a_stopped_run_saves_and_resumes(data_folder, tmp_path):
    train(data_folder, tmp_path / "whole", tiny())
    answers = iter([False] * 6 + [True])
    outcome = train(data_folder, tmp_path / "stopped", tiny(), should_stop=lambda: next(answers))
    assert (outcome.stopped, outcome.steps) == (True, 7)
    assert not resume(tmp_path / "stopped").stopped
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_finished_run_can_be_extended(data_folder, tmp_path):
    train(data_folder, tmp_path / "long", tiny(train__epochs=3))
    train(data_folder, tmp_path / "short", tiny(train__epochs=2))
    resume(tmp_path / "short", epochs=3)
    assert content(tmp_path / "long") == content(tmp_path / "short")  # the schedule is constant: the same run
    tables = [[r for r in metrics(tmp_path / name) if r["kind"] == "validation"] for name in ("long", "short")]
    assert tables[0] == tables[1]
    assert RunFolder.open(tmp_path / "short").config().train.epochs == 3


def test_resuming_a_finished_run_does_nothing(run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    before = content(run)
    assert not resume(run).stopped
    assert content(run) == before
    with pytest.raises(ConfigError, match="already"):
        resume(run, epochs=1)


def test_a_run_and_its_data_can_be_moved(data_folder, tmp_path):
    answers = iter([True])
    train(data_folder, tmp_path / "run", tiny(train__steps=4), should_stop=lambda: next(answers))
    data, run = shutil.copytree(data_folder, tmp_path / "new"), (tmp_path / "run").rename(tmp_path / "moved")
    assert resume(run, data=data).steps == 4


@pytest.fixture(scope="module")
def twins(data_folder, tmp_path_factory):
    """The same run of 41 steps, once left alone and once stopped."""
    folder, answers = tmp_path_factory.mktemp("twins"), iter([False] * 9 + [True])
    config = tiny(train__save_every=4, train__keep_checkpoints=3, train__epochs=1)
    train(data_folder, folder / "whole", config)
    train(data_folder, folder / "stopped", config, should_stop=lambda: next(answers))
    return folder


@pytest.fixture
def whole(twins):
    """The run that was left alone."""
    return twins / "whole"


@pytest.fixture
def stopped(twins, tmp_path):
    """The same, with checkpoints at steps 4, 8 and 10, not finished."""
    return shutil.copytree(twins / "stopped", tmp_path / "run")


def damage(file, how):
    if how == "removed":
        file.unlink()
    elif how == "cut short":
        file.write_bytes(file.read_bytes()[:-20])
    elif how == "emptied":
        file.write_bytes(b"")
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0x10
        file.write_bytes(content)


@pytest.mark.parametrize("how", ["removed", "cut short", "emptied", "one bit flipped"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(stopped, whole, how, name):
    damage(stopped / "checkpoints" / "step-000000010" / name, how)
    records = []
    resume(stopped, callbacks=[lambda record: records.append(dict(record))])
    notes = [record["text"] for record in records if record["kind"] == "note"]
    assert len(notes) == 1
    assert "damaged" in notes[0]
    assert "step-000000010" in notes[0]
    assert "Continuing from step 8" in notes[0]
    assert content(stopped) == content(whole)


def test_damaged_checkpoints_do_not_count_as_kept(data_folder, tmp_path):
    answers = iter([False] * 13 + [True])
    config = tiny(train__save_every=4, train__keep_checkpoints=3)
    train(data_folder, tmp_path / "run", config, should_stop=lambda: next(answers))
    folder = RunFolder.open(tmp_path / "run")
    for step in (12, 14):
        damage(folder.checkpoint_folder(step) / "model.safetensors", "one bit flipped")
    config_file = (
        folder.config_file.read_text()
        .replace("save_every = 4", "save_every = 1")
        .replace("keep_checkpoints = 3", "keep_checkpoints = 2")
    )
    folder.config_file.write_text(config_file)
    with pytest.raises(Crash):
        resume(folder.path, callbacks=[crash_at(10)])
    assert [path.name for path in folder.checkpoint_folders()] == ["step-000000008", "step-000000009"]
    assert {path.name for path in folder.checkpoints.glob("damaged-*")} == {
        "damaged-step-000000012",
        "damaged-step-000000014",
    }


@pytest.mark.parametrize("content", [None, "{", '{"checkpoint": "step-000000777"}'])
def test_a_lost_best_file_stops_nothing(data_folder, tmp_path, content):
    answers = iter([False] * 45 + [True])
    train(data_folder, tmp_path / "run", tiny(), should_stop=lambda: next(answers))
    best = RunFolder.open(tmp_path / "run").best_file
    best.unlink() if content is None else best.write_text(content)
    assert not resume(tmp_path / "run").stopped


def test_a_run_can_be_resumed_in_another_precision(data_folder, tmp_path):
    for number, (first, second) in enumerate((("float32", "float16"), ("float16", "float32"))):
        answers = iter([False] * 3 + [True])
        run = tmp_path / str(number)
        config = tiny(machine__precision=first, train__steps=8)
        train(data_folder, run, config, should_stop=lambda answers=answers: next(answers))
        file = RunFolder.open(run).config_file
        file.write_text(file.read_text().replace(first, second))
        assert resume(run).steps == 8
        notes = read_metrics(run / "metrics.jsonl", "note")
        assert any(f"precision was {first}, is now {second}" in note["text"] for note in notes)
        assert RunFolder.open(run).environment()["precision"] == second


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"instructions": "AVX512 amx_bf16"}, "instructions was AVX512 amx_bf16, is now "),
        ({"processor": "another one", "torch": "2.0"}, "torch was 2.0, is now "),
        ({"instructions": None}, None),  # a run from before they were noted
    ],
)
def test_resuming_in_another_environment_is_noted(stopped, change, said):
    file = RunFolder.open(stopped).environment_file
    known = json.loads(file.read_text()) | change
    file.write_text(json.dumps({name: value for name, value in known.items() if value is not None}))
    resume(stopped, steps=11)
    notes = [note["text"] for note in read_metrics(stopped / "metrics.jsonl", "note")]
    if said is None:
        assert notes == []
        return
    (note,) = notes
    assert note.startswith("resumed in another environment, so not bit for bit: ")
    assert said in note
    resume(stopped, steps=12)
    assert len(read_metrics(stopped / "metrics.jsonl", "note")) == 1, "from here on it is the same machine"


@pytest.mark.parametrize("kept", ["both", "old only"])
def test_leftovers_of_an_interrupted_save_are_removed(data_folder, stopped, kept):
    folder = stopped / "checkpoints" / "step-000000010"
    (stopped / "checkpoints" / ".step-000000099.partial").mkdir()
    old = folder.with_name(f".{folder.name}.old")
    folder.rename(old) if kept == "old only" else shutil.copytree(folder, old)
    records = []
    resume(stopped, callbacks=[lambda record: records.append(dict(record))])
    assert records[0]["step"] == 10
    assert not list((stopped / "checkpoints").glob(".*"))


def test_weights_that_are_not_finite_are_never_saved(data_folder, tmp_path):
    training = start(data_folder, tmp_path / "run", tiny(train__save_every=2))
    real = training.gradients.add

    def add(batch, seed, step):
        if training.state.step == 4:
            with torch.no_grad():
                training.model.ln_f.bias[0] = math.inf
        return real(batch, seed, step)

    training.gradients.add = add
    with pytest.raises(MiniGPTError, match="consecutive steps"):
        training.run()
    assert [f.name for f in training.folder.checkpoint_folders()] == ["step-000000002", "step-000000004"]
    assert any(
        "no checkpoint saved" in note["text"] for note in read_metrics(tmp_path / "run" / "metrics.jsonl", "note")
    )


def test_a_lasting_rise_of_the_gradient_does_not_stall_a_run_that_skips_spikes(data_folder, tmp_path):
    training = start(
        data_folder, tmp_path / "run", tiny(train__steps=120, train__skip_spikes=True, train__grad_clip=0.0)
    )
    real = training.gradients.add

    def add(batch, seed, step):
        loss, tokens = real(batch, seed, step)
        if training.state.step >= 60:
            for parameter in training.model.parameters():
                parameter.grad *= 100
        return loss, tokens

    training.gradients.add = add
    training.run()
    spikes = [note["step"] for note in read_metrics(tmp_path / "run" / "metrics.jsonl", "note")]
    assert spikes[0] == 61
    assert spikes[-1] < 90


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("environment.json", "{}"),
        ("data.json", '{"folder": 3}'),
        ("metrics.jsonl", '{"kind": "step"}\n{}\n'),
        ("metrics.jsonl", "\udcff\n{}\n"),
        ("config.toml", "[train\n"),
    ],
)
def test_a_damaged_file_of_the_run_is_named(stopped, name, content):
    (stopped / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(MiniGPTError, match=name.replace(".", r"\.")):
        resume(stopped)


def test_a_failing_plot_does_not_end_the_run(data_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("minigpt.training.callbacks.plot.plot_losses", plot_losses)
    run = tmp_path / "lr$_{$ 漢字"
    (run.parent / "blocked").write_text("")
    training = start(data_folder, run, tiny(train__steps=3))
    training.folder.picture_file = run.parent / "blocked" / "picture.png"
    training.run()
    assert any("picture" in note["text"] for note in read_metrics(run / "metrics.jsonl", "note"))
    assert resume(run, steps=4).steps == 4
    assert (run / "training_metrics.png").exists()


def test_a_run_with_only_damaged_checkpoints_starts_over(stopped, whole):
    for folder in RunFolder.open(stopped).checkpoint_folders():
        damage(folder / "model.safetensors", "one bit flipped")
    records = []
    resume(stopped, callbacks=[lambda record: records.append(dict(record))])
    notes = [record["text"] for record in records if record["kind"] == "note"]
    assert len(notes) == 3
    assert all("Continuing from step 0" in note for note in notes)
    assert content(stopped) == content(whole)


def test_a_run_that_lost_its_checkpoints_starts_over_and_says_so(stopped):
    for folder in RunFolder.open(stopped).checkpoint_folders():
        shutil.rmtree(folder)
    records = []
    resume(stopped, callbacks=[lambda record: records.append(dict(record))])
    messages = [record["text"] for record in records if record["kind"] == "message"]
    assert messages[0] == "The run has taken steps, but has no checkpoint: it starts over."


def test_a_data_set_that_has_moved_is_asked_for_and_remembered(data_folder, stopped, tmp_path):
    data = shutil.copytree(data_folder, tmp_path / "data")
    folder = RunFolder.open(stopped)
    assert not resume(stopped, data=data, steps=11).stopped
    shutil.move(data, tmp_path / "moved")
    with pytest.raises(DataError, match=r"not found.*--data"):
        resume(stopped, steps=12)
    assert resume(stopped, data=tmp_path / "moved", steps=12).steps == 12
    assert folder.data()["folder"] == str((tmp_path / "moved").resolve())
    assert resume(stopped, steps=13).steps == 13


def test_a_checkpoint_of_another_version_is_refused(stopped):
    state = stopped / "checkpoints" / "step-000000010" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "version": 99}))
    with pytest.raises(CheckpointVersionError, match="99"):
        resume(stopped)


def test_another_data_set_is_refused_by_name(stopped, text_folder, tmp_path):
    from minigpt import prepare

    prepare([str(text_folder)], tmp_path / "other", tokenizer="byte", block_size=32, seed=7)
    with pytest.raises(DataError, match=r"train (tokens|sha256|text_bytes) "):
        resume(stopped, data=tmp_path / "other")


def test_changed_settings_are_refused_by_name(stopped):
    folder = RunFolder.open(stopped)
    text = folder.config_file.read_text()
    folder.config_file.write_text(text.replace("lr = 0.01", "lr = 0.02").replace("n_inner = 32", "n_inner = 48"))
    with pytest.raises(CheckpointError, match=r"model\.n_inner 48, in the checkpoint 32; train\.lr 0\.02"):
        resume(stopped)
    folder.config_file.write_text(text.replace("keep_checkpoints = 3", "keep_checkpoints = 2"))
    assert not resume(stopped).stopped


def test_two_processes_cannot_train_into_one_run(stopped):
    with RunFolder.open(stopped).lock(), pytest.raises(RunError, match="Another process"):
        resume(stopped)
    assert not resume(stopped).stopped


def test_a_save_that_fails_loses_no_checkpoint(data_folder, whole, tmp_path, monkeypatch):
    real, calls = checkpoint.save_file, []

    def full_disk(tensors, file, metadata):
        calls.append(file)
        if len(calls) > 3:  # two files a save: in the middle of the second one
            raise OSError(28, "No space left on device")
        real(tensors, file)

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(CheckpointError, match="the disk is full"):
        train(data_folder, tmp_path / "run", tiny(train__save_every=4, train__epochs=1))
    monkeypatch.undo()
    assert [f.name for f in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000000004"]
    resume(tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


def test_a_metrics_line_cut_short_by_a_crash_is_dropped(data_folder, stopped):
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    resume(stopped)
    assert [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]


def poison(training, steps):
    """Makes the loss of these steps not a number, while the data is in its first order."""
    real = training.gradients.add

    def add(batch, seed, step):
        loss, tokens = real(batch, seed, step)
        return (loss * math.nan if training.state.step in steps and training.state.order == 0 else loss), tokens

    training.gradients.add = add


def test_a_few_nonfinite_steps_are_noted_and_skipped(data_folder, tmp_path):
    training = start(data_folder, tmp_path / "run", tiny(train__epochs=1))
    poison(training, {6, 7})
    training.run()
    notes = read_metrics(tmp_path / "run" / "metrics.jsonl", "note")
    assert [(note["step"], "was skipped" in note["text"]) for note in notes] == [(7, True), (8, True)]
    assert training.state.bad_steps == 0


def test_too_many_nonfinite_steps_rewind_if_set(data_folder, tmp_path):
    config = tiny(train__epochs=1, train__save_every=4, train__on_nonfinite="rewind")
    training = start(data_folder, tmp_path / "run", config)
    poison(training, set(range(10, 40)))
    training.run()
    assert training.state.order == 1
    assert math.isfinite(training.state.best_loss)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert any("went back from step 15 to step" in r.get("text", "") for r in records)
    steps = [r["step"] for r in records if r["kind"] == "step"]
    assert steps == sorted(set(steps))


def test_too_many_nonfinite_steps_stop_with_a_dump(data_folder, tmp_path):
    training = start(data_folder, tmp_path / "run", tiny(train__save_every=4))
    with torch.no_grad():
        training.model.h[0].mlp.c_proj.weight[0, 0] = math.inf
    with pytest.raises(MiniGPTError, match=r"reliability\.md"):
        training.run()
    (dump,) = (tmp_path / "run" / "dumps").iterdir()
    weights, batch = (checkpoint.load_tensors(dump, name) for name in ("model", "batch"))
    model = GPT(training.model.config)
    load_weights(model, weights, finite=False)
    assert checkpoint.load_values(dump) == {"step": 5, "seed": 1}
    assert not math.isfinite(model(batch["x"], batch["y"]).item())


def test_a_gradient_that_overflows_names_its_tensor(data_folder, tmp_path):
    training = start(data_folder, tmp_path / "run", tiny())
    training.model.ln_f.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(MiniGPTError, match=r"the gradient of ln_f\.weight is not finite"):
        training.run()


def test_float16_overflow_is_left_to_the_loss_scaler(data_folder, tmp_path):
    config = tiny(machine__precision="float16", train__steps=20)
    training = start(data_folder, tmp_path / "run", config)
    training.scaler = training.gradients.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    training.run()
    assert read_metrics(tmp_path / "run" / "metrics.jsonl", "note") == []
    assert training.scaler.get_scale() < 2.0**40


@pytest.mark.parametrize("skip", [False, True])
def test_a_spike_is_noted_and_skipped_if_set(data_folder, tmp_path, skip):
    training = start(
        data_folder, tmp_path / "run", tiny(train__steps=70, train__skip_spikes=skip, train__grad_clip=0.0)
    )
    real, before = training.gradients.add, {}

    def add(batch, seed, step):
        loss, tokens = real(batch, seed, step)
        if training.state.step == 60:
            before.update({name: p.detach().clone() for name, p in training.model.named_parameters()})
            for parameter in training.model.parameters():
                parameter.grad *= 1000
        elif training.state.step == 61:
            same = all(torch.equal(p, before[name]) for name, p in training.model.named_parameters())
            assert same == skip
        return loss, tokens

    training.gradients.add = add
    training.run()
    notes = read_metrics(tmp_path / "run" / "metrics.jsonl", "note")
    assert [note["step"] for note in notes] == [61]
    assert "far above the usual" in notes[0]["text"]


def test_normal_gradients_are_not_spikes():
    norms, generator = GradientNorms(), torch.Generator().manual_seed(0)
    for draw in torch.randn(5000, generator=generator):
        norm = math.exp(0.5 * draw.item())
        assert not norms.is_spike(norm)
        norms.add(norm)
    assert norms.is_spike(math.exp(6 * 0.5 + 1.5))
    assert not norms.is_spike(0.0)


def test_the_state_survives_json():
    at = TrainState(step=3, epoch_loss=0.1 + 0.2, best_loss=None, norms=GradientNorms(0.5, 1 / 3, 7))
    assert validate(TrainState, json.loads(json.dumps(asdict(at)))) == at


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train__save_minutes": 1e-9}, [1, 2, 3, 4, 5, 6]),
        ({"train__save_minutes": 0.0, "train__save_every": 4}, [4, 6]),
        ({"train__save_minutes": 0.0, "train__save_every": 1, "train__keep_checkpoints": 2}, [5, 6]),
    ],
)
def test_checkpoints_are_saved_by_time_and_by_steps_and_the_newest_are_kept(data_folder, tmp_path, changes, expected):
    train(data_folder, tmp_path / "run", tiny(**{"train__steps": 6, "train__keep_checkpoints": 100, **changes}))
    steps = [int(f.name.removeprefix("step-")) for f in RunFolder.open(tmp_path / "run").checkpoint_folders()]
    assert steps == expected
