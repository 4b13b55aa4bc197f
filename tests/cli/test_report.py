"""`minigpt report` as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.conftest import copied, sketched  # noqa: F401 (a fixture)


@pytest.fixture
def run(run_folder: Path, data_folder: Path, tmp_path: Path) -> Path:
    return copied(run_folder, data_folder, tmp_path / "first")


def test_the_page_is_written_where_it_is_said(call, run, tmp_path):
    out = tmp_path / "page.html"
    code, said, err = call("report", run, "--out", out, "--no-evaluate", "--no-samples")
    assert (code, err) == (0, "")
    assert said == f"report: {out} ({out.stat().st_size / 1000:,.0f} kB)\n"
    assert out.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.usefixtures("sketched")
def test_prompts_of_ones_own_are_continued(call, run):
    code, _, err = call("report", run, "--no-evaluate", "--prompt", "the <b>cat</b>", "--prompt", "-x")
    assert (code, err) == (0, "")
    text = (run / "report.html").read_text("utf-8")
    assert "the &lt;b&gt;cat&lt;/b&gt;" in text
    assert "<bdi>-x</bdi>" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "runs/first"),
        (["nowhere"], "No such run folder"),
        (["RUN", "--checkpoint", "999"], "No such checkpoint"),
        (["RUN", "--data", "nowhere"], "such data set"),
        (["RUN", "--out", "nowhere/x.html"], "folder does not exist"),
        (["RUN", "--device", "tpu"], "tpu"),
    ],
    ids=str,
)
def test_mistakes_are_named(call, run, arguments, words):
    code, out, err = call("report", *(run if argument == "RUN" else argument for argument in arguments))
    assert (code, out) == (2, "")
    assert words in err
    assert not (run / "report.html").exists()


@pytest.mark.usefixtures("sketched")
def test_what_is_left_out_is_said_beside_the_result(call, run, tmp_path):
    (tmp_path / "first-data").rename(tmp_path / "moved")
    code, out, err = call("report", run, "--no-samples")
    assert (code, out.count("\n")) == (0, 1)
    assert err.startswith("not in the report: No evaluation")
    assert "name its folder with --data" in err


def test_a_file_of_the_run_is_no_place_for_a_page(call, run):
    before = (run / "config.toml").read_bytes()
    code, out, err = call("report", run, "--out", run / "config.toml")
    assert (code, out) == (2, "")
    assert "not an HTML page" in err
    assert (run / "config.toml").read_bytes() == before


def test_help_needs_no_heavy_package():
    code = (
        "import sys\nfrom minigpt.cli.app import main\n"
        "try:\n    main(['report', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--prompt" in done.stdout
