"""Checkpoints that are gone or damaged, and records that are lost: a run is never healthy then."""

from __future__ import annotations

import json
import shutil

import pytest

from minigpt.cli.doctor import progress_line
from minigpt.doctor import diagnose, read_evidence
from minigpt.runs.folder import RunFolder


@pytest.fixture
def run(trained, tmp_path):
    return RunFolder(shutil.copytree(trained, tmp_path / "run"))


def found(run):
    return {finding.check: finding for finding in diagnose(read_evidence(run.path)).findings}


def damage(folder):
    """Changes a byte, and no size."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_intact_checkpoints_are_not_a_finding(run):
    assert not {"no checkpoint", "damaged checkpoint", "no metrics"} & set(found(run))


@pytest.mark.parametrize("gone", [True, False])
def test_a_run_of_which_nothing_is_left(run, gone):
    for folder in run.checkpoint_folders():
        shutil.rmtree(folder) if gone else damage(folder)
    finding = found(run)["no checkpoint"]
    assert finding.severity == "problem"
    assert "60 steps" in finding.observation
    assert ("SHA-256" in finding.observation) == (not gone)
    assert finding.command == f"minigpt resume {run.path}"


def test_a_run_that_was_killed_before_its_first_step(run):
    shutil.rmtree(run.checkpoints)
    run.metrics_file.unlink()
    with run.lock():
        assert found(run) == {}  # it may just begin
    (finding,) = found(run).values()
    assert (finding.check, finding.severity) == ("nothing saved", "problem")
    assert finding.observation == "The run took none of its 60 steps, and nobody is training it."
    assert finding.command == f"minigpt resume {run.path}"
    run.origin_file.write_text(json.dumps({"kind": "run", "folder": "elsewhere", "checkpoint": "step-000000001"}))
    assert "--init-from elsewhere" in found(run)["nothing saved"].command  # resume needs what it began with


def test_a_run_that_was_killed_before_its_first_checkpoint(run):
    shutil.rmtree(run.checkpoints)
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    kept = [record for record in records if record["step"] <= 1]
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in kept))
    (finding,) = found(run).values()
    assert finding.check == "nothing saved"
    assert "took 1 step and saved none" in finding.observation
    assert finding.command == f"minigpt resume {run.path}"


@pytest.mark.parametrize("setting", ["save_every = 1", "save_minutes = 1e-9"])
def test_a_checkpoint_that_must_have_been_is_lost(run, setting):
    test_a_run_that_was_killed_before_its_first_checkpoint(run)
    name = setting.split()[0]
    settings = [line for line in run.config_file.read_text().splitlines() if not line.startswith(name)]
    run.config_file.write_text("\n".join(settings).replace("[train]", f"[train]\n{setting}"))
    assert list(found(run)) == ["no checkpoint"]


def test_a_newest_checkpoint_that_is_damaged(run):
    (newest,) = run.checkpoint_folders()
    shutil.copytree(newest, run.checkpoint_folder(40))
    run.mark_best(40, 1.0)
    damage(newest)
    finding = found(run)["damaged checkpoint"]
    assert "The newest checkpoint" in finding.observation
    assert "step 40" in finding.fix
    assert finding.command == f"minigpt resume {run.path}"
    newest.rename(run.path / "elsewhere")
    assert "damaged checkpoint" not in found(run)
    (run.path / "elsewhere").rename(newest)
    damage(newest)  # as it was
    damage(run.checkpoint_folder(40))
    assert "The best checkpoint" in found(run)["damaged checkpoint"].observation
    shutil.rmtree(run.checkpoint_folder(40))
    assert "not found" in found(run)["damaged checkpoint"].observation


def test_a_run_in_training_looks_after_its_checkpoints_itself(run):
    shutil.rmtree(run.checkpoints)
    with run.lock():
        assert "no checkpoint" not in found(run)


def test_steps_behind_the_last_line_count(run):
    lines = run.metrics_file.read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["step"] <= 50]
    run.metrics_file.write_text("".join(line + "\n" for line in kept))
    evidence = read_evidence(run.path)
    assert evidence.last_step == 60
    assert "60 of 60 steps" in progress_line(evidence)
    assert "not yet validated" in progress_line(evidence)


@pytest.mark.parametrize("empty", [True, False])
def test_metrics_that_are_lost(run, empty):
    run.metrics_file.write_text("") if empty else run.metrics_file.unlink()
    evidence = read_evidence(run.path)
    diagnosis = diagnose(evidence)
    assert "60 of 60 steps" in progress_line(evidence)
    assert "no metrics" in [finding.check for finding in diagnosis.findings]
    assert "no records of its loss" in diagnosis.normality.text
    assert len(diagnosis.skipped_lines()) == 1
    assert "health records" not in diagnosis.skipped_lines()[0]


def test_as_plain_values_a_remedy_is_words_and_a_command(run):
    shutil.rmtree(run.checkpoints)
    finding = found(run)["no checkpoint"].to_dict()
    assert finding["fix"] == "Restore its checkpoints folder from a copy. Without one, start again"
    assert finding["command"] == f"minigpt resume {run.path}"
