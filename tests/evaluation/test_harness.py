"""lm-evaluation-harness with a task of our own, offline: its log-likelihoods are ours."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest

from minigpt.errors import ConfigError, DataError, MissingExtraError
from minigpt.evaluation import evaluate, harness
from minigpt.evaluation.eval_text import text_of_sources
from minigpt.evaluation.harness import HarnessModel, run_harness
from minigpt.evaluation.scores import score
from minigpt.runs.folder import load
from minigpt.runtime import detect_runtime

CPU = detect_runtime("cpu", "float32")

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""
ROLLING = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: byte_perplexity
  - metric: bits_per_byte
"""
WRITING = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{reply}}}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 20
metric_list:
  - metric: exact_match
"""
RECORDS = [
    {"text": "the cat sees the", "choices": [" dog.", " zqx."], "answer": 0, "reply": " dog"},
    {"text": "the fox likes the", "choices": ["!!!!", " bird."], "answer": 1, "reply": " nothing of the kind"},
    {"text": "the fish " * 20, "choices": ["follows the fox.", "%%" * 30], "answer": 0, "reply": "x"},
]


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def task(tmp_path):
    """Writes a task over the records and returns its file."""

    def write(template: str, name: str, records=RECORDS) -> str:
        data, file = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.yaml"
        data.write_text("\n".join(map(json.dumps, records)))
        file.write_text(template.format(name=name, file=data))
        return str(file)

    return write


@pytest.fixture(scope="module")
def loaded(run_folder):
    return load(run_folder)


def writer(text: str):
    """A model that always writes the same, letter by letter, and notes what it was asked."""
    asked = []

    def write(prompt: str, n: int):
        asked.append((prompt, n))
        yield from text

    return write, asked


def by_hand(loaded, tmp_path: Path, text: str, tail: int) -> tuple[float, bool]:
    """Log-likelihood of the last `tail` bytes of a text, in the windows of `evaluate`."""
    (tmp_path / "x.txt").write_text(text)
    scores = score(loaded[0], text_of_sources([str(tmp_path / "x.txt")], loaded[1]), CPU)
    return -float(scores.nll[-tail:].sum(dtype=np.float64)), bool((scores.rank[-tail:] == 0).all())


def test_log_likelihoods_are_ours(loaded, tmp_path):
    model, tokenizer = loaded
    adapter = HarnessModel(model, tokenizer, CPU, writer("")[0], batch_size=2)
    pairs = [("", "the cat"), ("the cat", " sees"), ("a", "b" * 100), ("x", "y")]
    begin = [tokenizer.end_of_text]
    ids = [(begin + adapter.tok_encode(a), adapter.tok_encode(b)) for a, b in pairs]
    found = adapter.log_likelihoods(ids)
    assert len(found) == 4
    for (total, greedy), (context, continuation) in zip(found[:2] + found[3:], pairs[:2] + pairs[3:], strict=True):
        expected, expected_greedy = by_hand(loaded, tmp_path, context + continuation, len(continuation))
        assert total == pytest.approx(expected, rel=1e-5)
        assert greedy is expected_greedy
    # Longer than the model's context: in windows, of which the first begins with the last token of the context.
    long = adapter.log_likelihoods([([97], [98] * 100)])[0][0]
    assert found[2][0] == pytest.approx(long, rel=1e-6)


def test_of_a_long_context_the_last_tokens_count(loaded):
    model, tokenizer = loaded
    adapter = HarnessModel(model, tokenizer, CPU, writer("")[0])
    most = model.config.block_size
    context, continuation = adapter.tok_encode("the cat sees the dog. " * 10), adapter.tok_encode("the")
    whole = adapter.log_likelihoods([(context, continuation)])
    cut = adapter.log_likelihoods([(context[-(most + 1 - 3) :], continuation)])
    assert whole[0][0] == pytest.approx(cut[0][0], rel=1e-6)


def test_tasks_of_ones_own_run_offline(loaded, run_folder, task, tmp_path):
    model, tokenizer = loaded
    write, asked = writer(" dog. and more")
    tasks = [task(CHOICE, "choose"), task(ROLLING, "roll"), task(WRITING, "reply")]
    calls = []
    results = run_harness(
        model, tokenizer, CPU, tasks, generate=write, on_progress=lambda done, total: calls.append(done <= total)
    )
    found = {(result.task, result.metric): result for result in results}
    assert set(found) == {
        ("choose", "acc,none"),
        ("roll", "byte_perplexity,none"),
        ("roll", "bits_per_byte,none"),
        ("reply", "exact_match,none"),
    }
    assert calls
    assert all(calls)

    # Bits per byte of whole texts: what `evaluate` says of the same texts.
    (tmp_path / "texts").mkdir()
    for i, record in enumerate(RECORDS):
        (tmp_path / "texts" / f"{i}.txt").write_text(record["text"])
    ours = evaluate(run_folder, texts=[str(tmp_path / "texts")]).metrics.bits_per_byte.value
    assert found["roll", "bits_per_byte,none"].value == pytest.approx(ours, rel=1e-5)

    # Accuracy of choices: the likelier of each pair.
    adapter = HarnessModel(model, tokenizer, CPU, write)
    right = 0
    for record in RECORDS:
        pairs = [(adapter.tok_encode(record["text"]), adapter.tok_encode(choice)) for choice in record["choices"]]
        right += int(np.argmax([total for total, _ in adapter.log_likelihoods(pairs)]) == record["answer"])
    assert found["choose", "acc,none"].value == pytest.approx(right / 3)
    assert found["choose", "acc,none"].stderr is not None

    # Writing: up to the stop string, which is cut off; one of three replies is " dog".
    assert found["reply", "exact_match,none"].value == pytest.approx(1 / 3)
    assert sorted(asked) == sorted((record["text"], 20) for record in RECORDS)


def test_writing_stops_at_the_first_stop_string(loaded):
    pulled = []

    def write(prompt, n):
        for letter in "abcSTOPdef":
            pulled.append(letter)
            yield letter

    adapter = HarnessModel(*loaded, CPU, write)
    assert adapter._continued("p", {"until": ["STOP", "OP"]}) == "abc"
    assert pulled == list("abcSTOP")
    assert adapter._continued("p", {}) == "abcSTOPdef"
    assert adapter._continued("p", {"until": "d"}) == "abcSTOP"


def test_an_unknown_task_is_named(loaded, task, tmp_path, monkeypatch):
    task(CHOICE, "hellaswag")
    own = partial(harness.TaskManager, include_path=str(tmp_path))  # looking through all of its own takes seconds
    monkeypatch.setattr(harness, "TaskManager", lambda include_defaults: own(include_defaults=not include_defaults))
    with pytest.raises(ConfigError, match=r"hellaswg.*Did you mean hellaswag"):
        run_harness(*loaded, CPU, ["hellaswg"], generate=writer("")[0])
    with pytest.raises(ConfigError, match=r"Task file not found.*nowhere\.yaml"):
        run_harness(*loaded, CPU, ["hellaswag", "nowhere.yaml"], generate=writer("")[0])


def test_a_task_that_executes_code_is_refused(loaded, task):
    file = task("unsafe_code: true" + CHOICE, "unsafe")
    with pytest.raises(ConfigError, match="executes code"):
        run_harness(*loaded, CPU, [file], generate=writer("")[0])


def test_a_task_that_makes_no_sense_is_one_message(loaded, tmp_path):
    (tmp_path / "bad.yaml").write_text("task: bad\ndataset_path: [")
    with pytest.raises(DataError, match="cannot be read"):
        run_harness(*loaded, CPU, [str(tmp_path / "bad.yaml")], generate=writer("")[0])


def test_a_task_whose_data_are_missing_is_one_message(loaded, task, tmp_path):
    file = task(CHOICE, "gone")
    (tmp_path / "gone.jsonl").unlink()
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        run_harness(*loaded, CPU, [file], generate=writer("")[0])


def test_without_the_extra_its_name_is_said(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "minigpt.evaluation.harness")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=r"minigpt\[eval\]"):
        import minigpt.evaluation.harness  # noqa: F401
