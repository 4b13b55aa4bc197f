"""Two models on the same documents: how far apart they are, and whether that is the chance of these documents.

Documents differ from each other far more than two models do on one of them; so whole documents are drawn again, with
both models' losses on each (paired bootstrap, Koehn 2004). Not here: the chance of another seed in training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigpt.evaluation.metrics import Estimate, EvalMetrics, bootstrap


def difference(first: EvalMetrics, other: EvalMetrics) -> Estimate | None:
    """Returns the other's loss less the first's on the same documents, in nats per token of the first.

    None where they are not the same documents, or only one. Between tokenizers only the sign means something.
    """
    if len(first.by_document) != len(other.by_document) or len(first.by_document) < 2:
        return None
    pairs = zip(first.by_document, other.by_document, strict=True)
    return _mean([document.tokens for document in first.by_document],
                 [b.tokens * b.loss - a.tokens * a.loss for a, b in pairs])  # fmt: skip


def beats_bigram(found: EvalMetrics) -> bool:
    """Whether a model's loss is lower than the bigram's on the same documents, by more than the chance of these.

    Of a single document, the interval of the loss alone must lie below the bigram's.
    """
    counted = [(one.tokens, one.loss - one.bigram) for one in found.by_document if one.bigram is not None]
    if len(counted) > 1:
        away = _mean([tokens for tokens, _ in counted], [tokens * below for tokens, below in counted])
        return away.interval is not None and away.interval[1] < 0
    return found.loss.interval is not None and found.loss.interval[1] < found.baselines["bigram"].value


def _mean(tokens: Sequence[int], nats: Sequence[float]) -> Estimate:
    """Returns the mean per token of sums over documents, with the interval of drawing documents again."""
    table = np.stack([np.array(nats), np.array(tokens, dtype=np.float64)], axis=1)  # (documents, 2)
    away, count = table.sum(axis=0)
    resampled = bootstrap(table)  # (resamples, 2)
    low, high = np.percentile(resampled[:, 0] / resampled[:, 1], [2.5, 97.5])
    return Estimate(float(away / count), (float(low), float(high)))


def surely_best(measured: Sequence[EvalMetrics | None]) -> int | None:
    """Returns the place of the run whose loss is lower than every other's by more than chance; None if none is."""
    for place, first in enumerate(measured):
        others = [other for other in measured if other is not first and other is not None]
        if first is not None and others:
            away = [difference(first, other) for other in others]
            if all(one is not None and one.interval is not None and one.interval[0] > 0 for one in away):
                return place
    return None
