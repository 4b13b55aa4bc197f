"""metrics.jsonl, TensorBoard and the picture."""

from __future__ import annotations

import json
import math

import pytest

from minigpt.errors import RunError
from minigpt.records import MetricsFile, read_metrics, truncate_after
from minigpt.training.callbacks.tensorboard import TensorBoardCallback
from minigpt.training.loss_plot import plot_losses

STEP = {
    "kind": "step",
    "step": 1,
    "epoch": 0.5,
    "tokens": 9,
    "loss": 2.0,
    "lr": 0.1,
    "grad_norm": 1.0,
    "seconds": 3.0,
}


def test_only_what_is_kept_is_written_one_object_a_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write = MetricsFile(file)
    for kind in ("start", "step", "progress", "validation", "validating", "note", "end"):
        write({"kind": kind, "step": 1})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "validation", "note"]


def test_what_json_cannot_say_is_null(tmp_path):
    file = tmp_path / "metrics.jsonl"
    module = {"module": "h.0.mlp", "weight_norm": 1.0, "update_ratio": 0.1}
    MetricsFile(file)({**STEP, "loss": math.nan, "grad_norm": math.inf})
    MetricsFile(file)({**STEP, "kind": "health", "modules": [{**module, "grad_norm": math.nan}]})
    assert "NaN" not in file.read_text()
    step, health = read_metrics(file)
    assert step["loss"] is None
    assert step["grad_norm"] is None
    assert health["modules"] == [{**module, "grad_norm": None}]


def test_a_line_in_the_middle_that_is_no_record_is_named(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for line in (
        "nonsense",
        "[]",
        "{}",
        '{"step": "1"}',
        '{"step": 1, "loss": NaN}',
        "[" * 100_000,
        '{"step": ' + "9" * 5000,
    ):
        file.write_text(json.dumps(STEP) + "\n" + line + "\n" + json.dumps(STEP) + "\n")
        with pytest.raises(RunError, match="line 2: "):
            read_metrics(file)


@pytest.mark.parametrize(
    "changed",
    [{"loss": -5}, {"loss": "x"}, {"loss": [1]}, {"lr": True}, {"epoch": None}, {"tokens": 1.5}, {"kind": 5}],
)
def test_a_figure_that_cannot_be_is_passed_over_and_kept_in_the_file(tmp_path, changed):
    file = tmp_path / "metrics.jsonl"
    content = "".join(json.dumps(record) + "\n" for record in (STEP, {**STEP, **changed}, STEP))
    file.write_text(content)
    assert read_metrics(file) == [STEP, STEP]
    assert read_metrics(file, "step") == [STEP, STEP]
    truncate_after(file, 1)
    assert file.read_text() == content


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("validation", {"val_loss": 1.0, "best": True}),
        ("validation", {"tokens": 1, "train_loss": "x", "val_loss": 1.0, "best": True}),
        ("note", {"text": 3}),
        ("plan", {"steps": "many"}),
        ("health", {"modules": "none"}),
    ],
)
def test_a_record_without_what_its_kind_has_is_passed_over(tmp_path, kind, values):
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps({"kind": kind, "step": 1, "epoch": 1.0, **values}) + "\n")
    assert read_metrics(file) == read_metrics(file, kind) == []


def test_records_behind_a_step_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        MetricsFile(file)({**STEP, "step": step})
    truncate_after(file, 3)
    assert [record["step"] for record in read_metrics(file)] == [1, 2, 3]


def test_tensorboard_gets_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = TensorBoardCallback(tmp_path)
    callback.on_record(None, {**STEP, "text": "text is not written"})
    callback.on_record(None, {"kind": "progress", "step": 2})
    events = EventAccumulator(str(tmp_path)).Reload()
    numbers = ("tokens", "loss", "lr", "grad_norm", "seconds")
    assert sorted(events.Tags()["scalars"]) == sorted(f"step/{name}" for name in numbers)
    assert events.Scalars("step/loss")[0].value == 2.0


@pytest.mark.parametrize("validations", [0, 1, 3])
def test_a_picture_is_drawn_of_any_length_of_run(tmp_path, validations):
    file, picture = tmp_path / "metrics.jsonl", tmp_path / "out.png"
    write = MetricsFile(file)
    write(STEP)
    names = ("train_loss", "val_loss", "train_perplexity", "val_perplexity")
    for epoch in range(1, validations + 1):
        value = math.nan if epoch == 2 else 10.0 / epoch
        write({"kind": "validation", "step": epoch, "epoch": epoch, **dict.fromkeys(names, value)})
    plot_losses(file, picture, "a title")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))
