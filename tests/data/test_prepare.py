"""Preparing from end to end: what is in the folder, what is not, and that it is all there or nothing."""

from __future__ import annotations

import errno
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigpt.data import BatchLoader, Dataset, DatasetCard, TokenFileWriter, prepare
from minigpt.errors import ConfigError, DataError, TokenizerError
from minigpt.tokenizers import make_tokenizer


def story(number: int) -> str:
    """Some lines of text; another for every number, with words from several scripts."""
    chance = random.Random(number)
    words = ["the", "a", "cat", "dog", "Größe", "мир", "世界", "runs", "sees,", "likes.", "«ça»\n", "<|endoftext|>"]
    return f"Story {number}:" + "".join(" " + chance.choice(words) for _ in range(chance.randrange(40, 160))) + "\r\n"


STORIES = [story(number) for number in range(40)]


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """Forty documents, two copies and an empty one, as JSON lines."""
    file = tmp_path / "stories.jsonl"
    texts = [*STORIES[:30], STORIES[3], " \n", *STORIES[30:], STORIES[39]]
    file.write_bytes(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
    return file


def documents(dataset: Dataset, split: str) -> list[str]:
    """The texts of one split, decoded."""
    tokens = getattr(dataset, split).tokens
    ends = np.flatnonzero(tokens == dataset.tokenizer.end_of_text)
    assert ends[-1] == len(tokens) - 1
    return [dataset.tokenizer.decode(tokens[a:b]) for a, b in zip([0, *(ends[:-1] + 1)], ends, strict=True)]


@pytest.mark.parametrize("tokenizer", ["gpt2", "byte", "char", "bpe:400"])
def test_every_document_is_in_one_split_and_nothing_is_lost(stories: Path, tmp_path: Path, tokenizer: str):
    card = prepare(str(stories), tmp_path / "out", tokenizer, block_size=64)
    dataset = Dataset.open(tmp_path / "out")
    train, val = documents(dataset, "train"), documents(dataset, "val")
    assert sorted(train + val) == sorted(STORIES)
    assert [text for text in STORIES if text in train] == train  # in the order of reading
    assert dataset.card == card
    assert (card.documents, card.duplicates, card.empty, card.split) == (40, 2, 1, "document")
    assert (card.train.documents, card.val.documents) == (len(train), len(val))
    assert card.val.text_bytes == sum(len(text.encode()) for text in val)
    assert 0.05 < card.val.text_bytes / card.text_bytes < 0.15
    assert card.train.tokens == dataset.train.n_tokens
    assert card.train.sequences == BatchLoader(dataset.train, 64, 1).n_sequences
    assert card.vocab_in_train == len(np.unique(dataset.train.tokens))
    assert card.disk_bytes == sum((tmp_path / "out" / f).stat().st_size for f in ("train.tokens", "val.tokens"))
    assert card.unknown_characters == 0


@pytest.mark.parametrize("copied", [0, 1])
def test_every_document_is_named_by_its_file_and_line(stories: Path, tmp_path: Path, copied: int):
    (tmp_path / "more").mkdir()
    for number in range(5):
        (tmp_path / "more" / f"{number}.txt").write_bytes(STORIES[copied].encode() + b"%d" % number)
    prepare([str(stories), str(tmp_path / "more")], tmp_path / "out", "byte", val_fraction=0.3, block_size=64)
    dataset = Dataset.open(tmp_path / "out")
    lines = [json.loads(line)["text"] for line in stories.read_text().splitlines()]
    texts = {f"stories.jsonl:{number}": text for number, text in enumerate(lines, start=1)}
    texts |= {f"more/{number}.txt": f"{STORIES[copied]}{number}" for number in range(5)}
    for split in ("train", "val"):
        names = dataset.documents(getattr(dataset, split))
        assert names is not None
        assert [texts[name] for name in names] == documents(dataset, split)
    assert str(tmp_path) not in "".join(file.read_text() for file in (tmp_path / "out").glob("*.documents"))


def test_a_document_that_is_cut_in_two_has_its_name_in_both_splits(tmp_path: Path):
    (tmp_path / "one.txt").write_text("some words " * 200)
    prepare(str(tmp_path / "one.txt"), tmp_path / "out", "byte", block_size=64)
    dataset = Dataset.open(tmp_path / "out")
    assert [list(dataset.documents(token_file) or ()) for token_file in (dataset.train, dataset.val)] == [
        ["one.txt"]
    ] * 2
    (tmp_path / "out" / "val.documents").write_bytes(b"")
    with pytest.raises(DataError, match=r"val\.documents is damaged.*Remove it"):
        dataset.documents(dataset.val)
    (tmp_path / "out" / "val.documents").unlink()
    assert dataset.documents(dataset.val) is None


def test_own_validation_files_validate_whole(stories: Path, tmp_path: Path):
    own = [STORIES[5], STORIES[6], "A text of validation only. " * 9, "", STORIES[5]]
    val = tmp_path / "val.jsonl"
    val.write_text("".join(json.dumps({"text": text}) + "\n" for text in own))
    (tmp_path / "more.txt").write_text("and more")
    names = [str(val), str(tmp_path / "more.txt")]
    card = prepare(str(stories), tmp_path / "out", "bpe:300", block_size=64, val=names)
    dataset = Dataset.open(tmp_path / "out")
    assert documents(dataset, "val") == [*filter(None, own), "and more"]  # a copy in them, too
    assert documents(dataset, "train") == [text for text in STORIES if text not in own]
    assert (card.split, card.sources, card.val_sources) == ("files", (str(stories),), tuple(names))
    assert (card.also_in_val, card.duplicates, card.empty, card.val_fraction) == (2, 2, 2, None)
    assert card.notes[0] == "Dropped from training: 2 documents also in the validation files."
    rows = dict(card.rows())
    assert rows["validation from"] == ", ".join(names)
    assert rows["split"] == "your own validation files"
    assert rows["documents"] == "43 (dropped: 2 duplicates, 2 empty, 2 also in validation)"
    assert b"validation only" not in (tmp_path / "out" / "tokenizer.json").read_bytes()
    assert list(dataset.documents(dataset.val) or ()) == [*(f"val.jsonl:{n}" for n in (1, 2, 3, 5)), "more.txt"]
    assert card.contamination == 0.0
    assert prepare(str(stories), tmp_path / "again", "bpe:300", block_size=64, val=names).train == card.train


def test_a_copy_of_a_copy_that_validates_is_counted_once(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ["x" * 99, "y", "y", "y"]))
    (tmp_path / "v.txt").write_text("y")
    card = prepare(str(tmp_path / "a.jsonl"), tmp_path / "out", "byte", block_size=8, val=str(tmp_path / "v.txt"))
    assert (card.also_in_val, card.duplicates, card.documents) == (3, 0, 2)
    assert "have only 2 tokens: the validation loss will be noisy" in card.notes[1]


def test_contamination_of_own_validation_files_is_noted(stories: Path, tmp_path: Path):
    (tmp_path / "v.txt").write_bytes("".join(STORIES[:9]).encode())
    card = prepare(str(stories), tmp_path / "out", "byte", block_size=64, val=str(tmp_path / "v.txt"))
    assert card.also_in_val == 0
    assert card.contamination > 0.9
    assert any("also occurs in training" in note for note in card.notes)


@pytest.mark.parametrize(
    ("changes", "content", "error", "words"),
    [
        ({"val_fraction": 0.1}, "new", ConfigError, "nothing is drawn.*Leave out --val-fraction"),
        ({"split_by": "sequence"}, "new", ConfigError, "nothing is drawn.*Leave out --split-by"),
        ({}, " \n", DataError, r"no text for validation.*v\.txt"),
        ({}, STORIES[0], DataError, "All of the text is also in the validation files"),
    ],
)
def test_validation_files_that_make_no_sense_are_refused(tmp_path: Path, changes, content: str, error, words: str):
    (tmp_path / "v.txt").write_bytes(content.encode())
    (tmp_path / "a.txt").write_bytes(STORIES[0].encode())
    with pytest.raises(error, match=words):
        prepare(str(tmp_path / "a.txt"), tmp_path / "out", "byte", block_size=8, val=str(tmp_path / "v.txt"), **changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "v.txt"]


def test_the_same_text_and_seed_give_the_same_files(stories: Path, tmp_path: Path):
    for out, seed in (("a", 5), ("b", 5), ("c", 6)):
        prepare([str(stories)], tmp_path / out, "bpe:300", block_size=64, seed=seed)
    a, b, c = ((tmp_path / out / "train.tokens").read_bytes() for out in "abc")
    assert a == b != c


def test_the_tokenizer_learns_from_the_training_split_only(tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("abc def " * 200 + "ghi " * 30)
    card = prepare(str(text), tmp_path / "out", "char", block_size=64)
    assert Dataset.open(tmp_path / "out").tokenizer.decode([0, 1, 2, 3, 4, 5, 6]) == " abcdef"
    assert card.unknown_characters > 80
    assert "that training does not have: they all become the unknown token" in card.notes[1]


def test_few_documents_are_cut_at_the_end(tmp_path: Path):
    text = tmp_path / "one.txt"
    text.write_bytes("".join(STORIES).encode())
    card = prepare(str(text), tmp_path / "out", block_size=64)
    dataset = Dataset.open(tmp_path / "out")
    (train,), (val,) = documents(dataset, "train"), documents(dataset, "val")
    assert train + val == "".join(STORIES)
    assert (card.split, card.documents) == ("tail", 1)
    assert "fewer than 10 documents" in card.notes[0]
    assert abs(card.val.text_bytes / card.text_bytes - 0.1) < 0.01
    whole = make_tokenizer("gpt2").encode("".join(STORIES))
    assert card.tokens == len(whole) + 2  # cut where the tokenizer splits anyway


def test_sequences_are_drawn_from_the_packed_tokens(stories: Path, tmp_path: Path):
    card = prepare(str(stories), tmp_path / "out", "byte", split_by="sequence", block_size=32, val_fraction=0.25)
    dataset = Dataset.open(tmp_path / "out")
    packed = np.concatenate([[*text.encode(), 256] for text in STORIES])
    n_whole = len(packed) // 32
    rows = [tuple(row) for row in packed[: n_whole * 32].reshape(-1, 32)]
    val = [tuple(row) for row in dataset.val.tokens.reshape(-1, 32)]
    train = [tuple(row) for row in dataset.train.tokens[: (n_whole - len(val)) * 32].reshape(-1, 32)]
    assert sorted(train + val) == sorted(rows)
    assert len(val) == round(0.25 * n_whole)
    assert dataset.train.tokens[len(train) * 32 :].tolist() == packed[n_whole * 32 :].tolist()
    assert dataset.train.segment_length == dataset.val.segment_length == 32
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("meta.json", "tokenizer_config.json", "train.tokens", "val.tokens"),
    ]
    assert (card.split, card.train.documents + card.val.documents) == ("sequence", 40)
    assert card.text_bytes == sum(len(text.encode()) for text in STORIES)
    assert "both splits" in card.notes[0]


def test_a_long_document_in_pieces_gives_the_ids_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minigpt.data.chunks.CHUNK_CHARACTERS", 50)
    monkeypatch.setattr("minigpt.data.opening.BLOCK_BYTES", 33)
    monkeypatch.setattr("minigpt.data.pack.JOB_BYTES", 200)
    folder = tmp_path / "text"
    folder.mkdir()
    for number, text in enumerate(STORIES):
        (folder / f"{number:02d}.txt").write_bytes(text.encode())
    prepare(str(folder), tmp_path / "out", block_size=64)
    dataset = Dataset.open(tmp_path / "out")
    tokenizer = make_tokenizer("gpt2")
    for split in ("train", "val"):
        whole = [[*tokenizer.encode(text), tokenizer.end_of_text] for text in documents(dataset, split)]
        assert getattr(dataset, split).tokens.tolist() == [int(token) for ids in whole for token in ids]


def test_contamination_is_reported(tmp_path: Path):
    folder = tmp_path / "text"
    folder.mkdir()
    licence = "".join(STORIES[:20])
    for number in range(20):
        (folder / f"{number}.txt").write_text(licence + f"\n\nNumber {number}.", encoding="utf-8")
    card = prepare(str(folder), tmp_path / "out", "byte", block_size=64)
    assert card.duplicates == 0
    assert card.contamination > 0.9
    assert "also occurs in training" in " ".join(card.notes)


def test_a_vocabulary_larger_than_the_text_says_so(stories: Path, tmp_path: Path):
    card = prepare(str(stories), tmp_path / "out", "bpe:9000", block_size=64)
    assert card.vocab_size < 9000
    assert f"The text gave {card.vocab_size:,} ids, not 9,000" in card.notes[0]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"val_fraction": 0}, ConfigError, "validation fraction"),
        ({"val_fraction": 0.6}, ConfigError, "validation fraction"),
        ({"val_fraction": float("nan")}, ConfigError, "validation fraction"),
        ({"split_by": "word"}, ConfigError, "document, sequence"),
        ({"block_size": 0}, ConfigError, "block size"),
        ({"seed": -3}, ConfigError, r"seed.*-3.*2\^63"),
        ({"seed": 2**63}, ConfigError, "seed"),
        ({"sources": []}, ConfigError, "nothing to prepare"),
        ({"tokenizer": "gpt3"}, TokenizerError, "Did you mean gpt2"),
        ({"block_size": 100_000}, DataError, "too little text.*100,001"),
        ({"sources": ["nowhere.txt"]}, DataError, "No such file"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(stories: Path, tmp_path: Path, changes, error, words):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=words):
        prepare(**({"sources": [str(stories)], "out": tmp_path / "new/out"} | changes))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", ["", "   \n", "x"])
def test_hardly_any_text_is_refused(tmp_path: Path, content: str):
    text = tmp_path / "text.txt"
    text.write_text(content)
    with pytest.raises(DataError, match=r"There is no text|too little text"):
        prepare(str(text), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [text]


def test_an_existing_output_is_left_alone(stories: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="already exists"):
        prepare(str(stories), out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("phase", ["reading", "learning", "encoding", "comparing"])
def test_stopped_at_any_time_it_leaves_nothing(stories: Path, tmp_path: Path, phase: str):
    def stop(now: str, done: int, total: int | None) -> None:
        if now == phase:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(str(stories), tmp_path / "out", "bpe:300", block_size=64, on_progress=stop)
    assert list(tmp_path.iterdir()) == [stories]


def test_a_full_disk_is_named_and_leaves_nothing(stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: TokenFileWriter, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TokenFileWriter, "append", full)
    with pytest.raises(DataError, match="disk is full"):
        prepare(str(stories), tmp_path / "out", block_size=64)
    assert list(tmp_path.iterdir()) == [stories]


def test_progress_is_told_in_order(stories: Path, tmp_path: Path):
    calls: list[tuple[str, int, int | None]] = []
    prepare(str(stories), tmp_path / "out", "char", block_size=64, on_progress=lambda *now: calls.append(now))
    assert list(dict.fromkeys(phase for phase, _, _ in calls)) == ["reading", "learning", "encoding", "comparing"]
    assert all(total is None or 0 <= done <= total for _, done, total in calls)


def test_a_data_set_whose_parts_do_not_belong_together_is_refused(stories: Path, tmp_path: Path):
    prepare(str(stories), tmp_path / "a", "char", block_size=64)
    with pytest.raises(DataError, match=r"No such data set.*minigpt prepare"):
        Dataset.open(tmp_path / "b")
    with pytest.raises(DataError, match="Not a data set"):
        Dataset.open(tmp_path)
    make_tokenizer("byte").save(tmp_path / "a")
    with pytest.raises(TokenizerError, match="was made by another tokenizer"):
        Dataset.open(tmp_path / "a")
    (tmp_path / "a" / "meta.json").unlink()
    with pytest.raises(DataError, match=r"has no meta\.json"):
        Dataset.open(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda meta: meta[:-9], "damaged"),
        (lambda meta: b"[]", "damaged"),
        (lambda meta: meta.replace(b'"seed"', b'"sead"'), "damaged"),
        (lambda meta: meta.replace(b'"format": 3', b'"format": 9'), "newer Mini-GPT"),
        (lambda meta: meta.replace(b'"format": 3', b'"format": 1'), "an older Mini-GPT.*Prepare the data again"),
    ],
)
def test_a_damaged_report_is_refused(stories: Path, tmp_path: Path, change, words: str):
    prepare(str(stories), tmp_path / "out", "byte", block_size=64)
    meta = tmp_path / "out" / "meta.json"
    meta.write_bytes(change(meta.read_bytes()))
    with pytest.raises(DataError, match=words):
        DatasetCard.load(tmp_path / "out")


def test_neither_torch_nor_the_extras_are_imported():
    code = (
        "import sys, minigpt.data, minigpt.tokenizers\n"
        "print({'torch', 'pyarrow', 'datasets', 'tokenizers', 'tiktoken'} & set(sys.modules) or 'none')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "none"


def test_a_data_set_inside_its_source_folder_is_noted(tmp_path: Path):
    for number, text in enumerate(STORIES[:12]):
        (tmp_path / f"{number}.txt").write_bytes(text.encode())
    card = prepare(str(tmp_path), tmp_path / "data", "byte", block_size=64)
    assert any("data is inside the source folder" in note for note in card.notes)
    assert prepare(str(tmp_path), tmp_path / "again", "byte", block_size=64).documents == 12
