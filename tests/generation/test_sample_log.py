"""The sample log: a function of the run's checkpoints, complete, and never generated twice."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as dataclass_replace

import pytest
import torch
from msgspec.structs import replace

import minigpt
from minigpt.data import Dataset, prepare
from minigpt.errors import CheckpointError, ConfigError, DataError, RunError
from minigpt.generation import sample_log
from minigpt.generation.fixed_prompts import MAX_CHARACTERS, fixed_prompts
from minigpt.generation.sample_log import (
    NEW_CHARACTERS,
    NEW_TOKENS,
    SEED,
    TEMPERATURES,
    SampleRecord,
    default_max_new_tokens,
    extend_sample_log,
    fill_sample_log,
    make_samples,
    read_sample_log,
    truncate_sample_log,
)
from minigpt.model.hooks import hooked
from minigpt.runs.folder import RunFolder
from minigpt.tokenizers import make_tokenizer

RECORD = SampleRecord(3, 0.5, "own", "the ", (1, 2), 0.7, SEED, "cat\n\u2028漢\x85", (3, 4, 5), False)


@pytest.fixture(scope="module")
def loaded(run_folder):
    return minigpt.load(run_folder)


@pytest.fixture
def run(run_folder, tmp_path):
    """A run with two checkpoints and no log."""
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "samples.jsonl").unlink()
    return RunFolder.open(run)


def write(folder, *records):
    folder.samples_file.write_bytes(b"".join(record.to_json() for record in records))


def sample_all(loaded, prompts, temperatures=TEMPERATURES, max_new_tokens=20):
    wanted = [(prompt, temperature) for temperature in temperatures for prompt in prompts]
    facts = {"step": 7, "epoch": None, "source": "own"}
    return make_samples(*loaded, wanted, **facts, max_new_tokens=max_new_tokens)


# Fixed prompts


@pytest.mark.parametrize("tokenizer", ["byte", "char", "bpe:300", "gpt2"])
def test_fixed_prompts_begin_lines_of_the_validation_text(text_folder, tmp_path, tokenizer):
    prepare([str(text_folder)], tmp_path / "data", tokenizer=tokenizer, block_size=32)
    dataset = Dataset.open(tmp_path / "data")
    lines = dataset.tokenizer.decode(dataset.val.tokens).replace(".the", ".\nthe").splitlines()
    prompts = fixed_prompts(dataset, 4)
    assert prompts == fixed_prompts(Dataset.open(tmp_path / "data"), 4)
    assert 1 < len(prompts) <= 4
    assert all(any(line.startswith(prompt) for line in lines) for prompt in prompts)
    assert fixed_prompts(dataset, 0) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("吾輩は猫である。名前はまだ無い。" * 400, lambda p: len(p) == MAX_CHARACTERS),
        ("word " * 4000, lambda p: p == "word word word word word word"),
        ("## Averyverylongheadingwithoutanyspacetocutitat\n" * 400, lambda p: p.startswith("## Avery")),
        ("\n\n a\n" * 2000, lambda p: p == "a"),
        ("\U0001f600" * 3000, lambda p: p == "\U0001f600" * MAX_CHARACTERS),
        ("ok\r\n\x1b[2Jthe screen is cleared\r\n" * 300, lambda p: p.startswith("\x1b[2Jthe screen")),
    ],
    ids=["no spaces", "one line", "long word", "short lines", "four bytes", "control characters"],
)
def test_fixed_prompts_are_short_and_complete_for_any_text(tmp_path, text, expected):
    (tmp_path / "text.txt").write_bytes(text.encode())
    prepare([str(tmp_path / "text.txt")], tmp_path / "data", tokenizer="byte", block_size=32)
    prompts = fixed_prompts(Dataset.open(tmp_path / "data"), 3)
    assert prompts
    for prompt in prompts:
        assert expected(prompt), prompt
        assert len(prompt) <= MAX_CHARACTERS
        assert "\ufffd" not in prompt


def test_a_split_without_text_has_no_prompts(dataset):
    empty = dataclass_replace(dataset.val, tokens=dataset.val.tokens[:0])
    assert fixed_prompts(dataclass_replace(dataset, val=empty), 4) == []


def test_fixed_prompts_do_not_cross_segments(text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "data", tokenizer="byte", block_size=32, split_by="sequence")
    dataset = Dataset.open(tmp_path / "data")
    assert dataset.val.segment_length == 32
    stretches = [dataset.tokenizer.decode(dataset.val.read(at, at + 32)) for at in range(0, dataset.val.n_tokens, 32)]
    prompts = fixed_prompts(dataset, 5)
    assert prompts
    assert all(any(prompt in stretch for stretch in stretches) for prompt in prompts)


# Samples


def test_a_sample_is_what_generate_returns(loaded):
    prompts = ["the cat", "", "a dog sees"]
    for record in sample_all(loaded, prompts):
        settings = {"temperature": record.temperature, "top_k": None, "seed": record.seed, "max_new_tokens": 20}
        assert record.text == minigpt.generate(*loaded, record.prompt, **settings)
        assert record.matches(record.prompt, record.temperature, 20)
        assert bytes(record.ids).decode(errors="replace") == record.text  # ids of bytes
    assert [(record.temperature, record.prompt) for record in sample_all(loaded, prompts)] == [
        (temperature, prompt) for temperature in TEMPERATURES for prompt in prompts
    ]


def test_temperature_0_is_greedy(loaded):
    model, _ = loaded
    record = sample_all(loaded, ["the "], temperatures=[0])[0]
    ids = list(record.prompt_ids)
    for token in record.ids:
        assert token == int(model(torch.tensor([ids[-32:]]))[0, -1].argmax())
        ids.append(token)
    assert len(record.ids) == 20


def test_the_end_of_text_is_recorded_but_not_part_of_the_text(loaded):
    model, tokenizer = loaded
    with torch.no_grad():
        before = model.wte.weight[tokenizer.end_of_text].clone()
        seen: list[torch.Tensor] = []
        with hooked(model, {"final": seen.append}):
            model(torch.tensor([list(b"the ")]))
        model.wte.weight[tokenizer.end_of_text] = 100 * seen[0][0, -1]
        record = sample_all(loaded, ["the "], temperatures=[0])[0]
        model.wte.weight[tokenizer.end_of_text] = before
    assert (record.ended, record.text, record.ids) == (True, "", ())
    assert record.matches("the ", 0, 20)
    assert not replace(record, ended=False).matches("the ", 0, 20)


def test_sampling_does_not_affect_training(dataset):
    model = minigpt.GPT(minigpt.resolve(overrides={"model.n_layer": 1, "model.vocab_size": 257}).model).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    sample_all((model, dataset.tokenizer), ["the "], max_new_tokens=4)
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None and not p.is_inference() for p in model.parameters())


def test_the_default_length_fits_the_vocabulary():
    assert default_max_new_tokens(make_tokenizer("gpt2", [])) == NEW_TOKENS
    assert default_max_new_tokens(make_tokenizer("byte", [])) == NEW_CHARACTERS
    assert default_max_new_tokens(make_tokenizer("char", ["猫 cat \U0001f600"])) == NEW_CHARACTERS


# The file


def test_records_survive_a_round_trip(run):
    write(run, RECORD, replace(RECORD, epoch=None, step=5, source="fixed", prompt='\\"<b>', ended=True))
    assert [one.step for one in read_sample_log(run)] == [3, 5]
    assert read_sample_log(run)[0] == RECORD
    assert set(json.loads(RECORD.to_json())) == {
        *("step", "epoch", "source", "prompt", "prompt_ids", "temperature", "seed", "text", "ids", "ended")
    }


def test_an_incomplete_last_line_is_skipped_and_overwritten(run):
    whole = RECORD.to_json()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        run.samples_file.write_bytes(whole + whole[:cut])
        assert read_sample_log(run) == [RECORD]
        sample_log._append(run, [replace(RECORD, step=9)])
        assert [one.step for one in read_sample_log(run)] == [3, 9]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps({**json.loads(RECORD.to_json()), "step": "3"}),
        json.dumps({**json.loads(RECORD.to_json()), "epoch": float("nan")}),
        json.dumps({**json.loads(RECORD.to_json()), "ids": [1.5]}),
        json.dumps({**json.loads(RECORD.to_json()), "ids": None}),
        json.dumps({**json.loads(RECORD.to_json()), "source": "elsewhere"}),
        json.dumps({**json.loads(RECORD.to_json()), "text": 3}),
        json.dumps({**json.loads(RECORD.to_json()), "more": 3}),
    ],
)
def test_an_invalid_line_is_named(run, line):
    run.samples_file.write_bytes(RECORD.to_json() + line.encode() + b"\n" + RECORD.to_json())
    with pytest.raises(RunError, match=r"samples\.jsonl, line 2"):
        read_sample_log(run)
    truncate_sample_log(run, 99)
    assert read_sample_log(run) == [RECORD, RECORD]


def test_truncation_keeps_the_bytes_of_earlier_lines(run):
    steps = [replace(RECORD, step=step) for step in (0, 3, 7, 8, 2)]
    write(run, *steps)
    truncate_sample_log(run, 7)
    assert run.samples_file.read_bytes() == b"".join(k.to_json() for k in steps if k.step <= 7)
    run.samples_file.unlink()
    truncate_sample_log(run, 7)
    assert read_sample_log(run) == []
    assert not run.samples_file.exists()


def test_concurrent_writers_lose_no_line(run):
    texts = [[replace(RECORD, step=100 * writer + k, text="x" * 3000) for k in range(3)] for writer in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda records: sample_log._append(run, records), texts))
    assert sorted(one.step for one in read_sample_log(run)) == sorted(
        record.step for records in texts for record in records
    )


def test_the_same_sample_is_logged_once(run):
    sample_log._append(run, [RECORD])
    sample_log._append(run, [RECORD, replace(RECORD, step=9), replace(RECORD, text=RECORD.text + "\n")])
    assert read_sample_log(run) == [RECORD, replace(RECORD, step=9), replace(RECORD, text=RECORD.text + "\n")]


# Filling the log


@pytest.fixture
def loads(monkeypatch):
    """The steps whose model was loaded."""
    real, loads = sample_log.load_model, []

    def load(config, place, device):
        loads.append(RunFolder.checkpoint_step(place))
        return real(config, place, device)

    monkeypatch.setattr(sample_log, "load_model", load)
    return loads


def test_own_prompts_are_continued_once_at_every_checkpoint(run, loads):
    asked = {"temperatures": [0.7, 1.0], "max_new_tokens": 8}
    found = fill_sample_log(run, ["the ", "a ", "the "], **asked)
    steps = [RunFolder.checkpoint_step(place) for place in run.checkpoint_folders()]
    assert loads == steps
    assert len(steps) == 2
    assert [(record.step, record.temperature, record.prompt) for record in found] == [
        (step, temperature, prompt) for step in steps for temperature in (0.7, 1.0) for prompt in ("the ", "a ")
    ]
    assert {record.source for record in found} == {"own"}
    assert [record.epoch for record in found[:1] + found[-1:]] == [1, 2]
    assert read_sample_log(run) == found
    assert fill_sample_log(run, ["a "], checkpoint="latest", **asked) == [k for k in found[4:] if k.prompt == "a "]
    assert loads == steps
    model, tokenizer = minigpt.load(run.path, str(steps[0]))
    assert found[0].text == minigpt.generate(
        model, tokenizer, "the ", temperature=0.7, top_k=None, seed=SEED, max_new_tokens=8
    )


@pytest.mark.parametrize("epoch", ['"2"', "[2]", "true", "NaN", "Infinity", "-1", "0", "null"])
def test_invalid_epochs_in_the_metrics_are_ignored(run, epoch):
    with run.metrics_file.open("a") as file:
        file.write(f'{{"kind": "train", "step": 99, "epoch": {epoch}}}\n')
    found = fill_sample_log(run, ["the "], temperatures=[0.0], max_new_tokens=1)
    assert [record.epoch for record in found] == [1, 2]
    run.metrics_file.write_text(f'{{"kind": "train", "step": 99, "epoch": {epoch}}}\n')
    assert [record.epoch for record in fill_sample_log(run, ["a"], temperatures=[0.0], max_new_tokens=1)] == [
        None,
        None,
    ]


def test_a_string_is_a_single_prompt(run, dataset):
    calls = []
    found = fill_sample_log(
        run,
        "Return",
        temperatures=[0],
        max_new_tokens=4,
        on_progress=lambda phase, done, total: calls.append((done, total)),
    )
    assert [record.prompt for record in found] == ["Return"] * 2
    assert calls[0] == (0, 8)
    assert max(calls) <= (8, 8)
    facts = {"step": 7, "epoch": None, "source": "own", "temperatures": [0], "max_new_tokens": 2}
    made = extend_sample_log(run, lambda: minigpt.load(run.path)[0], dataset.tokenizer, ["ab"], **facts)
    assert [record.prompt for record in made] == ["ab"]


def test_only_missing_samples_are_generated(run, loads):
    fill_sample_log(run, ["the "], temperatures=[1.0], max_new_tokens=8)
    before = read_sample_log(run)
    fill_sample_log(run, ["the ", "a "], temperatures=[1.0], max_new_tokens=8, checkpoint="best")
    assert read_sample_log(run)[:2] == before
    assert [record.prompt for record in read_sample_log(run)[2:]] == ["a "]
    assert {len(record.ids) for record in fill_sample_log(run, ["the "], temperatures=[1.0], max_new_tokens=9)} == {9}


def test_a_run_without_a_log_is_filled_with_fixed_prompts(run, run_folder, dataset):
    found = fill_sample_log(run)
    assert {record.source for record in found} == {"fixed"}
    assert list(dict.fromkeys(record.prompt for record in found)) == fixed_prompts(dataset, 1)
    assert run.samples_file.read_bytes() == (run_folder / "samples.jsonl").read_bytes()


def test_samples_outlive_their_checkpoints(run):
    found = fill_sample_log(run, ["the "], temperatures=[0], max_new_tokens=4)
    shutil.rmtree(run.checkpoint_folders()[0])
    assert fill_sample_log(run, ["the "], temperatures=[0], max_new_tokens=4) == found
    assert fill_sample_log(run, ["the "], temperatures=[0], max_new_tokens=4, checkpoint="latest") == found[1:]


def test_a_damaged_checkpoint_is_noted_and_skipped(run):
    first, last = run.checkpoint_folders()
    (first / "model.safetensors").write_bytes(b"")
    notes = []
    found = fill_sample_log(run, ["the "], temperatures=[0], max_new_tokens=4, note=notes.append)
    assert [record.step for record in found] == [RunFolder.checkpoint_step(last)]
    assert [first.name in note for note in notes] == [True]
    with pytest.raises(CheckpointError, match="damaged"):
        fill_sample_log(
            run, ["the "], checkpoint=str(RunFolder.checkpoint_step(first)), temperatures=[0], max_new_tokens=4
        )


def test_samples_are_returned_even_if_they_cannot_be_written(run, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sample_log, "_write_lock", refuse)
    notes = []
    found = fill_sample_log(run, ["the "], checkpoint="best", temperatures=[0], max_new_tokens=4, note=notes.append)
    assert [record.prompt for record in found] == ["the "]
    assert ["could not be saved" in note and "Permission denied" in note for note in notes] == [True]
    assert read_sample_log(run) == []


def test_a_run_in_training_can_be_sampled(run):
    with run.lock():
        assert len(fill_sample_log(run, ["the "], temperatures=[0], max_new_tokens=4)) == 2
    assert len(read_sample_log(run)) == 2


def test_a_lone_surrogate_in_a_prompt_is_replaced(run):
    found = fill_sample_log(run, ["\ud83d"], checkpoint="best", temperatures=[0], max_new_tokens=2)
    assert [record.prompt for record in found] == ["\ufffd"]


def test_invalid_arguments_are_refused(run):
    with pytest.raises(ConfigError, match="temperature is -1"):
        fill_sample_log(run, ["the "], temperatures=[-1])
    with pytest.raises(ConfigError, match="temperature is nan"):
        fill_sample_log(run, ["the "], temperatures=[float("nan")])
    with pytest.raises(CheckpointError, match="No such checkpoint"):
        fill_sample_log(run, ["the "], checkpoint="5")
    assert read_sample_log(run) == []
    facts = json.loads(run.data_file.read_text("utf-8"))
    run.data_file.write_text(json.dumps({**facts, "folder": "nowhere"}), "utf-8")
    with pytest.raises(DataError, match="not found"):
        fill_sample_log(run)
    for place in run.checkpoint_folders():
        shutil.rmtree(place)
    with pytest.raises(CheckpointError, match="The run has no checkpoints"):
        fill_sample_log(run, ["the "])


def test_the_model_is_not_loaded_when_nothing_is_missing(run, dataset):
    def model():
        raise AssertionError

    write(run, *(replace(RECORD, temperature=temperature) for temperature in TEMPERATURES))
    facts = {"step": 3, "epoch": 0.5, "source": "own", "max_new_tokens": 3}
    assert extend_sample_log(run, model, dataset.tokenizer, ["the "], **facts) == []
    assert extend_sample_log(run, model, dataset.tokenizer, [], **facts) == []
