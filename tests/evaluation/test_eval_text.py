"""Where sequences and documents begin, and inputs that are not text."""

from __future__ import annotations

import gzip
import io
import json

import numpy as np
import pytest

from minigpt.data import Dataset, TokenFile, TokenFileWriter, prepare
from minigpt.errors import DataError
from minigpt.evaluation.eval_text import text_of_sources, text_of_split
from minigpt.tokenizers import make_tokenizer

BYTES = make_tokenizer("byte")
END = BYTES.end_of_text


def test_a_split_is_one_sequence_of_documents(dataset: Dataset):
    text = text_of_split(dataset.val, dataset.tokenizer)
    assert text.sequences.tolist() == [0]
    assert len(text.documents) == dataset.card.val.documents
    ends = np.flatnonzero(dataset.val.tokens == END)
    np.testing.assert_array_equal(text.documents[1:], ends[:-1] + 1)
    assert text.names is None
    assert text.beginning(1).startswith("the ")
    assert len(text.beginning(1)) <= 60
    assert text.bytes_per_token == dataset.val.n_bytes / dataset.val.n_tokens


def test_segments_begin_documents(text_folder, tmp_path):
    prepare([str(text_folder)], tmp_path / "data", tokenizer="byte", split_by="sequence", block_size=64)
    data = Dataset.open(tmp_path / "data")
    text = text_of_split(data.val, data.tokenizer)
    assert data.val.segment_length == 64
    assert set(range(0, data.val.n_tokens, 64)) <= set(text.documents.tolist())


@pytest.mark.parametrize("ids", [[], [65]])
def test_a_split_with_nothing_to_predict_is_refused(tmp_path, ids):
    with TokenFileWriter(tmp_path / "val.tokens", 257, BYTES.identity) as writer:
        writer.append(np.array(ids, dtype=np.uint32), n_documents=1, n_bytes=1)
    with pytest.raises(DataError, match="nothing to predict"):
        text_of_split(TokenFile.open(tmp_path / "val.tokens"), BYTES)


def test_texts_are_read_one_by_one(tmp_path):
    (tmp_path / "a.txt").write_text("ab<|endoftext|>", encoding="utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("é".encode()))
    records = [{"text": "one"}, {"text": ""}, {"text": "two"}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, records)))
    names = [str(tmp_path / name) for name in ("a.txt", "b.txt.gz", "c.jsonl")]
    text = text_of_sources(names, BYTES)
    texts = [b"ab<|endoftext|>", "é".encode(), b"one", b"two"]
    expected = [token for text in texts for token in (END, *text)]  # what stands in a text is never special
    assert text.tokens.tolist() == expected
    assert text.sequences.tolist() == text.documents.tolist() == [0, 16, 19, 23]
    assert text.names == ("a.txt", "b.txt.gz", "c.jsonl:1", "c.jsonl:3")
    assert [text.beginning(number) for number in range(4)] == [text.decode() for text in texts]
    assert text.bytes_per_token == 1


def test_a_tokens_bytes_are_the_texts_own(tmp_path):
    tokenizer = make_tokenizer("char", ["abc"])
    (tmp_path / "a.txt").write_text("añb", encoding="utf-8")  # ñ is unknown, and two bytes all the same
    assert text_of_sources([str(tmp_path / "a.txt")], tokenizer).bytes_per_token == 4 / 3


def test_standard_input_is_a_text(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hello")))
    assert len(text_of_sources(["-"], BYTES).tokens) == 6


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"caf\xe9", "not UTF-8"), (b"a\0b", "binary"), (None, "No such file")]
)
def test_inputs_that_are_not_text_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        text_of_sources([str(tmp_path / "x.txt")], BYTES)
