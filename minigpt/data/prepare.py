"""Text to a data set: two passes over the text, a split, token files, and a dataset card.

    reading      sizes and hashes; duplicates and empty documents are dropped; the split is chosen     (split.py)
    learning     the tokenizer is trained on the training split, if it is one that learns    (minigpt.tokenizers)
    encoding     documents to tokens, on all cores, into two token files                     (pack.py, token_file.py)
    comparing    how much of validation also occurs in training                              (contamination.py)

Memory does not grow with the text, except for 25 bytes a document (some 60 while they are compared). The folder appears
when all is done (minigpt/atomic.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt.atomic import atomic_directory
from minigpt.data.contamination import contamination
from minigpt.data.dataset import TRAIN_FILE, VAL_FILE
from minigpt.data.dataset_card import DatasetCard, SplitCard
from minigpt.data.pack import AssignedText, PackCounts, assigned_text, pack_documents, pack_sequences
from minigpt.data.sources import Source, open_sources, source_notes
from minigpt.data.split import DROPPED, TRAIN, Corpus, SplitAssignment, assign_documents, assign_files, read_corpus
from minigpt.data.token_file import TokenFile
from minigpt.errors import ConfigError, DataError
from minigpt.source_options import FileFormat, SourceOptions
from minigpt.text_utils import pluralize
from minigpt.tokenizers import OnNote, Tokenizer, make_tokenizer, reads_training_text

OnProgress = Callable[[str, int, int | None], None]
"""Called with the name of the phase, as above, how much is done, and of how much, None if that is not known yet: in
bytes of text, when comparing in tokens."""

Names = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

SPLITS = ("document", "sequence")
VAL_FRACTION = 0.1
PROGRESS_SECONDS = 0.2
HIGH_CONTAMINATION = 0.05


@dataclass(frozen=True)
class PrepareOptions:
    """The arguments of `prepare`, as explained there.

    Raises:
        ConfigError: one is invalid, or contradicts another.
        TokenizerError: there is no such tokenizer.
    """

    sources: tuple[str, ...]
    val_sources: tuple[str, ...]
    tokenizer: str
    val_fraction: float | None
    split_by: str
    block_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("There is nothing to prepare", remedy="Name a file, a folder, hf:owner/name, or pylib.")
        if self.val_sources and (self.val_fraction is not None or self.split_by != "document"):
            option = (
                f"--split-by {self.split_by}" if self.val_fraction is None else f"--val-fraction {self.val_fraction}"
            )
            what = "With validation files of your own, nothing is drawn from the other text"
            raise ConfigError(what, got=option, remedy=f"Leave out {option.split()[0]}, or --val.")
        if not 0 < self.share <= 0.5:
            what = "The validation fraction must be greater than 0 and at most 0.5"
            raise ConfigError(what, got=self.share, remedy="The default is 0.1; 0.01 is enough for gigabytes.")
        if self.split_by not in SPLITS:
            raise ConfigError("Unknown way to split", got=self.split_by, remedy=f"Choose one of {', '.join(SPLITS)}.")
        if self.block_size < 1:
            raise ConfigError("The block size must be positive", got=self.block_size, remedy="The default is 512.")
        if not 0 <= self.seed < 2**63:
            raise ConfigError("The seed is out of range", got=self.seed, remedy="Give a number from 0 to 2^63 - 1.")
        reads_training_text(self.tokenizer)  # raises now, not after a pass over the text, if the spec is invalid

    @property
    def share(self) -> float:
        """The share of the text to draw for validation."""
        return VAL_FRACTION if self.val_fraction is None else self.val_fraction


class _Throttled:
    """Passes progress on a few times a second, however small the documents are."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress, self._phase, self._last = on_progress, "", 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        now = time.perf_counter()
        if phase != self._phase or done == total or now - self._last > PROGRESS_SECONDS:
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
    on_progress: OnProgress = lambda phase, done, total: None,
    *,
    on_note: OnNote = lambda note: None,
    val: Names = (),
    pattern: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    format: FileFormat | None = None,
    text_column: str | Sequence[str] = "text",
    split_at: str | None = None,
    split_lines: bool = False,
) -> DatasetCard:
    """Makes a data set from text.

    Args:
        sources: what to read: names as in `minigpt.data.sources.SOURCES`, or one such name.
        out: the folder to make. It must not exist, and appears only when everything went well.
        tokenizer: `gpt2`, `char`, `byte`, `bpe:N` for a vocabulary of N ids learned from the training split, or the
            folder of a run or data set, to use its tokenizer.
        val_fraction: the share of the text for validation, above 0 and at most 0.5; 0.1 by default.
        split_by: `document`: each document is in one split (or validation is the end of the text, where documents are
            too few). `sequence`: sequences of `block_size` tokens are drawn; documents are then in both splits.
        block_size: the sequence length that `split_by="sequence"` cuts and that the card counts in. Training may use
            another.
        seed: decides the split, 0 to 2^63 - 1.
        on_progress: called a few times a second.
        on_note: called at once with what of the text is not used to train the tokenizer; also among the card's notes.
        val: validation files of your own, named as the sources are, instead of a share of these. They are used whole; a
            document of the sources that is also in them is dropped from training.
        pattern: which files of a folder to read, as `*.py`; by default those that are text by their names.
        exclude: files and folders inside a folder to skip, as `drafts` or `*.log`.
        format: what to read every file as; by default its name and its first bytes decide.
        text_column: the column or field of records that holds the text; of several, the first that a record has.
        split_at: start a new document at each occurrence of this string, which is dropped.
        split_lines: make each line a document.

    Returns:
        The dataset card, also saved as meta.json.

    Raises:
        ConfigError: an argument is invalid.
        TokenizerError: there is no such tokenizer.
        DataError: a source cannot be read or is not text, there is too little text, `out` exists or cannot be written.
    """
    source_options = SourceOptions(
        pattern=_names(pattern),
        exclude=_names(exclude),
        format=format,
        text_column=_names(text_column),
        split_at=split_at,
        split_lines=split_lines,
    )
    options = PrepareOptions(_names(sources), _names(val), tokenizer, val_fraction, split_by, block_size, seed)
    on_progress = _Throttled(on_progress)
    started = time.perf_counter()
    learning_notes: list[str] = []

    def note(text: str) -> None:
        learning_notes.append(text)
        on_note(text)

    with (
        atomic_directory(Path(out)) as folder,
        open_sources([*options.sources, *options.val_sources], source_options) as opened,
    ):
        own, val_own = opened[: len(options.sources)], opened[len(options.sources) :]
        corpus = read_corpus(own, lambda done: on_progress("reading", done, None), val_own)
        assignment = _assign(corpus, options)

        def text(phase: str) -> Iterator[AssignedText]:
            done = 0
            for part in assigned_text(opened, corpus, assignment):
                yield part
                done += part.n_bytes
                on_progress(phase, done, corpus.text_bytes)

        training_text = (part.text for part in text("learning") if part.split == TRAIN)
        made = make_tokenizer(tokenizer, training_text, note)
        made.save(folder)
        if split_by == "sequence":
            counts = pack_sequences(folder, text("encoding"), made, block_size, options.share, seed)
        else:
            counts = pack_documents(folder, text("encoding"), made)
        share, n_windows = _contamination(folder, block_size, on_progress)
        train_card, val_card = (_split_card(folder / name, block_size) for name in (TRAIN_FILE, VAL_FILE))
        notes = [
            *_notes(corpus, assignment, options, made, counts, share, val_card.tokens),
            *learning_notes,
            *source_notes(opened, source_options),
            *_location_notes(opened, Path(out)),
        ]
        card = DatasetCard(
            sources=options.sources,
            val_sources=options.val_sources,
            tokenizer=made.spec,
            vocab_size=made.vocab_size,
            vocab_in_train=counts.ids_in_train,
            block_size=block_size,
            seed=seed,
            val_fraction=None if options.val_sources else options.share,
            split_by=split_by,
            split=assignment.method,
            documents=corpus.n_documents,
            duplicates=corpus.duplicates,
            empty=corpus.empty,
            also_in_val=corpus.also_in_val,
            unknown_characters=counts.unknown_characters,
            contamination=share,
            contamination_windows=n_windows,
            disk_bytes=sum((folder / name).stat().st_size for name in (TRAIN_FILE, VAL_FILE)),
            seconds=time.perf_counter() - started,
            train=train_card,
            val=val_card,
            notes=tuple(notes),
            skipped=tuple(words for source in opened for words in source.skipped),
            source_options=source_options,
        )
        card.save(folder)
    return card


def _names(names: Names) -> tuple[str, ...]:
    return tuple(os.fspath(name) for name in ([names] if isinstance(names, str | os.PathLike) else names))


def _assign(corpus: Corpus, options: PrepareOptions) -> SplitAssignment:
    """Chooses the split. Raises DataError if a split that the user named has no text."""
    train, val = np.split(corpus.used, [corpus.first_val])
    if options.val_sources and not val.any():
        got = ", ".join(options.val_sources)
        raise DataError("There is no text for validation", got=got, remedy="Name files that have some with --val.")
    if not train.any():
        what = "There is no text"
        if corpus.also_in_val:
            what = "All of the text is also in the validation files, so that none is left to train on"
        raise DataError(what, got=", ".join(options.sources), remedy="Name sources that have some.")
    if options.val_sources:
        return assign_files(corpus)
    if options.split_by == "document":
        return assign_documents(corpus, options.share, options.seed)
    splits = np.where(corpus.used, TRAIN, DROPPED).astype(np.uint8)  # drawn later, from the tokens
    note = (
        "Sequences were drawn at random: documents are in both splits, and validation loss is lower than on new text."
    )
    return SplitAssignment("sequence", splits, note=note)


def _contamination(folder: Path, block_size: int, on_progress: OnProgress) -> tuple[float, int]:
    """Compares the splits. Raises DataError if there is too little to train on.

    The token files are closed when it returns: Windows neither removes nor renames a folder with mapped files.
    """
    train, val = (TokenFile.open(folder / name, verify=False) for name in (TRAIN_FILE, VAL_FILE))
    n_train, n_val = train.n_tokens, val.n_tokens
    if n_train <= block_size or n_val < 2:
        del train, val
        raise DataError(
            f"There is too little text: one training sequence needs {block_size + 1:,} tokens, validation 2",
            got=f"{n_train:,} training and {n_val:,} validation tokens",
            remedy="Prepare more text, or shorter sequences: a smaller --block-size here and --model.block-size later.",
        )
    return contamination(train, val, lambda done: on_progress("comparing", done, n_train))


def _split_card(path: Path, block_size: int) -> SplitCard:
    split = TokenFile.open(path, verify=False)
    return SplitCard(split.n_documents, split.n_bytes, split.n_tokens, -(-(split.n_tokens - 1) // block_size))


def _notes(
    corpus: Corpus,
    assignment: SplitAssignment,
    options: PrepareOptions,
    tokenizer: Tokenizer,
    counts: PackCounts,
    share: float,
    val_tokens: int,
) -> Iterator[str]:
    learned = reads_training_text(options.tokenizer)
    if assignment.note:
        yield assignment.note
    if corpus.also_in_val:
        dropped = pluralize(corpus.also_in_val, "document")
        yield f"Dropped from training: {dropped} also in the validation files."
    if assignment.method == "files" and val_tokens <= options.block_size:
        yield f"The validation files have only {pluralize(val_tokens, 'token')}: the validation loss will be noisy."
    if assignment.method == "sequence" and learned:
        yield "The tokenizer was trained on all of the text, validation included, before the sequences were drawn."
    wanted = int(tokenizer.spec.partition(":")[2] or 0)
    if learned and wanted > tokenizer.vocab_size:
        yield f"The text gave {tokenizer.vocab_size:,} ids, not {wanted:,}: the model's vocabulary will be that small."
    if counts.unknown_characters:
        unknown = pluralize(counts.unknown_characters, "character")
        yield f"Validation has {unknown} that training does not have: they all become the unknown token."
    if share > HIGH_CONTAMINATION:
        yield f"{share:.0%} of validation also occurs in training: its loss will be lower than on new text."


def _location_notes(sources: Sequence[Source], out: Path) -> Iterator[str]:
    for source in sources:
        if source.kind == "folder" and Path(source.name).resolve() in out.resolve().parents:
            yield f"{out} is inside the source folder {source.name}. Mini-GPT does not read its own data sets as text."
