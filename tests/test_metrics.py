"""metrics.jsonl, TensorBoard and the picture."""

from __future__ import annotations

import json
import math

import pytest

from minigpt.errors import RunError
from minigpt.metrics import MetricsFile, keep_until, read_metrics, tensorboard
from minigpt.training.picture import draw_curves

STEP = {"kind": "step", "step": 1, "epoch": 0.5, "loss": 2.0}


def test_only_what_is_kept_is_written_one_object_a_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write = MetricsFile(file)
    for kind in ("start", "step", "progress", "validation", "validating", "note", "end"):
        write({"kind": kind, "step": 1})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "validation", "note"]


def test_what_json_cannot_say_is_null(tmp_path):
    file = tmp_path / "metrics.jsonl"
    MetricsFile(file)({**STEP, "loss": math.nan, "grad_norm": math.inf})
    MetricsFile(file)({**STEP, "kind": "health", "parts": [{"part": "h.0.mlp", "gradient": math.nan}]})
    assert "NaN" not in file.read_text()
    step, health = read_metrics(file)
    assert step["loss"] is None
    assert step["grad_norm"] is None
    assert health["parts"] == [{"part": "h.0.mlp", "gradient": None}]


def test_a_line_in_the_middle_that_is_no_record_is_named(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps(STEP) + "\nnonsense\n" + json.dumps(STEP) + "\n")
    with pytest.raises(RunError, match="line 2"):
        read_metrics(file)


def test_records_behind_a_step_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        MetricsFile(file)({**STEP, "step": step})
    keep_until(file, 3)
    assert [record["step"] for record in read_metrics(file)] == [1, 2, 3]


def test_tensorboard_gets_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = tensorboard(tmp_path, print)
    watch({**STEP, "text": "words are left out"})
    watch({"kind": "progress", "step": 2})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["step/loss"]
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
    draw_curves(file, picture, "a title")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))
