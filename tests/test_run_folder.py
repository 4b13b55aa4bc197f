"""Run folders: found, moved, refused."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch

from minigpt import load
from minigpt.errors import CheckpointError, RunError, TokenizerError
from minigpt.runs import checkpoint
from minigpt.runs.folder import MODEL, RunFolder
from minigpt.state_dict import is_finite, load_weights, model_tensors
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
        with pytest.raises(CheckpointError, match=f"available steps: .*{step}"):
            own_run.find_checkpoint(which)


def test_a_run_without_a_best_yet_gives_its_latest(own_run):
    own_run.best_file.unlink()
    assert own_run.find_checkpoint("best") == own_run.find_checkpoint("latest")


def test_a_note_of_the_best_that_cannot_be_read_counts_as_lost(own_run):
    own_run.best_file.write_text("junk")
    assert own_run.find_checkpoint("best") == own_run.find_checkpoint("latest")


def test_no_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError, match=r"(?:No such|Not a) run folder"):
            RunFolder.open(path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda tensors: tensors.pop("wte.weight"), r"wte\.weight: missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra: .*expected nothing"),
        (lambda tensors: tensors.update({"ln_f.bias": torch.zeros(3)}), r"ln_f\.bias: \(3,\), expected \(16,\)"),
        (lambda tensors: tensors.update({"ln_f.bias": torch.zeros(16).int()}), r"ln_f\.bias: \(16,\) of torch\.int32"),
        (lambda tensors: tensors["ln_f.bias"].fill_(float("nan")), r"non-finite.*ln_f\.bias"),
        (lambda tensors: tensors["wte.weight"][3].fill_(float("inf")), r"non-finite.*wte\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(own_run, change, word):
    rewrite(own_run.find_checkpoint("latest"), change)
    with pytest.raises(CheckpointError, match=word):
        load(own_run.path, "latest")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_number_that_is_not_finite_is_found_wherever_it_stands(value, dtype):
    tensor = torch.linspace(-3, 3, 1003).to(dtype)
    assert is_finite(tensor)
    for place in (0, 1, 8, 500, 1002):
        tensor[place], kept = value, tensor[place].clone()
        assert not is_finite(tensor)
        tensor[place] = kept
    assert is_finite(tensor)


def test_weights_are_copied_all_or_none(own_run):
    model, _ = load(own_run.path)
    before = {name: tensor.clone() for name, tensor in model_tensors(model).items()}
    wrong = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    wrong["wte.weight"][0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="non-finite"):
        load_weights(model, wrong)
    assert all(torch.equal(before[name], tensor) for name, tensor in model_tensors(model).items())


@pytest.mark.parametrize("change", [("n_layer = 1", "n_layer = 100000000"), ("n_inner = 32", "n_inner = 1000000000")])
def test_no_memory_is_taken_for_a_model_that_is_not_in_the_checkpoint(own_run, change):
    text = own_run.config_file.read_text()
    own_run.config_file.write_text(text.replace(*change))
    assert text != own_run.config_file.read_text()
    with pytest.raises(CheckpointError, match="parameters in the settings"):
        load(own_run.path)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(own_run):
    shutil.rmtree(own_run.tokenizer_folder)
    make_tokenizer("char", ["".join(map(chr, range(0x4E00, 0x4F00)))]).save(own_run.tokenizer_folder)
    with pytest.raises(CheckpointError, match=r"model\.vocab_size 257, 258 ids"):
        load(own_run.path)


def test_damaged_files_are_named(own_run):
    own_run.data_file.write_text("[]")
    with pytest.raises(RunError, match=r"data\.json"):
        own_run.data()
    own_run.best_file.write_text(json.dumps({"checkpoint": "../../elsewhere", "step": 1, "val_loss": 1.0}))
    with pytest.raises(CheckpointError, match="No such checkpoint"):
        own_run.find_checkpoint("best")


@pytest.mark.parametrize(
    "changed",
    [
        {"checkpoint": []},
        {"checkpoint": None},
        {"val_loss": -5},
        {"val_loss": "x"},
        {"val_loss": math.nan},
        {"val_loss": True},
        {"step": "1"},
    ],
)
def test_a_note_of_the_best_checkpoint_that_cannot_be_is_taken_from_the_metrics(own_run, changed):
    noted = own_run.best()
    own_run.best_file.write_text(json.dumps({**noted, **changed}))
    assert own_run.best() == noted
    own_run.remove_old_checkpoints(1)
    assert own_run.find_checkpoint("best").name == noted["checkpoint"]
    own_run.metrics_file.unlink()
    assert own_run.best() is None


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("data.json", {"folder": 5}),
        ("data.json", {"folder": None}),
        ("data.json", {"splits": None}),
        ("data.json", {"splits": {"train": {"tokens": 1, "text_bytes": 1, "sha256": ""}}}),
        ("data.json", {"splits": {"train": 5, "val": 5}}),
        ("data.json", {"tokenizer": {}}),
        ("data.json", {"tokenizer": {"spec": 1, "identity": ""}}),
        ("environment.json", {"device": 5}),
        ("environment.json", {"threads": "2"}),
        ("environment.json", {"threads": -2}),
        ("origin.json", {"kind": "run", "folder": []}),
        ("origin.json", {"kind": {}, "folder": ""}),
    ],
)
def test_json_of_the_wrong_shape_is_refused_where_it_is_read(own_run, file, changed):
    place = own_run.path / file
    place.write_text(json.dumps({**(json.loads(place.read_text()) if place.exists() else {}), **changed}))
    with pytest.raises(RunError, match=rf"{file}: (Expected|Object missing|a split is missing)"):
        {"data.json": own_run.data, "environment.json": own_run.environment, "origin.json": own_run.origin}[file]()


def test_another_tokenizer_is_refused_by_name(own_run):
    own_run.check_tokenizer(make_tokenizer("byte", []))
    with pytest.raises(TokenizerError, match=r"char .* instead of byte"):
        own_run.check_tokenizer(make_tokenizer("char", ["abc"]))
