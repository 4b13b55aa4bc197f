"""Figures that are kept: used only for what they were measured on; and what happens where there is no room."""

from __future__ import annotations

import json

import pytest
import torch

from minigpt.config import MachineConfig
from minigpt.data import Dataset, prepare
from minigpt.errors import CheckpointError, ConfigError
from minigpt.report import ReportOptions, cache, write_report
from minigpt.report.collect import collect_facts
from minigpt.runs.folder import RunFolder
from minigpt.runs.snapshot import RunSnapshot
from tests.report.conftest import Page


@pytest.fixture
def measuring(run, monkeypatch):
    """Returns what gives the figures of the run, and the steps that were measured for that, one by one."""
    folder, steps = RunFolder.open(run), []
    measure = cache.evaluate

    def counted(*args, **rest):
        steps.append(int(rest["checkpoint"]))
        return measure(*args, **rest)

    def again(which="best", dataset=None, precision="auto"):
        machine = MachineConfig(precision=precision)
        now = RunSnapshot.read(run)
        return cache.cached_evaluation(now, which, dataset or now.dataset(), machine, lambda phase, done, total: None)

    monkeypatch.setattr(cache, "evaluate", counted)
    return folder, steps, again


def test_another_text_precision_or_setting_is_measured_anew(measuring, text_folder, tmp_path, monkeypatch):
    folder, steps, again = measuring
    again()
    assert len(steps) == 1
    prepare([str(text_folder)], tmp_path / "seed", tokenizer="byte", block_size=32, seed=7)
    other = Dataset.open(tmp_path / "seed")
    assert again(dataset=other).metrics.tokens == other.val.n_tokens - 1
    assert len(steps) == 2  # another validation text
    again()
    assert len(steps) == 3
    again(precision="bfloat16")
    assert len(steps) == 4
    again(precision="float32")
    assert len(steps) == 5
    config = folder.config_file.read_text("utf-8")
    folder.config_file.write_text(config.replace("n_head = 2", "n_head = 1"), encoding="utf-8")
    again(precision="float32")
    assert len(steps) == 6
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    again(precision="float32")
    assert len(steps) == 7
    again(precision="float32")
    assert len(steps) == 7


def test_another_training_text_is_measured_anew(measuring):
    folder, steps, again = measuring
    again()
    content = json.loads(folder.evaluation_file.read_text("utf-8"))
    for name in ("train", "val", "step", "torch", "weights"):
        changed = {**content, "made_of": {**content["made_of"], name: "another"}}
        folder.evaluation_file.write_text(json.dumps(changed), encoding="utf-8")
        again()
    assert len(steps) == 6


def test_the_step_that_was_found_is_the_one_that_is_measured(measuring, monkeypatch):
    folder, _, again = measuring
    places = [folder.checkpoint_step(place) for place in folder.checkpoint_folders()]
    assert len(places) > 1
    folder.mark_best(places[0], 9.9)
    measure = cache.evaluate

    def meanwhile(*args, **rest):
        folder.mark_best(places[-1], 1.0)  # a training notes a new best
        return measure(*args, **rest)

    monkeypatch.setattr(cache, "evaluate", meanwhile)
    assert again().step == places[0]
    assert again(str(places[-1])).step == places[-1]
    assert again(str(places[0])).step == places[0]


@pytest.mark.usefixtures("sketched")
def test_too_little_memory_ends_no_report(run, monkeypatch):
    def fail(*args, **rest):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cache, "evaluate", fail)
    for options in (ReportOptions(samples=False), ReportOptions(samples=False, checkpoint="latest")):
        words = Page(write_report([run], options=options).read_text("utf-8")).words
        assert "No evaluation: not enough memory. Try --device cpu, or omit it" in words


def test_other_errors_are_not_taken_for_too_little_memory(run, monkeypatch):
    def fail(*args, **rest):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(cache, "evaluate", fail)
    with pytest.raises(RuntimeError, match="of ours"):
        write_report([run], options=ReportOptions(samples=False))
    with pytest.raises(CheckpointError, match="No such checkpoint"):
        write_report([run], options=ReportOptions(samples=False, checkpoint="77777"))


def test_a_place_that_cannot_be_written_is_named_before_the_work(run, tmp_path, monkeypatch):
    def work(*args, **rest):
        raise AssertionError("it has begun")

    monkeypatch.setattr("minigpt.report.page.collect_facts", work)
    with pytest.raises(ConfigError, match="not an HTML page"):
        write_report([run], tmp_path)

    def refused(**rest):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(ConfigError, match="Cannot write the report"):
        write_report([run], tmp_path / f"{'x' * 260}.html")
    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(ConfigError, match="Cannot write the report"):
        write_report([run])


@pytest.mark.usefixtures("sketched")
def test_no_file_but_a_page_is_replaced(run, tmp_path):
    here, fast = sorted(path.name for path in tmp_path.iterdir()), ReportOptions(evaluate=False, samples=False)
    for file in (run / "config.toml", run / "metrics.jsonl", run / ".lock"):
        before = file.read_bytes()
        with pytest.raises(ConfigError, match="not an HTML page"):
            write_report([run], file, options=fast)
        assert file.read_bytes() == before
    old = tmp_path / "old.html"
    old.write_text("<!DOCTYPE HTML><title>an older one</title>", encoding="utf-8")
    assert write_report(str(run), old, options=fast) == old  # one run needs no list
    assert "is a transformer" in old.read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*here, "old.html"])


@pytest.mark.usefixtures("sketched")
def test_a_disk_that_fills_up_leaves_no_part_of_a_page(run, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minigpt.atomic.sync", full)
    with pytest.raises(ConfigError, match="the disk is full"):
        write_report([run], run / "page.html", options=ReportOptions(evaluate=False, samples=False))
    assert not [path for path in run.iterdir() if "page.html" in path.name]


def test_kept_figures_outlive_their_text(measuring, tmp_path):
    folder, steps, again = measuring
    first = again()
    assert len(steps) == 1
    content = json.loads(folder.evaluation_file.read_text("utf-8"))
    another = {**content["made_of"], "torch": "another", "device": "another"}
    folder.evaluation_file.write_text(json.dumps({**content, "made_of": another}), encoding="utf-8")
    (tmp_path / "first-data").rename(tmp_path / "moved")
    said = []
    [facts] = collect_facts([folder.path], ReportOptions(samples=False))
    assert (facts.evaluation, facts.unseen) == (first, True)
    write_report(folder.path, options=ReportOptions(samples=False), on_missing=said.append)
    assert "the metrics are from an earlier report" in said[0]
    assert "name its folder with --data" in said[0]
    assert len(steps) == 1
    for name in ("train", "val", "step", "weights", "metrics"):
        changed = {**content, "made_of": {**content["made_of"], name: "another"}}
        folder.evaluation_file.write_text(json.dumps(changed), encoding="utf-8")
        [facts] = collect_facts([folder.path], ReportOptions(samples=False))
        assert facts.evaluation is None
        assert "No evaluation: " in facts.missing[0]


def test_text_that_may_be_trained_on_is_not_called_unseen(run, text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "mixed", tokenizer="byte", block_size=32, seed=7)
    own, mixed = (
        collect_facts([run], ReportOptions(samples=False, data=data))[0] for data in (None, tmp_path / "mixed")
    )
    assert own.unseen
    assert not mixed.unseen
