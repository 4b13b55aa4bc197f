"""Every token is predicted exactly once, with the context that the stride promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.config import IGNORE_INDEX
from minigpt.data import BatchLoader, Dataset
from minigpt.errors import ConfigError
from minigpt.evaluation.eval_text import EvalText, text_of_split
from minigpt.evaluation.windows import Windows
from minigpt.tokenizers import make_tokenizer

BYTES = make_tokenizer("byte")


def eval_text(lengths: list[int], leads: list[int] | None = None, segment_length: int = 0) -> EvalText:
    """Readings of these lengths; every token is a number of its own, so that a wrong neighbour shows."""
    starts = np.cumsum([0, *lengths])[:-1]
    ones = np.array(leads if leads else [1] * len(lengths))
    return EvalText(np.arange(sum(lengths), dtype=np.uint32), starts, ones, starts, None, 1.0, BYTES, segment_length)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(1, 12),
    st.data(),
    st.sampled_from([0, 1, 3, 7]),
)
def test_each_token_is_predicted_once_with_enough_context(lengths, block_size, data, segment_length):
    stride = data.draw(st.integers(1, block_size))
    leads = [data.draw(st.integers(1, length)) for length in lengths]
    text = eval_text(lengths, leads, segment_length)
    windows = Windows(text, block_size, stride)
    predicted = []
    for first in range(0, len(windows), 2):
        x, y, positions = windows.rows(first, first + 2)
        assert x.shape == y.shape == positions.shape
        assert x.shape[1] <= block_size
        for row, column in np.argwhere(y != IGNORE_INDEX):
            position = positions[row, column]
            start = text.sequences[np.searchsorted(text.sequences, position, side="right") - 1]
            assert y[row, column] == position
            context = x[row, : column + 1]
            np.testing.assert_array_equal(
                context, np.arange(position - column - 1, position)
            )  # the tokens just before it
            assert position - column - 1 >= start  # and none of another reading
            assert column + 1 >= min(position - start, block_size - stride)
            predicted.append(position)
    targets = [
        start + i
        for start, lead, length in zip(text.sequences, leads, lengths, strict=True)
        for i in range(lead, length)
        if not segment_length or (start + i) % segment_length
    ]
    assert predicted == targets


@pytest.mark.parametrize("block_size", [32, 7])
def test_side_by_side_they_are_the_sequences_of_training(dataset: Dataset, block_size):
    windows = Windows(text_of_split(dataset.val, dataset.tokenizer), block_size, block_size)
    batches = BatchLoader(dataset.val, block_size, 3)
    for number, batch in enumerate(batches.in_order()):
        x, y, _ = windows.rows(3 * number, 3 * number + 3)
        time = x.shape[1]
        np.testing.assert_array_equal(batch.x[: len(x), :time], x)
        np.testing.assert_array_equal(batch.y[: len(y), :time], y)
        assert (batch.y[len(y) :] == IGNORE_INDEX).all()
        assert (batch.y[:, time:] == IGNORE_INDEX).all()
    assert -(-len(windows) // 3) == batches.steps_per_epoch


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_out_of_range_is_refused(stride):
    with pytest.raises(ConfigError, match="stride"):
        Windows(eval_text([20]), 8, stride)
