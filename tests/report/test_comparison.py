"""Runs beside each other: what may be compared, and what is surely better."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from minigpt.errors import ConfigError
from minigpt.evaluation.metrics import Bucket, Estimate, EvalMetrics
from minigpt.evaluation.paired_bootstrap import beats_bigram, difference, significantly_best
from minigpt.report import ReportOptions, plots, write_report
from minigpt.report.collect import collect_facts
from minigpt.report.overview import compare_with_baselines
from minigpt.report.page import page
from tests.report.conftest import Page, copied, top

FAST = ReportOptions(evaluate=False, samples=False)


@pytest.fixture
def other(run_folder, data_folder, tmp_path):
    return copied(run_folder, data_folder, tmp_path / "other")


def validated_elsewhere(run):
    """Makes a run forget which text it was validated on."""
    known = json.loads((run / "data.json").read_text("utf-8"))
    known["splits"]["val"]["sha256"] = "0" * 64
    (run / "data.json").write_text(json.dumps(known), encoding="utf-8")


def of_documents(losses, tokens=None):
    """Figures of documents with these losses."""
    tokens = [100] * len(losses) if tokens is None else tokens
    documents = tuple(Bucket("", int(n), float(loss), 0.5, None) for n, loss in zip(tokens, losses, strict=True))
    some = Estimate(float(np.average(losses, weights=tokens)))
    return EvalMetrics(
        tokens=int(sum(tokens)),
        documents=len(documents),
        bytes_per_token=4.0,
        loss=some,
        perplexity=some,
        bits_per_byte=some,
        accuracy=some,
        top5_accuracy=some,
        calibration_error=0.1,
        calibration=(),
        baselines={"uniform": Estimate(9.0)},
        by_context=(),
        by_frequency=None,
        by_document=documents,
        interval_from=None,
    )


def test_context_is_read_only_where_the_bigram_is_beaten_by_more_than_chance():
    chance = np.random.default_rng(0)
    losses = chance.normal(4, 1, 100)

    def beside(below):
        found = of_documents(losses)
        pairs = zip(found.by_document, np.broadcast_to(below, 100), strict=True)
        groups = tuple(replace(one, bigram=one.loss + float(away)) for one, away in pairs)
        mean = Estimate(float(np.mean([group.bigram for group in groups])))
        return replace(found, by_document=groups, baselines={**found.baselines, "unigram": mean, "bigram": mean})

    surely, maybe, not_so = beside(0.05), beside(0.05 + chance.permutation([-1.0, 1.0] * 50)), beside(-0.05)
    assert [beats_bigram(one) for one in (surely, maybe, not_so)] == [True, False, False]
    assert maybe.loss.value < maybe.baselines["bigram"].value
    assert "has learned to use its context" in compare_with_baselines(surely)
    assert "but not significantly, so it hardly uses its context" in compare_with_baselines(maybe)
    assert "has not learned to use its context yet" in compare_with_baselines(not_so)
    single = replace(surely, by_document=surely.by_document[:1])
    assert not beats_bigram(single)
    value = single.baselines["bigram"].value
    assert beats_bigram(replace(single, loss=Estimate(value - 2, (value - 3, value - 1))))


@pytest.mark.usefixtures("sketched")
def test_points_on_different_texts_are_not_compared_though_both_were_measured_on_one(run, other, data_folder, tmp_path):
    validated_elsewhere(other)
    options = ReportOptions(samples=False, data=data_folder)
    words = Page(write_report([run, other], tmp_path / "two.html", options=options).read_text("utf-8")).words
    assert "validated on different texts during training, so their curves cannot be compared." in words
    assert "so their losses cannot be compared" in words
    assert "minus first" not in words
    assert "loss minus that of first" in words  # measured on one text, their losses may be
    assert "of the given text" in words  # which is the other's validation text no longer


@pytest.mark.usefixtures("sketched")
def test_one_measured_run_is_measured_like_no_other(run, other, tmp_path):
    validated_elsewhere(other)
    known = json.loads((other / "data.json").read_text("utf-8"))
    (other / "data.json").write_text(json.dumps({**known, "folder": "/nowhere"}), encoding="utf-8")
    words = Page(
        write_report([run, other], tmp_path / "two.html", options=ReportOptions(samples=False)).read_text("utf-8")
    ).words
    assert "cannot be compared, nor can their metrics" in words


def test_the_difference_on_the_same_documents_is_surer_than_either_loss():
    chance = np.random.default_rng(0)
    losses, tokens = chance.normal(4, 1, 200), chance.integers(50, 500, 200)
    first, better = of_documents(losses, tokens), of_documents(losses - 0.05 + chance.normal(0, 0.1, 200), tokens)
    away = difference(first, better)
    assert away.value == pytest.approx(better.loss.value - first.loss.value)
    low, high = away.interval
    assert low < away.value < high < 0
    assert high - low < 0.06  # normal theory: 4 * 0.1 / sqrt(200), a little more for unequal lengths
    assert significantly_best([first, better]) == 1
    assert significantly_best([better, None, first]) == 0


def test_nothing_is_best_by_chance_alone():
    chance = np.random.default_rng(1)
    losses = chance.normal(4, 1, 50)
    first, same = of_documents(losses), of_documents(losses + chance.permutation([-0.2, 0.2] * 25))
    low, high = difference(first, same).interval
    assert low < 0 < high
    assert significantly_best([first, same]) is None
    assert difference(first, of_documents(losses[1:])) is None
    assert difference(of_documents([3.0]), of_documents([2.0])) is None
    assert significantly_best([of_documents([3.0]), of_documents([2.0])]) is None
    assert significantly_best([first, None]) is None


def test_a_better_run_is_bold_and_an_equal_one_is_not(run, other):
    runs = collect_facts([run, other], ReportOptions(samples=False))
    alike = top(runs)
    found = runs[1].evaluation
    better = replace(found.metrics, by_document=tuple(replace(g, loss=g.loss - 1) for g in found.metrics.by_document),
                     loss=Estimate(found.metrics.loss.value - 1))  # fmt: skip
    changed = [runs[0], replace(runs[1], evaluation=replace(found, metrics=better))]
    best = top(changed)
    value = f"<b>{better.loss.value:.4f}</b>"
    assert f"<b>{found.metrics.loss.value:.4f}</b>" not in alike
    assert value in best
    assert "-1.0000" in best
    assert "random seeds" in best


def test_losses_of_different_tokens_share_no_picture(run, other):
    runs = collect_facts([run, other], ReportOptions(samples=False))
    runs[1] = replace(runs[1], data={**runs[1].data, "tokenizer": {"spec": "byte", "identity": "another"}})
    drawn = plots.evaluation_plots(runs)
    assert [plot.title for plot in drawn] == ["Calibration"]
    assert "are of different tokens" in page(runs)
    assert "Faint" not in plots.loss_plots(runs)[0].hint  # nothing faint is drawn then


def test_a_name_that_begins_with_an_underscore_stands_in_the_legend(run_folder, data_folder, tmp_path):
    hidden = copied(run_folder, data_folder, tmp_path / "_hidden")
    plain = copied(run_folder, data_folder, tmp_path / "plain")
    plot = plots.loss_plots(collect_facts([hidden, plain], FAST))[0]
    assert "_hidden, validation</text>" in plot.svg
    assert "plain, validation</text>" in plot.svg
    assert "Faint: training" in plot.hint


def test_more_runs_than_can_be_told_apart_are_refused(run):
    with pytest.raises(ConfigError, match="at most 6 runs"):
        write_report([run] * 7, options=FAST)


def test_of_many_documents_a_thousand_are_drawn_and_kept_short(run, monkeypatch):
    from minigpt.report import cache

    [facts] = collect_facts([run], ReportOptions(samples=False))
    few = facts.evaluation
    chance = np.random.default_rng(0)
    groups = tuple(
        Bucket(f"document {place}" * 5, 100, float(loss), 0.123456789, 3.123456789)
        for place, loss in enumerate(chance.normal(3, 1, 20_000))
    )
    many = replace(few, metrics=replace(few.metrics, by_document=groups, documents=len(groups)))
    short = replace(facts, evaluation=many)
    drawn = [plot.svg for plot in plots.evaluation_plots([short])]
    assert max(map(len, drawn)) < 300_000
    monkeypatch.setattr(cache, "evaluate", lambda *args, **rest: many)
    facts.folder.evaluation_file.unlink()
    first = collect_facts([run], ReportOptions(samples=False))[0].evaluation
    again = collect_facts([run], ReportOptions(samples=False))[0].evaluation
    assert first == again
    assert facts.folder.evaluation_file.stat().st_size < 45 * len(groups)
    ranked = sorted(first.metrics.by_document, key=lambda one: one.loss)
    assert all(one.name for one in [*ranked[:5], *ranked[-5:]])
    assert difference(many.metrics, first.metrics).value == pytest.approx(0, abs=1e-5)
