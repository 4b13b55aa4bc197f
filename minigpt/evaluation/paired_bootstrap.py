"""Two models on the same documents: the difference of their losses, and whether it is significant.

Documents differ from each other far more than two models do on one of them, so whole documents are resampled, with both
models' losses on each (paired bootstrap, Koehn 2004). The variation between random seeds of training is not covered.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigpt.evaluation.metrics import Estimate, EvalMetrics, bootstrap


def difference(first: EvalMetrics, other: EvalMetrics) -> Estimate | None:
    """Returns the other's loss minus the first's on the same documents, in nats per token of the first.

    None if the documents differ, or there is only one. Between tokenizers, only the sign has a meaning.
    """
    if len(first.by_document) != len(other.by_document) or len(first.by_document) < 2:
        return None
    pairs = zip(first.by_document, other.by_document, strict=True)
    tokens = [document.tokens for document in first.by_document]
    return _mean(tokens, [b.tokens * b.loss - a.tokens * a.loss for a, b in pairs])


def beats_bigram(found: EvalMetrics) -> bool:
    """Returns whether a model's loss is significantly lower than the bigram's on the same documents.

    For a single document, the interval of the loss must lie below the bigram's.
    """
    pairs = [(one.tokens, one.loss - one.bigram) for one in found.by_document if one.bigram is not None]
    if len(pairs) > 1:
        mean = _mean([tokens for tokens, _ in pairs], [tokens * loss for tokens, loss in pairs])
        return mean.interval is not None and mean.interval[1] < 0
    return found.loss.interval is not None and found.loss.interval[1] < found.baselines["bigram"].value


def significantly_best(measured: Sequence[EvalMetrics | None]) -> int | None:
    """Returns the index of the run whose loss is significantly lower than every other's; None if there is none."""
    for index, first in enumerate(measured):
        others = [other for other in measured if other is not first and other is not None]
        if first is not None and others:
            differences = [difference(first, other) for other in others]
            if all(one is not None and one.interval is not None and one.interval[0] > 0 for one in differences):
                return index
    return None


def _mean(tokens: Sequence[int], nats: Sequence[float]) -> Estimate:
    """Returns the mean per token of sums over documents, with its bootstrap interval."""
    table = np.stack([np.array(nats), np.array(tokens, dtype=np.float64)], axis=1)  # (documents, 2)
    total, count = table.sum(axis=0)
    resampled = bootstrap(table)  # (resamples, 2)
    low, high = np.percentile(resampled[:, 0] / resampled[:, 1], [2.5, 97.5])
    return Estimate(float(total / count), (float(low), float(high)))
