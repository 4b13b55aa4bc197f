"""One reading of a run: each checksum computed once, and nothing missing that stops it."""

from __future__ import annotations

import shutil

import pytest

from minigpt.data import Dataset, prepare
from minigpt.errors import CheckpointError, DataError, RunError
from minigpt.report import ReportOptions
from minigpt.report.collect import collect_facts
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder
from minigpt.runs.snapshot import RunSnapshot


@pytest.fixture
def run(run_folder, data_folder, tmp_path):
    """A finished run that may be changed, and its data set."""
    shutil.copytree(run_folder, tmp_path / "run")
    shutil.copytree(data_folder, tmp_path / "data")
    folder = RunFolder.open(tmp_path / "run")
    folder.check_data(Dataset.open(tmp_path / "data"))
    return folder


def test_a_first_report_hashes_the_data_set_and_each_checkpoint_once(run, monkeypatch):
    opened, verified = [], []
    open_dataset, verify = Dataset.open, checkpoint.verify
    monkeypatch.setattr(
        Dataset, "open", lambda folder, verify=True: opened.append(verify) or open_dataset(folder, verify=verify)
    )
    monkeypatch.setattr(checkpoint, "verify", lambda place: verified.append(place) or verify(place))
    for _ in range(2):
        opened.clear()
        verified.clear()
        [facts] = collect_facts([run.path], ReportOptions())
        assert facts.evaluation
        assert facts.diagnosis
        assert opened == [True]
        assert len(verified) == len(set(verified)) > 0


def test_what_cannot_be_read_is_named_and_the_rest_is_there(run):
    run.environment_file.write_text("{", encoding="utf-8")
    run.data_file.unlink()
    snapshot = RunSnapshot.read(run.path)
    assert set(snapshot.errors) == {"environment", "data"}
    assert (snapshot.environment, snapshot.total_steps, snapshot.dataset_card) == ({}, None, None)
    assert snapshot.steps
    assert snapshot.checkpoints.newest == snapshot.last_step
    with pytest.raises(RunError, match=r"data\.json"):
        snapshot.check()


def test_the_text_of_the_training_is_found_by_what_it_holds(run, text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "other", tokenizer="byte", block_size=32, seed=7)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    for place, found in ((None, "data"), ("copy", "copy"), ("other", "data")):
        snapshot = RunSnapshot.read(run, tmp_path / place if place else None)
        assert snapshot.training_data().folder == tmp_path / found
        assert snapshot.dataset().folder == tmp_path / (place or "data")
        assert snapshot.dataset_card is not None
        assert snapshot.dataset() is snapshot.dataset(verify=False)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "other").rename(tmp_path / "data")
    with pytest.raises(DataError, match="not the one"):
        RunSnapshot.read(run).training_data()


def test_a_damaged_checkpoint_is_not_read_twice(run, monkeypatch):
    place = run.checkpoint_folders()[-1]
    (place / "model.safetensors").write_bytes(b"")
    snapshot = RunSnapshot.read(run)
    with pytest.raises(CheckpointError):
        snapshot.verify(place)
    monkeypatch.setattr(checkpoint, "verify", None)
    with pytest.raises(CheckpointError):
        snapshot.verify(place)
