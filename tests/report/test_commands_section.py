"""Commands that run once their placeholders are filled in, and the preset that a run is nearest to."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from minigpt.cli.commands import app
from minigpt.config import load_preset, preset_names, resolve
from minigpt.report import ReportOptions
from minigpt.report.collect import collect_facts
from minigpt.report.commands_section import commands
from minigpt.report.facts import RunFacts
from minigpt.report.settings_section import nearest_preset
from tests.printed import mistakes_in, wrong_with
from tests.report.conftest import section, top

FAST = ReportOptions(evaluate=False, samples=False)


@pytest.fixture
def facts(run):
    [found] = collect_facts([run], FAST)
    return found


def lines(facts: RunFacts) -> list[list[str]]:
    """The commands of the page, as a shell reads them."""
    [(_, found)] = commands([facts])["runs"]
    return [shlex.split(line) for line in found]


def train_line(facts, **changes):
    preset = changes.pop("preset")
    overrides = {name.replace("__", "."): value for name, value in changes.items()}
    config = resolve(preset, overrides=overrides | {"model.vocab_size": 300})
    return config, lines(replace(facts, config=config, records=[]))[1]


MOVED_ON = [
    {"preset": "laptop", "train__steps": 120},
    {"preset": "seed"},
    {"preset": "shakespeare", "train__epochs": 3, "train__lr": 0.5, "model__bias": True},
    {"preset": "shakespeare", "train__epochs": 10, "train__skip_spikes": True},
    {"preset": "deep", "machine__threads": 1, "schedule__name": "wsd"},
]


@pytest.mark.parametrize("changes", MOVED_ON, ids=str)
def test_the_options_are_the_settings(facts, changes, monkeypatch):
    from minigpt import training

    config, words = train_line(facts, **dict(changes))
    assert words[:4] == ["minigpt", "train", "--preset", changes["preset"]]
    seen = []

    def stopped(data, run, settings, **rest):
        seen.append((str(data), str(run), settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stopped)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        app(words[1:])
    [(data, folder, given)] = seen
    assert (data, folder) == ("DATA", "NEW")
    assert replace(given, model=replace(given.model, vocab_size=300)) == config


IMPORTED = {"splits": {}, "folder": "", "tokenizer": {"spec": "gpt2", "identity": ""}}


@pytest.mark.parametrize("change", [{}, {"origin": {"folder": "x"}}, {"data": IMPORTED}])
def test_each_command_of_the_page_can_be_typed(facts, change):
    made = replace(facts, **change)
    assert [wrong_with(shlex.join(words)) for words in lines(made)] == [""] * len(lines(made))
    assert not mistakes_in(top([made]))


def test_a_run_that_was_extended_is_trained_and_then_resumed(facts):
    train = replace(facts.config.train, epochs=50, steps=None)
    extended = replace(facts, config=replace(facts.config, train=train))
    plan = next(record["steps"] for record in facts.records if record["kind"] == "plan")
    _, first, then, *_ = lines(extended)
    assert first == shlex.split(f"minigpt train --config RUN/config.toml --steps {plan} --data DATA --run NEW")
    assert then == shlex.split("minigpt resume NEW --epochs 50")
    assert "minigpt resume" not in section("commands", [facts])


def test_of_many_settings_the_file_is_named(facts):
    many = {"train__lr": 1.0, "train__seed": 9, "train__grad_clip": 0.5, "train__epochs": 7, "train__batch_size": 4}
    _, words = train_line(facts, preset="seed", **many)
    assert words == shlex.split("minigpt train --config RUN/config.toml --data DATA --run NEW")


def test_runs_and_data_of_one_name_are_told_apart(facts):
    named = replace(facts, places={"data/notes": "DATA", "runs/notes": "RUN", "my notes.txt": "TEXT"})
    told = named.shortened(
        "See runs/notes: `minigpt train --run runs/notes-slower --config runs/notes/config.toml --data data/notes` or "
        "`minigpt prepare 'my notes.txt' --out data/notes-2`, not `runs/notes`"
    )
    assert told == (
        "See notes: `minigpt train --run RUN-slower --config RUN/config.toml --data DATA` or "
        "`minigpt prepare TEXT --out DATA-2`, not `notes`"
    )
    train = replace(facts, places={"train": "RUN", "--data": "DATA"})
    assert train.shortened("`minigpt train --run train-2 it's`") == "`minigpt train --run train-2 it's`"
    assert train.shortened("`minigpt train --run train-2`") == "`minigpt train --run RUN-2`"
    slashed = replace(train, places={"/home/me/my-notes/": "TEXT"})
    assert slashed.shortened("/home/me/my-notes/a.html, in /home/me/my-notes") == "my-notes/a.html, in my-notes"


def test_what_the_doctor_advises_says_where_its_words_are_explained(facts):
    assert facts.diagnosis.findings
    advised = replace(facts.diagnosis.findings[0], fix=f"`minigpt resume {facts.folder.path} --epochs 3`")
    told = section("diagnosis", [replace(facts, diagnosis=replace(facts.diagnosis, findings=[advised]))])
    assert "<code>minigpt resume RUN --epochs 3</code>" in told
    assert 'href="#commands"' in told
    hint = section("commands", [facts]).partition("</pre>")[2]
    for word in ("RUN", "DATA", "NEW", "TEXT"):
        assert hint.count(f"<code>{word}</code>") == 1
    assert "ORIGIN" not in hint


def test_commands_name_what_decides_the_split_and_the_data_of_imported_runs(run):
    [facts] = collect_facts([run], ReportOptions(evaluate=False, samples=False))
    assert "--split-by document --block-size 32" in section("commands", [facts])
    usual = replace(facts, prepared=replace(facts.prepared, block_size=512))
    assert "--block-size" not in section("commands", [usual]).partition("</pre>")[0]
    by_sequence = replace(facts, prepared=replace(facts.prepared, split_by="sequence"))
    assert "--split-by sequence --block-size 32" in section("commands", [by_sequence])
    imported = replace(facts, data={**facts.data, "splits": {}})
    assert "minigpt evaluate RUN --data DATA" in section("commands", [imported])
    assert "minigpt report RUN --data DATA" in section("commands", [imported])


def test_settings_are_compared_with_the_nearest_preset(facts):
    for preset in preset_names():
        config = resolve(preset, overrides={"train.seed": 5, "model.vocab_size": 77})
        assert nearest_preset(config) == (preset, {"train.seed": 5})
        told = section("settings", [replace(facts, config=config)])
        assert f"The nearest preset is <code>{preset}</code>. Settings that differ from it:" in told
        assert "vocab_size" not in told.split("<details")[0]
    plain = replace(facts, config=resolve("laptop"))
    assert "All settings are those of the preset <code>laptop</code>." in section("settings", [plain])
    assert load_preset("laptop").settings["train.epochs"] == 5


def test_runs_of_different_tokenizers_get_advice_that_can_be_followed(facts):
    data = {**facts.data, "tokenizer": {**facts.data["tokenizer"], "identity": "another"}}
    data["splits"] = {**data["splits"], "val": {**data["splits"]["val"], "text_bytes": 7}}
    told = top([facts, replace(facts, data=data)])
    assert "<code>minigpt evaluate RUN --text FILE</code> for each" in told
    assert "--data" not in told
