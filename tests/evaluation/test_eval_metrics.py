"""From numbers to figures: by hand, against scipy and scikit-learn, and the intervals against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve

from minigpt.evaluation.baselines import Baselines
from minigpt.evaluation.eval_text import EvalText
from minigpt.evaluation.metrics import CALIBRATION_BINS, bootstrap, eval_metrics
from minigpt.evaluation.scores import Scores
from minigpt.tokenizers import make_tokenizer

BYTES = make_tokenizer("byte")


def made_up(n_documents: int, length: int, seed: int = 0) -> tuple[EvalText, Scores, Baselines]:
    """Documents of equal length, some harder than others, and a model that is too sure of itself."""
    random = np.random.default_rng(seed)
    n_tokens = n_documents * length
    documents = np.arange(n_documents) * length
    text = EvalText(
        random.integers(97, 123, n_tokens, dtype=np.uint32),
        np.zeros(1, dtype=np.int64),
        np.ones(1, dtype=np.int64),
        documents,
        None,
        1.0,
        BYTES,
    )
    positions = np.arange(1, n_tokens)
    hardness = np.repeat(random.gamma(4.0, 0.7, n_documents), length)[1:]
    confidence = random.uniform(0.02, 1, n_tokens - 1).astype(np.float32)
    wrong = random.uniform(size=n_tokens - 1) > confidence**2
    scores = Scores(
        positions,
        (positions % 40 + 1).astype(np.int32),
        random.exponential(hardness).astype(np.float32),
        (wrong * random.integers(1, 9, n_tokens - 1)).astype(np.int32),
        confidence,
    )
    simple = Baselines(random.integers(0, 2000, n_tokens - 1) % 1500, scores.nll + 1, scores.nll + 0.5)
    return text, scores, simple


def test_by_hand():
    text = EvalText(
        np.array([END := BYTES.end_of_text, 97, 98, 99, END, 97], dtype=np.uint32),
        np.array([0, 4]),
        np.array([1, 1]),
        np.array([0, 4]),
        ("one", "two"),
        1.0,
        BYTES,
    )
    scores = Scores(
        np.array([1, 2, 3, 5]),
        np.array([1, 2, 3, 1], dtype=np.int32),
        np.array([1.0, 2.0, 3.0, 6.0], dtype=np.float32),
        np.array([0, 4, 5, 0], dtype=np.int32),
        np.array([0.9, 0.9, 0.1, 1.0], dtype=np.float32),
    )
    simple = Baselines(np.array([0, 5, 10, 99]), scores.nll + 1, scores.nll * 2)
    found = eval_metrics(text, scores, simple)
    assert (found.tokens, found.documents) == (4, 2)
    assert found.loss.value == 3.0
    assert found.perplexity.value == pytest.approx(math.exp(3))
    assert found.bits_per_byte.value == pytest.approx(3 / math.log(2))
    assert (found.accuracy.value, found.top5_accuracy.value) == (0.5, 0.75)
    assert found.calibration_error == pytest.approx((abs(0.9 + 0.9 - 1) + 0.1 + 0) / 4)
    assert [(part.tokens, part.accuracy) for part in found.calibration] == [(1, 0), (2, 0.5), (1, 1)]
    assert {name: estimate.value for name, estimate in found.baselines.items()} == {
        "uniform": math.log(257),
        "unigram": 4.0,
        "bigram": 6.0,
    }
    context = [(group.name, group.tokens, group.loss, group.bigram) for group in found.by_context]
    assert context == [("1", 2, 3.5, 7.0), ("2", 1, 2.0, 4.0), ("3", 1, 3.0, 6.0)]
    assert found.by_frequency is not None
    frequency = [(group.name, group.tokens, group.loss, group.accuracy) for group in found.by_frequency]
    assert frequency == [("never", 1, 1.0, 1.0), ("1 - 9", 1, 2.0, 0.0), ("10 - 99", 2, 4.5, 0.5)]
    assert [(group.name, group.tokens, group.loss) for group in found.by_document] == [("one", 3, 2.0), ("two", 1, 6.0)]
    assert found.loss.interval == (2.0, 6.0)  # of two documents, twice the one or twice the other
    assert found.interval_from == "2 documents"


def test_every_grouping_adds_up_to_the_whole():
    text, scores, simple = made_up(12, 500)
    found = eval_metrics(text, scores, simple)
    for groups in (found.by_context, found.by_frequency, found.by_document):
        assert sum(group.tokens for group in groups) == found.tokens
        assert sum(group.tokens * group.loss for group in groups) / found.tokens == pytest.approx(found.loss.value)
        assert sum(group.tokens * group.accuracy for group in groups) / found.tokens == pytest.approx(
            found.accuracy.value
        )
    assert [group.name for group in found.by_context] == ["1", "2", "3 - 4", "5 - 8", "9 - 16", "17 - 32", "33 - 40"]
    assert [g.name for g in found.by_frequency] == ["never", "1 - 9", "10 - 99", "100 - 999", "1,000 - 9,999"]


def test_the_calibration_is_scikit_learns():
    text, scores, _ = made_up(3, 2000)
    found = eval_metrics(text, scores)
    accuracy, confidence = calibration_curve(scores.rank == 0, scores.confidence, n_bins=CALIBRATION_BINS)
    np.testing.assert_allclose([part.accuracy for part in found.calibration], accuracy, rtol=1e-6)
    np.testing.assert_allclose([part.confidence for part in found.calibration], confidence, rtol=1e-6)
    shares = np.array([part.tokens for part in found.calibration]) / found.tokens
    assert found.calibration_error == pytest.approx(float(np.abs(accuracy - confidence) @ shares))


def test_the_interval_is_scipys_percentile_bootstrap():
    text, scores, _ = made_up(60, 100)
    found = eval_metrics(text, scores)
    by_document = [group.loss for group in found.by_document]
    theirs = stats.bootstrap(
        (by_document,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.loss.interval == pytest.approx((theirs.low, theirs.high), abs=0.1 * width)
    assert found.perplexity.interval == pytest.approx(tuple(math.exp(end) for end in found.loss.interval))


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(100):
        table = np.stack([np.full(40, 10.0), 10 * np.random.default_rng(seed).gamma(4.0, 0.5, 40)], axis=1)
        resampled = bootstrap(table, resamples=300, seed=seed)
        low, high = np.percentile(resampled[:, 1] / resampled[:, 0], [2.5, 97.5])
        held += low <= 2.0 <= high
    assert 87 <= held <= 99


def test_one_long_document_is_resampled_in_blocks_and_a_short_one_is_not():
    text, scores, _ = made_up(1, 12_345)
    found = eval_metrics(text, scores)
    assert found.interval_from == "12 blocks of 1,000 tokens of this document"
    assert found.loss.interval[0] < found.loss.value < found.loss.interval[1]
    text, scores, _ = made_up(1, 9_000)
    found = eval_metrics(text, scores)
    assert found.interval_from is None
    assert found.loss.interval is found.bits_per_byte.interval is None


def test_without_training_data_there_is_no_frequency():
    text, scores, _ = made_up(3, 100)
    found = eval_metrics(text, scores)
    assert found.by_frequency is None
    assert list(found.baselines) == ["uniform"]
    assert found.by_document[0].bigram is None


def test_it_is_the_same_every_time():
    assert eval_metrics(*made_up(5, 300)) == eval_metrics(*made_up(5, 300))
