"""Checkpoints: whole or not at all, and never read when damaged."""

from __future__ import annotations

import json

import pytest
import torch

from minigpt.errors import CheckpointError
from minigpt.runs import checkpoint

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3, dtype=torch.int64)}


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "checkpoints" / "step-1"
    checkpoint.save(target, {"model": TENSORS, "optimizer": {"c": torch.ones(1)}}, {"step": 1})
    return target


def test_what_was_saved_comes_back(folder):
    tensors = checkpoint.load_tensors(folder, "model")
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    assert checkpoint.load_values(folder) == {"step": 1}


def test_nothing_else_is_left_behind(folder):
    assert [path.name for path in folder.parent.iterdir()] == ["step-1"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]


def test_an_existing_one_is_replaced(folder):
    checkpoint.save(folder, {"model": {"a": torch.zeros(1)}}, {"step": 2})
    assert checkpoint.load_values(folder) == {"step": 2}
    assert checkpoint.load_tensors(folder, "model")["a"].numel() == 1


@pytest.mark.parametrize("place", [0, 10, -1])
def test_a_flipped_bit_is_noticed(folder, place):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*(SHA-256|header)"):
        checkpoint.load_tensors(folder, "model")
    assert checkpoint.load_tensors(folder, "optimizer")


def test_a_file_cut_short_or_missing_is_noticed(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_tensors(folder, "model")
    file.unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_tensors(folder, "model")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"version": 1}', '{"version": 1, "files": [], "values": {}}'])
def test_a_state_that_makes_no_sense_is_refused(folder, content):
    (folder / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_values(folder)


@pytest.mark.parametrize(
    "change",
    [{"files": []}, {"files": {"../model.safetensors": "0"}}, {"files": {"/dev/zero": "0"}}, {"values": 3}],
    ids=str,
)
def test_a_state_that_leads_elsewhere_is_refused_though_its_sum_fits(folder, change):
    state = json.loads((folder / "state.json").read_text())
    state = {**{name: value for name, value in state.items() if name != "sum"}, **change}
    (folder / "state.json").write_text(json.dumps({**state, "sum": checkpoint._sum(state)}))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.verify(folder)


def test_a_state_that_is_too_deep_is_refused(folder):
    (folder / "state.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_values(folder)


def test_a_newer_version_is_refused_by_name(folder):
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "version": 99}))
    with pytest.raises(CheckpointError, match=r"newer Mini-GPT.*99"):
        checkpoint.load_values(folder)


def test_a_failed_write_leaves_the_old_one_and_no_rubbish(folder):
    blocked = folder.parent / "file"
    blocked.write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoint.save(blocked / "step-2", {"model": TENSORS}, {})
    assert checkpoint.load_values(folder) == {"step": 1}


def test_a_pickle_under_a_safetensors_name_is_not_read(folder, tmp_path):
    file = folder / "model.safetensors"
    torch.save(TENSORS, file)
    state = json.loads((folder / "state.json").read_text())
    state["files"]["model.safetensors"] = checkpoint.sha256_file(file)
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_tensors(folder, "model")


def test_a_file_with_a_hole_of_a_terabyte_is_damaged_at_once(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.verify(folder)
