"""Early stopping: what is kept, said and counted, and that a resumed run ends as one that was not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigpt.cli.console import Console
from minigpt.cli.doctor import progress_line
from minigpt.cli.train_view import TrainView
from minigpt.doctor import diagnose, read_evidence
from minigpt.evaluation.loss import SplitLoss
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder
from minigpt.training import resume, train
from minigpt.training.callbacks import validate
from minigpt.training.callbacks.validate import ValidateCallback
from minigpt.training.resume_check import differences
from minigpt.training.trainer import Trainer
from tests.conftest import tiny

LOSSES = {4: 3.0, 8: 2.0, 12: 2.5, 16: 2.0, 20: 2.1, 24: 1.5, 28: 1.6, 32: 1.7, 36: 1.8, 40: 1.9}
"""By the step they are measured at. Of three in a row, 12, 16 and 20 are the first that are not lower."""


class Crash(Exception):
    """Stands for a power failure."""


def crash_at(kind: str, step: int) -> Callable[[Any], None]:
    def watch(record: Any) -> None:
        if (record["kind"], record["step"]) == (kind, step):
            raise Crash

    return watch


def patient(patience: int, **changes: Any) -> Any:
    settings = {
        "train__steps": 40,
        "train__validate_every": 4,
        "train__sample_prompts": 0,
        "train__keep_checkpoints": 1,
        **changes,
    }
    return tiny(train__patience=patience, **settings)


@pytest.fixture(autouse=True)
def losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation losses as told above, and no pictures."""
    step = [0]
    real = ValidateCallback.validate

    def validate_at(self: ValidateCallback, trainer: Trainer) -> None:
        step[0] = trainer.state.step
        real(self, trainer)

    monkeypatch.setattr(ValidateCallback, "validate", validate_at)
    monkeypatch.setattr(validate, "split_loss", lambda *arguments, **settings: SplitLoss(LOSSES[step[0]], 100, 1.0))
    monkeypatch.setattr("minigpt.training.callbacks.plot.plot_losses", lambda *arguments: None)
    return


def validated(run: Path) -> list[int]:
    return [record["step"] for record in read_metrics(run / "metrics.jsonl", "validation")]


@pytest.mark.parametrize(("patience", "last"), [(1, 12), (2, 16), (3, 20), (4, 40), (0, 40)])
def test_patience_stops_a_run_early(data_folder, tmp_path, patience, last):
    outcome = train(data_folder, tmp_path / "run", patient(patience))
    assert (outcome.steps, outcome.stopped_early, outcome.stopped) == (last, last < 40, False)
    assert outcome.best_step == (8 if last < 24 else 24)
    folder = RunFolder.open(tmp_path / "run")
    assert folder.find_checkpoint("best").name == f"step-{outcome.best_step:09d}"
    assert folder.find_checkpoint("latest").name == f"step-{last:09d}"
    notes = [note["text"] for note in read_metrics(folder.metrics_file, "note")]
    assert len(notes) == (last < 40)
    assert all(
        f"early stopping after step {last} of 40: " in n and "best checkpoint is that of step 8" in n for n in notes
    )


@pytest.mark.parametrize("crash", [("validating", 16), ("validation", 20), ("progress", 19), ("progress", 9)])
def test_a_crashed_run_stops_at_the_same_step(data_folder, tmp_path, monkeypatch, crash):
    kind, step = crash
    train(data_folder, tmp_path / "whole", patient(3, train__keep_checkpoints=100))
    real = validate.split_loss

    def told(*arguments: Any, on_progress: Callable[[int, int], None], **settings: Any) -> SplitLoss:
        on_progress(1, 1)
        return real()

    monkeypatch.setattr(validate, "split_loss", told)
    with pytest.raises(Crash):
        train(data_folder, tmp_path / "run", patient(3, train__keep_checkpoints=100), callbacks=[crash_at(kind, step)])
    assert resume(tmp_path / "run").stopped_early
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_a_run_stopped_early_stays_stopped_with_one_note(data_folder, tmp_path):
    train(data_folder, tmp_path / "run", patient(3))
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    records: list[Any] = []
    outcome = resume(tmp_path / "run", callbacks=[records.append])
    assert (outcome.stopped_early, outcome.steps) == (True, 20)
    assert [r["step"] for r in map(dict, records) if r["kind"] == "step"] == []
    assert any("early stopping" in r["text"] for r in records if r["kind"] == "message")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("patience", [4, 0])
def test_resuming_with_more_patience_is_as_if_it_always_had_it(data_folder, tmp_path, patience):
    train(data_folder, tmp_path / "whole", patient(patience, train__keep_checkpoints=100))
    train(data_folder, tmp_path / "run", patient(3, train__keep_checkpoints=100))
    assert resume(tmp_path / "run", patience=patience).steps == 40
    found = differences(tmp_path / "whole", tmp_path / "run")
    assert all("metrics" in line for line in found)  # the note of its first end
    assert validated(tmp_path / "run") == validated(tmp_path / "whole")
    assert RunFolder.open(tmp_path / "run").config().train.patience == patience


def test_a_new_length_renews_the_patience_also_after_a_crash(data_folder, tmp_path):
    train(data_folder, tmp_path / "run", patient(2, train__steps=36))
    with pytest.raises(Crash):
        resume(tmp_path / "run", steps=40, callbacks=[crash_at("progress", 17)])
    outcome = resume(tmp_path / "run")
    assert (outcome.steps, outcome.stopped_early) == (
        20 + 12,
        True,
    )  # at 20 once, at 24 it is lower, at 28 and 32 twice
    assert validated(tmp_path / "run") == [4, 8, 12, 16, 20, 24, 28, 32]


def test_the_doctor_knows_of_early_stopping(data_folder, tmp_path):
    train(data_folder, tmp_path / "run", patient(3))
    evidence = read_evidence(tmp_path / "run")
    assert "20 of 40 steps, epoch 0.488, stopped early after 3 validations without improvement" in progress_line(
        evidence
    )
    assert not {"stopped", "ended too early"} & {finding.check for finding in diagnose(evidence).findings}
    assert evidence.finished
    answers = iter([False, True])
    train(data_folder, tmp_path / "stopped", patient(3), should_stop=lambda: next(answers))
    assert "stopped" in [finding.check for finding in diagnose(read_evidence(tmp_path / "stopped")).findings]


def test_the_view_shows_the_patience(data_folder, tmp_path):
    out = io.StringIO()
    view = TrainView(Console(file=out, width=200))
    view.summary(train(data_folder, tmp_path / "run", patient(3), callbacks=[view]))
    shown = out.getvalue()
    assert "step 12: " in shown
    assert "no improvement, patience 1/3" in shown
    assert "no improvement, patience 3/3" in shown
    assert "early stopping after step 20 of 40: no improvement in 3 validations" in shown
    assert "best validation loss 2.0000, after step 8" in shown
