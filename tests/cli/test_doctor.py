"""`minigpt doctor`: what it prints, its exit codes, and that its remedies are commands that exist."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest

from minigpt.runs.folder import RunFolder
from minigpt.training import train
from tests.conftest import tiny
from tests.test_docs import wrong_in


@pytest.fixture(scope="module")
def sick_run(data_folder, tmp_path_factory):
    """A run at a rate far too high, in a folder whose name needs quotes."""
    run = tmp_path_factory.mktemp("runs") / "far too [bold]high"
    train(data_folder, run, tiny(train__lr=5.0, train__steps=60, train__health_every=20))
    return run


def test_a_sick_run_gets_findings_and_remedies_that_run(call, sick_run):
    code, out, err = call("doctor", sick_run)
    assert (code, err) == (0, "")
    assert re.search(r"problem: learning rate too high, since step \d+ \(epoch [\d.]+\)\n", out)
    assert "[bold]" in out
    commands = re.findall(r"`(minigpt [^`]+)`", out)
    assert commands
    for command in commands:
        assert wrong_in(shlex.split(command)[1:]) == ""
    assert not re.search(r"healthy", out)


def test_its_remedy_is_carried_out(call, sick_run):
    out = json.loads(call("doctor", sick_run, "--json")[1])
    finding = next(finding for finding in out["findings"] if finding["check"] == "learning rate too high")
    assert finding["fix"] == "Train again at a lower rate"
    words = shlex.split(finding["command"])[1:]
    code, _, _ = call(*words)
    assert code == 0
    made = RunFolder.open(words[words.index("--run") + 1])
    assert made.config().train.lr == pytest.approx(0.0005)
    again = json.loads(call("doctor", sick_run, "--json")[1])
    assert str(made.path) + "2" in again["findings"][0]["command"]  # the name is taken now


def test_strict_fails_for_problems_only(call, sick_run, run_folder):
    assert call("doctor", sick_run, "--strict")[0] == 1
    assert call("doctor", sick_run)[0] == 0
    found = json.loads(call("doctor", run_folder, "--json")[1])["findings"]
    problems = [finding for finding in found if finding["severity"] == "problem"]
    assert call("doctor", run_folder, "--strict")[0] == int(bool(problems))


def test_it_writes_nothing(call, sick_run):
    before = {path: path.stat().st_mtime_ns for path in sick_run.rglob("*") if path.name != ".lock"}
    call("doctor", sick_run)
    assert before == {path: path.stat().st_mtime_ns for path in sick_run.rglob("*") if path.name != ".lock"}


def test_old_moved_and_damaged_runs(call, run_folder, data_folder, tmp_path):
    run = tmp_path / "old"
    shutil.copytree(run_folder, run)
    metrics = run / "metrics.jsonl"
    lines = [line for line in metrics.read_text().splitlines() if '"health"' not in line]
    metrics.write_text("\n".join(lines) + "\n")
    facts = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**facts, "folder": str(tmp_path / "gone")}))
    out = call("doctor", run)[1]
    assert "no health records; --train.health-every sets how often it is probed: learning rate too low" in out
    assert "data set is not available" in out
    assert "data set is not available" not in call("doctor", run, "--data", data_folder)[1]
    metrics.write_text("")
    assert "has no records of its steps" in call("doctor", run)[1]
    code, _, err = call("doctor", tmp_path / "nowhere")
    assert (code, "No such run folder" in err) == (2, True)
