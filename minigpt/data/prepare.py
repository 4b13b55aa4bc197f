"""Text to a data set: reads twice, splits, encodes, packs, and reports.

    reading      sizes and hashes; copies and empty documents fall out; the split is chosen        (split.py)
    learning     the tokenizer reads the training side, if it is one that learns                   (minigpt.tokenizers)
    encoding     documents to tokens, on all cores, into two token files                           (pack.py,
    token_file.py)
    comparing    how much of validation stands in training                                         (contamination.py)

Memory does not grow with the text, but for 25 bytes a document (some 60 while they are compared). The folder appears
when all is done (atomic_directory.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigpt.data.atomic_directory import atomic_directory
from minigpt.data.card_table import summary
from minigpt.data.dataset import TRAIN_FILE, VAL_FILE
from minigpt.data.dataset_card import DatasetCard
from minigpt.data.documents import SUFFIX, DocumentsWriter
from minigpt.data.pack import PackedPart, draw_sequences, encode_parts, planned_parts
from minigpt.data.prepare_options import PrepareOptions
from minigpt.data.sources import Source, open_sources, source_notes
from minigpt.data.split import LEFT_OUT, TRAIN, Corpus, SplitAssignment, assign_files, assign_split, read_corpus
from minigpt.data.token_file import TokenFile, TokenFileWriter
from minigpt.errors import DataError
from minigpt.source_options import FileFormat, SourceOptions
from minigpt.tokenizers import OnNote, Tokenizer, make_tokenizer, reads_training_text

# Told how far it is: the phase by its name above, how much is done and of how much, None if that is not known yet; in
# bytes of text, when comparing in tokens.
OnProgress = Callable[[str, int, int | None], None]

Names = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def _silent(phase: str, done: int, total: int | None) -> None:
    pass


def _unheard(note: str) -> None:
    pass


class _Calmed:
    """Passes progress on a few times a second, however small the documents are."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress, self._phase, self._last = on_progress, "", 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        now = time.perf_counter()
        if phase != self._phase or done == total or now - self._last > 0.2:
            self._phase, self._last = phase, now
            self._on_progress(phase, done, total)


def prepare(
    sources: Names,
    out: str | os.PathLike[str],
    tokenizer: str = "gpt2",
    val_fraction: float | None = None,
    split_by: str = "document",
    block_size: int = 512,
    seed: int = 0,
    on_progress: OnProgress = _silent,
    *,
    on_note: OnNote = _unheard,
    val: Names = (),
    pattern: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    format: FileFormat | None = None,
    text_column: str = "text",
    split_at: str | None = None,
    split_lines: bool = False,
) -> DatasetCard:
    """Makes a data set from text.

    Args:
        sources: what to read: names as in `minigpt.data.sources.SOURCES`, or one such name.
        out: the folder to make. It must not exist, and appears only when everything went well.
        tokenizer: `gpt2`, `char`, `byte`, `bpe:N` for a vocabulary of N ids learned from the training side, or the
            folder of a run or data set, whose tokenizer is then used.
        val_fraction: the share of the text that validates, above 0 and at most 0.5; a tenth when left out.
        split_by: `document`: every document is on one side (or the end of the text validates, where documents are
            too few). `sequence`: sequences of `block_size` tokens are drawn; documents then stand on both sides.
        block_size: the sequence length that `split_by="sequence"` cuts and that the report counts in. Training may
            use another.
        seed: decides the split, 0 to 2^63 - 1.
        on_progress: told how far it is, a few times a second.
        on_note: told at once what is not taken of the text to learn the tokenizer from; it is among the report's notes,
            too.
        val: validation files of your own, named as the sources are, instead of a share of these. They validate whole;
            a document of the sources that is in them, too, is left out of training.
        pattern: which files of a folder to read, as `*.py`; without one, those that are text by their names.
        exclude: files and folders inside of a folder to leave out, as `drafts` or `*.log`.
        format: what to read every file as; else its name and its first bytes decide.
        text_column: the column or field of records that holds the text.
        split_at: begin a new document wherever this string stands; the string itself goes.
        split_lines: make each line a document.

    Returns:
        The report, also saved as meta.json.

    Raises:
        ConfigError: an argument makes no sense.
        TokenizerError: there is no such tokenizer.
        DataError: a source cannot be read or is no text, there is too little text, `out` exists or cannot be written.
    """
    names, val_names = _several(sources), _several(val)
    reading = SourceOptions(
        pattern=_several(pattern),
        exclude=_several(exclude),
        format=format,
        text_column=text_column,
        split_at=split_at,
        split_lines=split_lines,
    )
    settings = PrepareOptions(names, val_names, tokenizer, val_fraction, split_by, block_size, seed)
    on_progress = _Calmed(on_progress)
    started = time.perf_counter()
    with (
        atomic_directory(Path(out)) as folder,
        open_sources([*names, *val_names], reading) as opened,
    ):
        own, val_own = opened[: len(names)], opened[len(names) :]
        corpus = read_corpus(own, lambda done: on_progress("reading", done, None), val_own)
        _check_text(corpus, settings)
        plan = _plan(corpus, settings)
        notes: list[str] = []

        def note(text: str) -> None:
            notes.append(text)
            on_note(text)

        made = _make_tokenizer(opened, corpus, plan, settings, on_progress, note)
        made.save(folder)
        parts = _counted(planned_parts(opened, corpus, plan), "encoding", corpus.text_bytes, on_progress)
        pack = _pack_sequences if split_by == "sequence" else _pack_documents
        seen, n_unknown = pack(folder, parts, made, settings)
        report = summary(folder, corpus, plan, made, settings, seen, n_unknown, started, on_progress)
        report = replace(
            report,
            left_out=tuple(words for source in opened for words in source.findings.left_out),
            reading=reading,
            notes=(*report.notes, *notes, *source_notes(opened, reading)),
        )
        report.save(folder)
    return report


def _several(names: Names) -> tuple[str, ...]:
    return tuple(os.fspath(name) for name in ([names] if isinstance(names, str | os.PathLike) else names))


def _check_text(corpus: Corpus, settings: PrepareOptions) -> None:
    """Raises DataError if a side that the user named has no text."""
    train, val = np.split(corpus.kept, [corpus.first_val])
    if settings.val_names and not val.any():
        seen, remedy = ", ".join(settings.val_names), "Name files that hold some with --val."
        raise DataError("There is no text to validate on", got=seen, remedy=remedy)
    if not train.any():
        what = "There is no text"
        if corpus.validated:
            what = "All of the text is in the validation files too, and none is left to train on"
        raise DataError(what, got=", ".join(settings.names), remedy="Name sources that hold some.")


def _plan(corpus: Corpus, settings: PrepareOptions) -> SplitAssignment:
    if settings.val_names:
        return assign_files(corpus)
    if settings.split_by == "document":
        return assign_split(corpus, settings.share, settings.seed)
    sides = np.where(corpus.kept, TRAIN, LEFT_OUT).astype(np.uint8)  # drawn later, from the tokens
    note = "Sequences were drawn at random: documents stand on both sides, and validation looks easier than it is."
    return SplitAssignment("sequence", sides, note=note)


def _make_tokenizer(
    opened: Sequence[Source],
    corpus: Corpus,
    plan: SplitAssignment,
    settings: PrepareOptions,
    on_progress: OnProgress,
    on_note: OnNote,
) -> Tokenizer:
    if not reads_training_text(settings.tokenizer):
        return make_tokenizer(settings.tokenizer)
    parts = _counted(planned_parts(opened, corpus, plan), "learning", corpus.text_bytes, on_progress)
    return make_tokenizer(settings.tokenizer, (part.text for part in parts if part.side == TRAIN), on_note)


def _counted(parts: Iterator[PackedPart], phase: str, total: int, on_progress: OnProgress) -> Iterator[PackedPart]:
    """The same parts, with the progress reported as they go by."""
    done = 0
    for part in parts:
        yield part
        done += part.n_bytes
        on_progress(phase, done, total)


def _pack_documents(
    folder: Path, parts: Iterator[PackedPart], tokenizer: Tokenizer, settings: PrepareOptions
) -> tuple[npt.NDArray[np.bool_], int]:
    """Writes both token files. Returns which ids occur in training, and how many characters are unknown."""
    seen, n_unknown = np.zeros(tokenizer.vocab_size, dtype=bool), 0
    with (
        TokenFileWriter(folder / TRAIN_FILE, tokenizer.vocab_size, tokenizer.identity) as train,
        TokenFileWriter(folder / VAL_FILE, tokenizer.vocab_size, tokenizer.identity) as val,
        DocumentsWriter((folder / TRAIN_FILE).with_suffix(SUFFIX)) as train_names,
        DocumentsWriter((folder / VAL_FILE).with_suffix(SUFFIX)) as val_names,
    ):
        for sides in encode_parts(_named(parts, (train_names, val_names)), tokenizer):
            for packed, writer in zip(sides, (train, val), strict=True):
                writer.append(packed.ids, n_documents=packed.n_documents, n_bytes=packed.n_bytes)
                n_unknown += packed.n_unknown
            seen[sides[TRAIN].ids] = True
    return seen, n_unknown


def _named(parts: Iterator[PackedPart], names: tuple[DocumentsWriter, DocumentsWriter]) -> Iterator[PackedPart]:
    """The same parts, with the names of the documents that end with them written down."""
    for part in parts:
        if part.end:
            names[part.side].add(part.origin)
        yield part


def _pack_sequences(
    folder: Path, parts: Iterator[PackedPart], tokenizer: Tokenizer, settings: PrepareOptions
) -> tuple[npt.NDArray[np.bool_], int]:
    """As `_pack_documents`, by way of one file with all tokens, which is removed again."""
    whole, n_unknown, segment_length = folder / "all.tokens", 0, settings.block_size
    size, identity = tokenizer.vocab_size, tokenizer.identity
    with TokenFileWriter(whole, size, identity, segment_length) as writer:
        for packed, _ in encode_parts(parts, tokenizer):
            writer.append(packed.ids, n_documents=packed.n_documents, n_bytes=packed.n_bytes)
            n_unknown += packed.n_unknown
    with (
        TokenFileWriter(folder / TRAIN_FILE, size, identity, segment_length) as train,
        TokenFileWriter(folder / VAL_FILE, size, identity, segment_length) as val,
    ):
        shard = TokenFile.open(whole, verify=False)
        seen = draw_sequences(shard, train, val, tokenizer, settings.share, settings.seed)
    del shard  # Windows removes no file that is mapped
    whole.unlink()
    return seen, n_unknown
