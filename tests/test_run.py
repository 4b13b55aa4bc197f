"""Run folders: found, moved, refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from minigpt import checkpoint, load
from minigpt.errors import CheckpointError, RunError, TokenizerError
from minigpt.run import MODEL, RunFolder
from minigpt.tokenizers import make_tokenizer


@pytest.fixture
def own_run(run_folder, tmp_path):
    """A copy that a test may damage."""
    return RunFolder(shutil.copytree(run_folder, tmp_path / "copy"))


def rewrite(folder, change):
    """Writes a checkpoint's weights anew, changed, with sums that fit."""
    tensors, values = checkpoint.load_tensors(folder, MODEL), checkpoint.load_values(folder)
    change(tensors)
    checkpoint.save(folder, {MODEL: tensors}, values)


def test_a_moved_run_gives_the_same_model(run_folder, own_run):
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(load(run_folder)[0](ids), load(own_run.path)[0](ids))


def test_loading_a_model_gives_it_in_evaluation_mode(run_folder):
    model, tokenizer = load(run_folder)
    assert not model.training
    assert tokenizer.vocab_size == model.config.vocab_size


def test_checkpoints_are_found_by_name_and_step(own_run):
    latest = own_run.find_checkpoint("latest")
    step = int(latest.name.removeprefix("step-"))
    assert own_run.find_checkpoint(str(step)) == latest
    assert own_run.find_checkpoint("best") in own_run.checkpoint_folders()
    for which in ("12345", "newest", ""):
        with pytest.raises(CheckpointError, match=f"steps there: .*{step}"):
            own_run.find_checkpoint(which)


def test_a_run_without_a_best_yet_gives_its_latest(own_run):
    own_run.best_file.unlink()
    assert own_run.find_checkpoint("best") == own_run.find_checkpoint("latest")


def test_a_note_of_the_best_that_cannot_be_read_counts_as_lost(own_run):
    own_run.best_file.write_text("junk")
    assert own_run.find_checkpoint("best") == own_run.find_checkpoint("latest")


def test_no_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError, match="no run folder"):
            RunFolder.open(path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda tensors: tensors.pop("wte.weight"), r"wte\.weight: missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra: .*expected nothing"),
        (lambda tensors: tensors.update({"ln_f.bias": torch.zeros(3)}), r"ln_f\.bias: \(3,\), expected \(16,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(own_run, change, word):
    rewrite(own_run.find_checkpoint("latest"), change)
    with pytest.raises(CheckpointError, match=word):
        load(own_run.path, "latest")


def test_damaged_files_are_named(own_run):
    own_run.data_file.write_text("[]")
    with pytest.raises(RunError, match=r"data\.json"):
        own_run.data()
    own_run.best_file.write_text(json.dumps({"checkpoint": "../../elsewhere"}))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        own_run.find_checkpoint("best")


def test_another_tokenizer_is_refused_by_name(own_run):
    own_run.check_tokenizer(make_tokenizer("byte", []))
    with pytest.raises(TokenizerError, match=r"char .* instead of byte"):
        own_run.check_tokenizer(make_tokenizer("char", ["abc"]))
