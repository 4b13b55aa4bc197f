"""What is marked in samples, and what their figures stand beside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minigpt.generation.sample_log import SampleRecord, read_sample_log
from minigpt.report import ReportOptions, write_report
from minigpt.report.collect import collect_facts
from minigpt.report.sample_analysis import CopiedPassage, _characters
from minigpt.report.samples_section import _parts, merged
from minigpt.runs.folder import RunFolder
from tests.report.conftest import Page, copied, section

TEXTS = ReportOptions(evaluate=False)


@pytest.fixture
def said(run):
    """Returns the page's marks when the run's last sample has these tokens."""

    def marks(ids):
        folder = RunFolder.open(run)
        lines = [one.to_json() for one in read_sample_log(folder)]
        last = {**json.loads(lines[-1]), "ids": ids, "text": folder.tokenizer().decode(ids)}
        folder.samples_file.write_bytes(b"".join(lines[:-1]) + json.dumps(last).encode() + b"\n")
        [facts] = collect_facts([run], TEXTS)
        [changed] = [one for one in facts.sampled.samples if one.text == last["text"]]
        only = replace(facts, sampled=replace(facts.sampled, copies={changed: facts.sampled.copies[changed]}))
        return Page(section("samples", [only]))

    return marks


def test_marks_stand_right_beside_bytes_that_are_no_text(run, dataset, said):
    copy = dataset.train.read(40, 90).tolist()
    broken = [dataset.tokenizer.vocabulary.index(byte) for byte in (b"\xff", b"\xe2")]
    page = said([broken[0]] * 20 + [broken[1]] * 5 + copy + [broken[0]] * 3)
    assert page.marked == [dataset.tokenizer.decode(copy)]


def test_all_that_is_copied_is_marked(run, dataset, said):
    def strange(count):
        return dataset.tokenizer.encode("@" * count).tolist()

    parts = [dataset.train.read(100, 180).tolist(), dataset.train.read(1000, 1070).tolist()]
    page = said([*strange(4), *parts[0], *strange(8), *parts[1], *strange(2)])
    assert page.marked == [dataset.tokenizer.decode(part) for part in parts]
    number = int((dataset.train.read(0, 100) == dataset.tokenizer.end_of_text).sum())
    name = dataset.documents(dataset.train)[number]
    assert name.endswith(".txt")
    assert f"2 passages also occur in the training text; the longest has 80 tokens and is in {name}" in page.words


def test_where_nobody_knows_the_file_the_first_words_name_a_document(run, dataset, said):
    (Path(RunFolder.open(run).data()["folder"]) / "train.documents").unlink()
    begin = int(np.flatnonzero(dataset.train.tokens == dataset.tokenizer.end_of_text)[2]) + 1
    words = " ".join(dataset.tokenizer.decode(dataset.train.read(begin, begin + 16)).split())
    page = said([*dataset.tokenizer.encode("@@@@").tolist(), *dataset.train.read(begin + 9, begin + 60).tolist()])
    assert f"51 tokens in a row also occur in the training text, in {words}" in page.words


def test_parts_that_overlap_are_one_mark():
    copies = [CopiedPassage(2, 6, 8, "a"), CopiedPassage(4, 9, 9, "b"), CopiedPassage(12, 40, 8, "c")]
    parts = [("01", False), ("2345678", True), ("9ab", False), ("cdef", True), ("", False)]
    assert list(_parts("0123456789abcdef", merged(copies))) == parts


def test_characters_are_counted_as_the_whole_text_has_them(dataset):
    tokenizer = dataset.tokenizer
    lead, middle = (tokenizer.vocabulary.index(byte) for byte in (b"\xe2", b"\x82"))
    ids = (*tokenizer.encode("aé€👋").tolist(), lead, lead, middle, *tokenizer.encode("b").tolist(), lead)
    one = SampleRecord(1, None, "own", "", (), 0.0, 1, tokenizer.decode(ids), ids, ended=False)
    assert one.text == "aé€👋\ufffd\ufffdb\ufffd"
    counts = [_characters(tokenizer, one, place) for place in range(len(ids) + 1)]
    assert counts == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 8]


def test_real_text_has_as_many_pieces_for_what_depends_on_them_and_more_for_shares(run):
    [facts] = collect_facts([run], TEXTS)
    groups = {found.n_samples for found in facts.sampled.metrics.values()}
    assert {facts.sampled.reference.n_samples} == groups
    assert facts.sampled.large_reference.n_samples > max(groups)  # as many as this small split has
    words = Page(section("samples", [facts])).words
    assert f"{facts.sampled.large_reference.n_samples} for the shares after it" in words


@pytest.mark.usefixtures("sketched")
def test_notes_name_no_folders(run, tmp_path):
    folder = RunFolder.open(run)
    with folder.metrics_file.open("a", encoding="utf-8") as stream:
        note = {"kind": "note", "step": 3, "epoch": 0.1, "text": f"went on from {folder.path.absolute()}."}
        stream.write(json.dumps(note) + "\n")
    meta = json.loads((tmp_path / "first-data" / "meta.json").read_text("utf-8"))
    meta["notes"] = [f"read from {tmp_path / 'first-data'}"]
    (tmp_path / "first-data" / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    file = write_report([run], options=ReportOptions(evaluate=False, samples=False))
    assert str(tmp_path) not in file.read_text("utf-8")
    facts = collect_facts([run], ReportOptions(evaluate=False, samples=False))
    assert "went on from first." in section("notes", facts)
    assert "read from first-data" in section("data", facts)


@pytest.mark.usefixtures("sketched")
def test_runs_beside_each_other_say_what_is_shown_of_own_prompts_and_no_more(run, run_folder, data_folder, tmp_path):
    other = copied(run_folder, data_folder, tmp_path / "other")
    options = ReportOptions(evaluate=False, prompts=("the cat", ""))
    both = collect_facts([run, other], options)
    for facts in both:
        last = max(map(RunFolder.checkpoint_step, facts.folder.checkpoint_folders()))
        assert {one.step for one in facts.sampled.samples if one.source == "own"} == {last}
        assert {one.step for one in read_sample_log(facts.folder) if one.source == "own"} == {last}
    parts = section("samples", both)
    assert parts.count("<summary><q><bdi>the cat</bdi></q></summary>") == 1
    assert parts.count("<summary><i>(the start of a document)</i></summary>") == 1
    assert "samples during training" in parts
    [alone] = collect_facts([run], options)
    assert len({one.step for one in alone.sampled.samples if one.source == "own"}) > 1


@pytest.mark.usefixtures("sketched")
def test_what_a_model_does_not_see_of_a_prompt_stands_beneath_it(run, read):
    page = read(write_report(run, options=ReportOptions(evaluate=False, prompts=("the <|endoftext|>", "a"))))
    assert "".join(page.said).count("The prompt contains <|endoftext|> as plain text") == 1
    assert not page.wrong
