"""The page as a whole: what stands in it, what a stranger cannot do to it, and what may be missing."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace

import pytest

from minigpt.config import MachineConfig
from minigpt.data import prepare
from minigpt.errors import CheckpointError, ConfigError, DataError, MiniGPTError, RunError
from minigpt.report import ReportOptions, write_report
from minigpt.report.collect import collect_facts
from minigpt.report.overview import describe_training
from minigpt.report.page import page
from minigpt.runs import checkpoint
from minigpt.runs.folder import RunFolder
from minigpt.runs.snapshot import RunSnapshot
from minigpt.training import resume, train
from tests.conftest import tiny
from tests.report.conftest import copied, section

FAST = ReportOptions(evaluate=False, samples=False)
NASTY = "</style><script>alert(1)</script>\"'>\u202e\0 שלום 👋"
SHOWN = "</style><script>alert(1)</script>\"'><U+202E>␀ שלום 👋"


def rewrite(run, change):
    """Changes each record of a run's metrics; None drops it."""
    file = run / "metrics.jsonl"
    records = [change(json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    file.write_text("".join(json.dumps(record) + "\n" for record in records if record), encoding="utf-8")


def test_a_finished_run_has_every_section(run, read):
    file = write_report([run], options=ReportOptions(prompts=("the cat",)))
    assert file == run / "report.html"
    found = read(file)
    assert found.wrong == []
    for words in (
        "is a transformer with",
        "nats per token (95 % interval",
        "Diagnosis",
        "Loss by tokens seen",
        "Perplexity by epoch",
        "Gradient norm",
        "Highlighted: the lowest validation loss",
        "Loss by context",
        "Calibration",
        "the cat",
        "temperature 0.7",
        "self-BLEU",
        "real text, held out",
        "Gradient norm by module",
        "model.n_layer",
        "token embedding",
        "SHA-256 of the tokens",
        "precision reason",
        "minigpt train --config RUN/config.toml --data DATA --run NEW",
        "the model is as uncertain as if",
    ):
        assert words in found.words
    assert found.tags.count("svg") >= 11
    assert file.stat().st_size < 1_500_000


@pytest.mark.usefixtures("sketched")
def test_the_page_forbids_what_it_does_not_hold(run):
    text = write_report([run], options=FAST).read_text("utf-8")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert "http://" not in text
    assert "https://" not in text
    assert text.startswith("<!doctype html>\n")


def test_the_same_run_gives_the_same_page(run):
    first = write_report([run]).read_bytes()
    assert write_report([run]).read_bytes() == first


@pytest.mark.usefixtures("sketched")
def test_figures_are_those_of_evaluate(run, read):
    from minigpt.evaluation import evaluate

    found = evaluate(run).metrics
    words = read(write_report([run])).words
    assert f"loss {found.loss.value:.4f}" in words
    assert f"bits per byte {found.bits_per_byte.value:.4f}" in words
    assert f"{found.calibration_error:.2%}" in words


@pytest.mark.usefixtures("sketched")
def test_paths_stay_private(run, tmp_path):
    text = write_report([run]).read_text("utf-8")
    assert str(tmp_path) not in text
    assert str(tmp_path.parent) not in text


@pytest.mark.usefixtures("sketched")
def test_a_stranger_writes_words_and_nothing_else(run, read):
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text("utf-8").splitlines()]
    for sample in samples:
        sample["prompt"], sample["text"] = f"{NASTY}prompt", f"{NASTY}text" + "x" * 20_000
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"kind": "note", "step": 3, "epoch": 0.1, "text": f"{NASTY}note"}) + "\n")
    known = json.loads((run / "data.json").read_text("utf-8"))
    known["tokenizer"]["spec"] = f"{NASTY}spec"
    (run / "data.json").write_text(json.dumps(known), encoding="utf-8")
    machine = json.loads((run / "environment.json").read_text("utf-8"))
    (run / "environment.json").write_text(json.dumps({**machine, "processor": f"{NASTY}cpu", NASTY: NASTY}))
    found = read(write_report([run]))
    assert found.wrong == []
    for words in ("prompt", "text", "note", "spec", "cpu"):
        assert f"{SHOWN}{words}" in found.words


def test_a_stranger_names_parts_and_groups(run, read):
    collect_facts([run], ReportOptions(samples=False))
    kept = json.loads((run / "evaluation.json").read_text("utf-8"))
    kept["evaluation"]["metrics"]["by_document"][0][0] = NASTY
    kept["evaluation"]["notes"] = [NASTY]
    (run / "evaluation.json").write_text(json.dumps(kept), encoding="utf-8")

    def nasty(record):
        if record["kind"] == "health":
            record["modules"][0]["module"] = NASTY
            record["modules"].append({**record["modules"][0], "module": "\ud800"})
        return record

    rewrite(run, nasty)
    found = read(write_report([run], options=ReportOptions(samples=False)))
    assert found.wrong == []
    assert found.words.count(SHOWN) >= 3


def test_a_run_named_like_markup(run_folder, data_folder, tmp_path, read):
    run = copied(run_folder, data_folder, tmp_path / "R&D's #1 $x_1$; &lt;b&gt;")
    found = read(write_report([run], tmp_path / "a.html", options=FAST))
    assert found.wrong == []
    assert "Report of R&D's #1 $x_1$; &lt;b&gt;" in found.words


@pytest.mark.usefixtures("sketched")
def test_documents_are_named_by_their_files(run, read, text_folder):
    words = read(write_report([run], options=ReportOptions(samples=False))).words
    assert words.count(f"{text_folder.name}/") >= 3  # the three documents of validation
    assert re.search(rf"documents begins share .*{text_folder.name}/\d\d\.txt the \w+ \w+", words)
    assert str(text_folder.parent) not in words
    again = read(write_report([run], options=ReportOptions(samples=False))).words  # from what is kept
    assert again == words


def test_a_run_with_validation_files_of_its_own(text_folder, tmp_path, read):
    (tmp_path / "mine").mkdir()
    own = tmp_path / "mine" / "<b>own.txt"
    own.write_text("the cat sees the fish that nobody else sees.\n" * 20)
    prepare([str(text_folder / "00.txt"), str(text_folder)], tmp_path / "data", "byte", block_size=32, val=str(own))
    run = tmp_path / "run"
    train(tmp_path / "data", run, tiny(train__steps=6))
    assert resume(run, steps=8).steps == 8
    found = read(write_report([run], options=FAST))
    assert found.wrong == []
    assert "validation from <b>own.txt" in found.words
    assert "split your own validation files" in found.words
    commands = next(part for part in found.words.split("minigpt prepare ")[1:] if "--val" in part)
    assert commands.startswith("TEXT1 TEXT2 --out DATA --tokenizer byte --seed 0 --val VAL --split-by document")
    assert str(tmp_path) not in found.words


@pytest.mark.usefixtures("sketched")
def test_copied_text_is_marked_and_its_document_named(run, read):
    sentence = "the cat sees the dog"
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text("utf-8").splitlines()]
    from minigpt.data import Dataset

    dataset = Dataset.open(RunFolder.open(run).data()["folder"])
    copy = dataset.tokenizer.decode(dataset.train.read(40, 80).tolist())
    text = f"@@@@ {copy} @@@@"
    samples[-1]["text"], samples[-1]["ids"] = text, [int(token) for token in dataset.tokenizer.encode(text)]
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")
    found = read(write_report([run], options=ReportOptions(evaluate=False)))
    assert any(copy in mark for mark in found.marked)
    assert "tokens in a row also occur in the training text" in found.words
    assert sentence.split()[0] in found.words


def test_two_runs_are_compared(run, run_folder, data_folder, tmp_path, read):
    other = copied(run_folder, data_folder, tmp_path / "elsewhere" / "first")
    config = (other / "config.toml").read_text("utf-8")
    (other / "config.toml").write_text(config.replace("lr = 0.01", "lr = 0.02"), encoding="utf-8")
    rewrite(other, lambda r: {**r, "val_loss": r["val_loss"] - 0.5} if r["kind"] == "validation" else r)
    found = read(write_report([run, other], tmp_path / "two.html", options=ReportOptions(samples=False)))
    assert found.wrong == []
    assert "elsewhere/first" in found.words  # two of one name
    assert "Loss by training time" in found.words
    assert "Settings that differ:" in found.words
    assert "train.lr 0.01 0.02" in found.words
    assert "-0.5000" in found.words  # at equal tokens
    assert "cannot be compared" not in found.words


@pytest.mark.usefixtures("sketched")
def test_runs_of_other_tokenizers_are_compared_in_bits_per_byte(run, run_folder, data_folder, tmp_path, read):
    other = copied(run_folder, data_folder, tmp_path / "other")
    known = json.loads((other / "data.json").read_text("utf-8"))
    known["tokenizer"]["identity"] = "another"
    (other / "data.json").write_text(json.dumps(known), encoding="utf-8")
    found = read(write_report([run, other], tmp_path / "two.html", options=FAST))
    assert "The runs use different tokenizers" in found.words
    assert "Bits per byte of the validation text by tokens seen" in found.words
    assert "Validation bits per byte, after the same number of tokens" in found.words
    known["splits"]["val"].update(text_bytes=7)
    (other / "data.json").write_text(json.dumps(known), encoding="utf-8")
    assert "validated on different texts" in read(write_report([run, other], tmp_path / "b.html", options=FAST)).words


@pytest.mark.usefixtures("sketched")
def test_a_point_between_two_validations_is_said_to_be_one(run, run_folder, data_folder, tmp_path, read):
    other = copied(run_folder, data_folder, tmp_path / "other")

    def later(record):
        return {**record, "tokens": record["tokens"] + 100} if record["kind"] == "validation" else record

    rewrite(other, later)
    words = read(write_report([run, other], tmp_path / "two.html", options=FAST)).words
    assert "≈ " in words
    assert "interpolated between two validations" in words


def test_three_of_one_name_in_one_folder(run):
    labels = [facts.label for facts in collect_facts([run, run, run], FAST)]
    assert labels == ["first", "first (2)", "first (3)"] or len(set(labels)) == 3


@pytest.mark.usefixtures("sketched")
def test_what_is_missing_is_left_out_and_said(run, read):
    shutil.rmtree(RunFolder.open(run).data()["folder"])
    (run / "samples.jsonl").unlink()
    rewrite(run, lambda r: r if r["kind"] in ("step", "validation") else None)
    found = read(write_report([run]))
    assert found.wrong == []
    assert "No evaluation: The run's data set was not found" in found.words
    assert "No samples: The run's data set was not found" in found.words
    assert "Its lowest validation loss was" in found.words
    assert "Gradient norm by module" not in found.words


@pytest.mark.usefixtures("sketched")
def test_a_damaged_file_is_named(run, read):
    (run / "environment.json").write_text("{", encoding="utf-8")
    (run / "samples.jsonl").write_text("{}\n[]\n", encoding="utf-8")
    found = read(write_report([run]))
    assert found.wrong == []
    for splits in ([], {"train": 3}, {"train": {"tokens": "many", "text_bytes": 1}}):
        (run / "data.json").write_text(json.dumps({"folder": "x", "tokenizer": {}, "splits": splits}), encoding="utf-8")
        assert "No information about the data" in read(write_report([run], options=FAST)).words
    assert "No information about the machine: A file of the run cannot be read" in found.words
    assert "No samples: Invalid line in the sample log" in found.words


@pytest.mark.usefixtures("sketched")
def test_a_run_that_stopped_at_once(run, read):
    rewrite(run, lambda r: r if r["step"] <= 3 and r["kind"] == "step" else None)
    (run / "samples.jsonl").unlink()
    shutil.rmtree(run / "checkpoints")
    found = read(write_report([run]))
    assert found.wrong == []
    assert "was stopped after 1 of" in found.words
    assert "Its loss on other text has not been measured" in found.words
    assert "No such checkpoint" in found.words


@pytest.mark.usefixtures("sketched")
def test_a_run_with_nothing_but_its_settings(run, read):
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "checkpoints")
    (run / "data.json").unlink()
    (run / "environment.json").unlink()
    (run / "samples.jsonl").unlink()
    found = read(write_report([run]))
    assert found.wrong == []
    assert "is a transformer with" in found.words
    assert "Not in this report:" in found.words


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("value", [None, "abc", [1], 1e308, 0])
def test_numbers_that_are_none_break_nothing(run, read, value):
    names = ("loss", "lr", "grad_norm", "val_loss", "val_perplexity", "train_loss", "tokens_per_second", "memory")

    def spoilt(record):
        if record["step"] > 5:
            record |= {name: value for name in names if name in record}
            for part in record.get("modules", []):
                part["grad_norm"] = value
        return record

    rewrite(run, spoilt)
    text = page(collect_facts([run], FAST))  # the doctor looks at the same records
    assert "<svg" in text or "A line of the metrics is no record" in text


@pytest.mark.usefixtures("sketched")
def test_an_imported_run(run, read):
    (run / "metrics.jsonl").unlink()
    known = json.loads((run / "data.json").read_text("utf-8"))
    (run / "data.json").write_text(json.dumps({**known, "folder": "", "splits": {}}), encoding="utf-8")
    (run / "origin.json").write_text(json.dumps({"kind": "Hugging Face folder", "folder": "/home/me/gpt2"}))
    (run / "samples.jsonl").unlink()
    found = read(write_report([run], options=ReportOptions(prompts=("the dog",))))
    assert found.wrong == []
    assert "initialized from gpt2" in found.words
    assert "minigpt import ORIGIN --run NEW" in found.words
    assert "/home/me" not in found.words
    assert "the dog" in found.words
    assert "An imported run has no data set" in found.words


@pytest.mark.usefixtures("sketched")
def test_a_run_being_trained_is_read_as_it_is(run, read):
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "step", "ste')  # a line being written
    with RunFolder.open(run).lock():
        rewrite_to = tiny(train__epochs=50)
        RunFolder.open(run).save_config(rewrite_to)
        found = read(write_report([run], options=FAST))
    assert found.wrong == []
    assert "is still being trained" in found.words


def test_what_was_asked_for_by_name_and_is_not_there_is_an_error(run, tmp_path):
    with pytest.raises(CheckpointError, match="No such checkpoint"):
        write_report([run], options=ReportOptions(checkpoint="12345"))
    with pytest.raises(DataError, match=r"(?i)no such data set"):
        write_report([run], options=ReportOptions(data=tmp_path / "nowhere"))
    with pytest.raises(RunError):
        write_report([tmp_path])
    with pytest.raises(ConfigError, match="No run"):
        write_report([])
    with pytest.raises(ConfigError, match="folder does not exist"):
        write_report([run], tmp_path / "nowhere" / "report.html", options=FAST)


@pytest.mark.usefixtures("sketched")
def test_the_figures_and_what_was_seen_are_of_the_same_step(run, read):
    steps = [RunFolder.checkpoint_step(place) for place in RunFolder.open(run).checkpoint_folders()]
    assert len(steps) > 1
    options = ReportOptions(samples=False, checkpoint=str(steps[0]))
    [facts] = collect_facts([run], options)
    [there] = [record for record in facts.validations if record["step"] == steps[0]]
    assert facts.seen == {name: there[name] for name in ("epoch", "tokens", "seconds")}
    assert facts.seen["tokens"] < facts.validations[-1]["tokens"]
    words = read(write_report([run], options=options)).words
    assert f"At step {steps[0]} it had seen {there['tokens']:,} tokens" in words
    assert f"training continued to step {facts.last_step}" in words
    [whole] = collect_facts([run], FAST)
    assert whole.seen["tokens"] == whole.validations[-1]["tokens"]
    first, second = whole.steps[:2]
    between = (first["step"] + second["step"]) / 2
    assert first["tokens"] < whole.at("tokens", between) < second["tokens"]


@pytest.mark.usefixtures("sketched")
def test_the_last_look_is_shown(run):
    [facts] = collect_facts([run], FAST)
    assert f"Each module at step {facts.health[-1]['step']}<" in section("health", [facts])


def test_a_run_that_its_patience_ended_was_not_stopped(run):
    [facts] = collect_facts([run], FAST)
    config = replace(facts.config, train=replace(facts.config.train, patience=2, epochs=50))
    last = {**facts.validations[-1], "patience_counter": 2}
    records = [last if record == facts.validations[-1] else record for record in facts.records]
    ended = replace(facts, config=config, records=records)
    assert "ended early, with no lower validation loss in 2 validations, after" in describe_training(ended)
    other = replace(facts, config=replace(config, train=replace(config.train, patience=3)), records=records)
    assert "was stopped after" in describe_training(other)


@pytest.mark.usefixtures("sketched")
def test_a_report_that_fails_leaves_the_old_one(run, monkeypatch):
    file = write_report([run], options=FAST)
    before = file.read_bytes()

    def fail(runs):
        raise MiniGPTError("no", remedy="none")

    monkeypatch.setattr("minigpt.report.page.page", fail)
    with pytest.raises(MiniGPTError):
        write_report([run], options=FAST)
    assert file.read_bytes() == before
    assert [path.name for path in run.iterdir() if "partial" in path.name] == []


def test_figures_are_kept_and_used_only_for_the_same_model_and_text(run, monkeypatch):
    from minigpt.report import cache

    calls = []
    evaluate = cache.evaluate
    monkeypatch.setattr(cache, "evaluate", lambda *args, **rest: calls.append(1) or evaluate(*args, **rest))
    folder, settings = RunFolder.open(run), MachineConfig()

    def again():
        now = RunSnapshot.read(run)
        return cache.cached_evaluation(now, "best", now.dataset(), settings, lambda phase, done, total: None)

    first = again()
    assert again() == first
    assert len(calls) == 1
    content = json.loads(folder.evaluation_file.read_text("utf-8"))
    useless = [("by_context", []), ("tokens", 0), ("baselines", {}), ("calibration", []), ("documents", 99)]

    def with_figure(name, value):
        figures = {**content["evaluation"]["metrics"], name: value}
        return json.dumps({**content, "evaluation": {**content["evaluation"], "metrics": figures}})

    for spoilt in (
        "{",
        "[]",
        json.dumps({**content, "made_of": {}}),
        json.dumps({**content, "evaluation": {"run": 1}}),
        *(with_figure(name, value) for name, value in useless),
    ):
        folder.evaluation_file.write_text(spoilt, encoding="utf-8")
        assert again() == first
    assert len(calls) == 5 + len(useless)
    weights = folder.find_checkpoint() / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError):  # kept figures say nothing of weights that are damaged now
        again()
    weights.write_bytes(whole)
    file = folder.find_checkpoint() / checkpoint.STATE
    state = json.loads(file.read_text("utf-8"))
    state["files"]["model.safetensors"] = "0" * 64
    file.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(CheckpointError):
        again()


def test_values_beyond_all_measure_are_dashes():
    from minigpt.report import formatting

    assert (
        formatting.format_number(math.nan)
        == formatting.amount(math.inf)
        == formatting.duration(math.nan)
        == formatting.MISSING
    )
    assert formatting.amount(1_312_256) == "1.31 million"
    assert formatting.amount(999_700_000) == "1 billion"
    assert formatting.amount(999_999_999_999) == "1 trillion"
    assert [formatting.amount(n) for n in (999_600, 123_456_789, 10_040_000, 2e15)] == [
        "999,600",
        "123 million",
        "10 million",
        "2,000 trillion",
    ]
    assert [formatting.duration(s) for s in (90, 125, 7_300, 200_000)] == [
        "90 seconds",
        "2.1 minutes",
        "2.0 hours",
        "2.3 days",
    ]
    assert formatting.enumerate_words(["a", "b", "c"]) == "a, b and c"
    assert formatting.memory(25e9) == "25.00 GB"
