"""Evaluation of a whole run, and its notes and errors."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from minigpt.config import MachineConfig
from minigpt.data import Dataset, prepare
from minigpt.errors import CheckpointError, ConfigError, DataError, TokenizerError
from minigpt.evaluation import evaluate, split_loss
from minigpt.evaluation.eval_plots import check_picture, draw_evaluation
from minigpt.evaluation.metrics import Estimate
from minigpt.export.exporting import export_run
from minigpt.runs.folder import load
from minigpt.runtime import detect_runtime


def test_the_loss_is_that_of_the_whole_split(run_folder, dataset: Dataset):
    model, _ = load(run_folder)
    reference = split_loss(model, dataset.val, detect_runtime("cpu", "float32"))
    found = evaluate(run_folder).metrics
    assert found.loss.value == pytest.approx(reference.loss, rel=1e-6)
    assert found.bits_per_byte.value == pytest.approx(reference.bits_per_byte, rel=1e-6)
    assert found.perplexity.value == pytest.approx(reference.perplexity, rel=1e-5)
    assert found.tokens == dataset.val.n_tokens - 1
    assert found.documents == dataset.card.val.documents
    uniform, unigram, bigram = (found.baselines[name].value for name in ("uniform", "unigram", "bigram"))
    assert uniform == math.log(257) > unigram > bigram
    low, high = found.bits_per_byte.interval
    assert low < found.bits_per_byte.value < high


@pytest.mark.parametrize("stride", [32, 10])
def test_the_loss_is_what_transformers_computes_on_the_exported_model(run_folder, dataset: Dataset, tmp_path, stride):
    theirs = AutoModelForCausalLM.from_pretrained(export_run(run_folder, tmp_path / "hf")).eval()
    ids = torch.from_numpy(dataset.val.tokens.astype(np.int64))
    total, done, start = 0.0, 1, 0
    with torch.no_grad():
        while done < len(ids):
            window = ids[start : start + 33]
            logits = theirs(window[None, :-1]).logits[0, done - start - 1 :]
            total += torch.nn.functional.cross_entropy(logits, window[done - start :], reduction="sum").item()
            done, start = start + len(window), start + stride
    assert evaluate(run_folder, stride=stride).metrics.loss.value == pytest.approx(total / (len(ids) - 1), abs=1e-5)


def test_an_evaluation_is_deterministic(run_folder):
    assert evaluate(run_folder).to_dict() == evaluate(run_folder).to_dict()


def test_more_context_helps_and_every_token_still_counts_once(run_folder):
    few, many = evaluate(run_folder), evaluate(run_folder, stride=4)
    assert many.metrics.tokens == few.metrics.tokens
    assert many.stride == 4
    assert [group.name for group in many.metrics.by_context[-2:]] == ["9 - 16", "17 - 32"]
    assert few.metrics.by_context[0].tokens > many.metrics.by_context[0].tokens == 1


def test_a_texts_bits_are_of_its_own_bytes(run_folder, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("the cat sees the dog — éh", encoding="utf-8")
    found = evaluate(run_folder, texts=[str(file)])
    assert found.text == str(file)
    n_bytes = len(file.read_bytes())
    assert found.metrics.tokens == n_bytes
    assert found.metrics.bits_per_byte.value == pytest.approx(found.metrics.loss.value / math.log(2))
    assert "too short for intervals" in found.notes[0]


def test_why_training_measured_another_loss(run_folder, text_folder, tmp_path):
    assert not any("itself" in note for note in evaluate(run_folder).notes)
    run = shutil.copytree(run_folder, tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.update({"val_loss": 9.5} if line["kind"] == "validation" else {})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluate(run)
    said = f"a validation loss of 9.5000 at step {found.step}"
    assert (
        f"{said}; the evaluation gives {found.metrics.loss.value:.4f}: rounding depends on the machine"
        in found.notes[-1]
    )
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "precision": "bfloat16"}))
    [note] = [note for note in evaluate(run, machine=MachineConfig(precision="float32")).notes if "itself" in note]
    assert f"{said}, in bfloat16; the evaluation gives" in note
    assert note.endswith(", in float32.")
    [note] = [note for note in evaluate(run).notes if "itself" in note]
    assert note.endswith(": training and evaluation round differently in bfloat16.")
    for other in (
        {"stride": 8},
        {"split": "train"},
        {"texts": [str(text_folder / "00.txt")]},
    ):
        assert not any("itself" in note for note in evaluate(run, **other).notes)


def copy_of(run_folder: Path, tmp_path: Path, **data: object) -> Path:
    """The run, with its note of the training data changed."""
    copy = shutil.copytree(run_folder, tmp_path / "run")
    known = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps({**known, **data}))
    return copy


def test_without_the_training_data_the_rest_is_measured(run_folder, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sees the dog.")
    run = copy_of(run_folder, tmp_path, folder=str(tmp_path / "gone"))
    found = evaluate(run, texts=[str(tmp_path / "a.txt")])
    assert list(found.metrics.baselines) == ["uniform"]
    assert found.metrics.by_frequency is None
    assert "training data is not available" in found.notes[0]
    assert "gone" in found.notes[0]
    with pytest.raises(DataError, match="not found"):
        evaluate(run)


def test_moved_training_data_is_recognised(run_folder, data_folder, tmp_path):
    moved = shutil.copytree(data_folder, tmp_path / "moved")
    run = copy_of(run_folder, tmp_path, folder=str(tmp_path / "gone"))
    assert "bigram" in evaluate(run, data=moved).metrics.baselines


def test_other_data_in_the_place_of_the_training_data_is_not_taken_for_it(run_folder, text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "other", tokenizer="byte", seed=1)
    found = evaluate(copy_of(run_folder, tmp_path, folder=str(tmp_path / "other")))
    assert "bigram" not in found.metrics.baselines
    assert "contains other data now" in found.notes[0]
    found = evaluate(
        copy_of(run_folder, tmp_path / "2"), data=tmp_path / "other"
    )  # compared with its own training data
    assert "bigram" in found.metrics.baselines


def test_the_training_split_is_named_as_such(run_folder):
    for split, words in (("train", "This is the training split"), ("all", "This includes the training split")):
        assert f"{words}: the model" in " ".join(evaluate(run_folder, split=split).notes)
    assert "training split" not in " ".join(evaluate(run_folder).notes)


def test_all_of_a_data_set_is_both_splits_each_read_by_itself(run_folder, dataset):
    val, train, both = (evaluate(run_folder, split=split).metrics for split in ("val", "train", "all"))
    assert (both.tokens, both.documents) == (val.tokens + train.tokens, 30)
    assert both.loss.value == pytest.approx(
        (val.loss.value * val.tokens + train.loss.value * train.tokens) / both.tokens, rel=1e-6
    )
    assert both.bits_per_byte.value * both.bytes_per_token == pytest.approx(both.loss.value / math.log(2))
    assert [one.name for one in both.by_document] == [one.name for one in (*val.by_document, *train.by_document)]


def test_targets_between_segments_are_skipped(run_folder, text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "data", tokenizer="byte", split_by="sequence", block_size=64)
    found = evaluate(run_folder, data=tmp_path / "data", split="all")
    data = Dataset.open(tmp_path / "data")
    seams = sum((shard.n_tokens - 1) // 64 for shard in (data.val, data.train))
    assert found.metrics.tokens == data.val.n_tokens + data.train.n_tokens - 2 - seams
    assert not any(one.beginning for one in found.metrics.by_document)  # nobody knows their files


def test_known_text_in_another_data_set_is_noted(run_folder, text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "data", tokenizer="byte", block_size=32, seed=7)
    for split in ("val", "train"):
        notes = " ".join(evaluate(run_folder, data=tmp_path / "data", split=split).notes)
        assert "also occur in the training text" in notes
        assert "training split" not in notes  # it is that of another text


def test_few_documents_are_noted(run_folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("the cat sees the dog.")
    assert "only 2 documents" in " ".join(evaluate(run_folder, texts=[str(tmp_path)]).notes)


def test_a_text_that_was_trained_on_is_noted(run_folder, dataset, tmp_path):
    tokens = dataset.train.tokens
    half = bytes(dataset.tokenizer.decode(tokens[: len(tokens) // 2].tolist()), "utf-8")
    (tmp_path / "seen.txt").write_bytes(half)
    [note] = [
        note for note in evaluate(run_folder, texts=[str(tmp_path / "seen.txt")]).notes if "training text" in note
    ]
    assert int(note.split("%")[0]) > 80  # windows across the end of a document are not there
    (tmp_path / "new.txt").write_text("".join(chr(97 + i * i % 23) for i in range(3000)))
    assert "training text" not in " ".join(evaluate(run_folder, texts=[str(tmp_path / "new.txt")]).notes)


def test_plain_values_survive_json(run_folder):
    plain = evaluate(run_folder).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == json.loads(json.dumps(plain))
    for name in ("loss", "perplexity", "bits_per_byte", "accuracy", "top5_accuracy"):
        low, high = plain["intervals"][name]
        assert low <= plain[name] <= high
    assert plain["step"] > 0
    assert plain["by_context"][0]["name"] == "1"
    infinite = dataclasses.replace(evaluate(run_folder).metrics, perplexity=Estimate(math.inf))
    assert dataclasses.replace(evaluate(run_folder), metrics=infinite).to_dict()["perplexity"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"stride": 0}, ConfigError, "stride"),
        ({"stride": 33}, ConfigError, "32"),
        ({"batch_size": 0}, ConfigError, "batch size"),
        ({"checkpoint": "77"}, CheckpointError, "77"),
        ({"data": "nowhere"}, DataError, "nowhere"),
        ({"data": "DATA", "texts": ["x"]}, ConfigError, "cannot be evaluated together"),
        ({"texts": ["nowhere.txt"]}, DataError, "nowhere.txt"),
    ],
)
def test_mistakes_are_named(run_folder, arguments, error, words):
    with pytest.raises(error, match=words):
        evaluate(run_folder, **arguments)


def test_another_tokenizers_data_is_refused(run_folder, text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "char", tokenizer="char")
    with pytest.raises(TokenizerError, match="different tokenizer"):
        evaluate(run_folder, data=tmp_path / "char")


def test_progress_reaches_its_end(run_folder):
    calls = []
    evaluate(run_folder, on_progress=lambda *call: calls.append(call))
    for phase in ("predicting", "counting", "resampling"):
        done, total = [call[1:] for call in calls if call[0] == phase][-1]
        assert done == total > 0


def test_bfloat16_is_close(run_folder):
    exact = evaluate(run_folder).metrics
    rough = evaluate(run_folder, machine=MachineConfig(precision="bfloat16"))
    assert rough.precision == "bfloat16"
    assert rough.metrics.loss.value == pytest.approx(exact.loss.value, abs=0.01)
    assert rough.metrics.accuracy.value == pytest.approx(exact.accuracy.value, abs=0.01)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_plot_is_drawn(run_folder, tmp_path, suffix):
    file = tmp_path / f"$x{suffix}"  # a name that is half a formula
    evaluation = dataclasses.replace(evaluate(run_folder), run="runs/$x")
    check_picture(file)
    draw_evaluation(evaluation, file)
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert file.read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_plot_without_training_data_says_so(run_folder, tmp_path):
    evaluation = evaluate(run_folder)
    found = dataclasses.replace(evaluation.metrics, by_frequency=None)
    draw_evaluation(dataclasses.replace(evaluation, metrics=found), tmp_path / "x.svg")
    assert "not available" in (tmp_path / "x.svg").read_text()


@pytest.mark.parametrize("name", ["x.jpg", "x", "no/such/folder/x.png"])
def test_a_plot_that_cannot_be_written_is_refused_beforehand(tmp_path, name):
    with pytest.raises(ConfigError, match="plot"):
        check_picture(tmp_path / name)


def test_unknown_characters_are_counted(text_folder, tmp_path):
    from minigpt.training import train
    from tests.conftest import tiny

    prepare([str(text_folder)], tmp_path / "data", tokenizer="char", block_size=32)
    train(tmp_path / "data", tmp_path / "run", tiny(train__epochs=1))
    (tmp_path / "a.txt").write_text("the ÿÿ", encoding="utf-8")
    assert "2 characters of the text are not in the vocabulary" in " ".join(
        evaluate(tmp_path / "run", texts=[str(tmp_path / "a.txt")]).notes
    )
    assert np.isfinite(evaluate(tmp_path / "run").metrics.loss.value)
