"""Reference curves: those of the package, made, read, and written again."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest

from minigpt.config import preset_names, resolve
from minigpt.doctor import references
from minigpt.doctor.references import add, collect, nearest_preset, preset_lr, preset_of, read_references
from minigpt.errors import RunError
from minigpt.records import read_metrics


def test_the_packages_curves_are_whole():
    found = read_references()
    assert found
    assert len({(r.preset, r.corpus, r.tokenizer) for r in found}) == len(found)
    for reference in found:
        assert reference.preset in preset_names()
        tokens = [point[0] for point in reference.points]
        assert tokens == sorted(set(tokens))
        first, *_, last = reference.points
        assert 0 < last[1] < first[1] < 1.1 * math.log(100_000)
        assert reference.train_loss(first[0] - 1) is None
        assert reference.train_loss(last[0]) == pytest.approx(last[1])


def test_presets_are_known_by_their_settings():
    for name in preset_names():
        longer = resolve(name, overrides={"train.epochs": 77, "train.seed": 3, "model.vocab_size": 300})
        assert preset_of(longer) == name
        own_warmup = {"schedule.warmup_steps": resolve(name).schedule.warmup_steps}
        assert preset_of(resolve(name, overrides=own_warmup)) == name
        other = resolve(name, overrides={"train.lr": 0.123})
        assert (preset_of(other), nearest_preset(other)) == (None, name)
        assert preset_lr(other) == resolve(name).train.lr
        assert nearest_preset(resolve(name, overrides={"model.n_layer": 9})) is None


def test_a_curve_follows_its_run(run_folder, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="cannot be a reference"):
        collect(run_folder, "stories")
    monkeypatch.setattr(references, "_loss_settings", lambda config: {})  # any settings are a preset's
    reference = collect(run_folder, "stories")
    steps, validations = (read_metrics(run_folder / "metrics.jsonl", kind) for kind in ("step", "validation"))
    assert reference.points[0][:2] == (steps[0]["tokens"], pytest.approx(steps[0]["loss"], abs=1e-4))
    assert reference.val_loss(validations[-1]["tokens"]) == pytest.approx(validations[-1]["val_loss"], abs=1e-4)
    middle = steps[len(steps) // 2]
    assert reference.train_loss(middle["tokens"]) == pytest.approx(middle["loss"], rel=0.1)

    file = tmp_path / "references.json"
    assert read_references(file) == []
    add(reference, file)
    add(reference, file)
    assert read_references(file) == [reference]


def test_the_script_prepares_trains_stops_in_time_and_goes_on(text, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    script = importlib.import_module("reference_curves")
    words = ["make", str(text), "--presets", "shakespeare", "--minutes", "0.00001", "--out", str(tmp_path)]
    words += ["--references", str(tmp_path / "references.json")]
    monkeypatch.setattr(script, "sources_in", lambda places: places)
    script.main(words)
    run = tmp_path / "runs" / "shakespeare-text"
    assert script.progress(run)[1] is False
    assert [record["step"] for record in read_metrics(run / "metrics.jsonl", "step")] == [1]
    assert "cannot be a reference" in capsys.readouterr().out  # one step is no curve
    script.main(words)
    assert f"{run}: done" in capsys.readouterr().out
