"""Text to a data set: reads twice, splits, encodes, packs, and reports.

    reading      sizes and hashes; copies and empty documents fall out; the split is chosen        (plan.py)
    learning     the tokenizer reads the training side, if it is one that learns                   (minigpt.tokenizers)
    encoding     documents to tokens, on all cores, into two token files                           (pack.py, shards.py)
    comparing    how much of validation stands in training                                         (overlap.py)

Memory does not grow with the text, but for 25 bytes a document (some 60 while they are compared). The folder appears
when all is done (folder.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigpt.characters import counted
from minigpt.data.dataset import TRAIN_FILE, VAL_FILE
from minigpt.data.folder import new_folder
from minigpt.data.overlap import overlap
from minigpt.data.pack import Part, draw_sequences, encode_parts, planned_parts
from minigpt.data.plan import LEFT_OUT, TRAIN, Corpus, Plan, plan_split, read_corpus
from minigpt.data.report import Report, SplitReport
from minigpt.data.shards import Shard, ShardWriter
from minigpt.data.sources import Source, open_sources, source_notes
from minigpt.errors import ConfigError, DataError
from minigpt.source_options import FileFormat, SourceOptions
from minigpt.tokenizers import Tokenizer, make_tokenizer, reads_training_text

SPLITS = ("document", "sequence")
HIGH_OVERLAP = 0.05


# Told how far it is: the phase by its name above, how much is done and of how much, None if that is not known yet; in
# bytes of text, when comparing in tokens.
OnProgress = Callable[[str, int, int | None], None]

Names = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def _silent(phase: str, done: int, total: int | None) -> None:
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


@dataclass(frozen=True)
class _Settings:
    """What the user chose, checked."""

    names: tuple[str, ...]
    tokenizer: str
    val_fraction: float
    split_by: str
    block_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("There is nothing to prepare", remedy="Name a file, a folder, hf:owner/name, or pylib.")
        if not 0 < self.val_fraction <= 0.5:
            raise ConfigError(
                "The share of validation must lie above 0 and at most at 0.5",
                seen=self.val_fraction,
                remedy="0.1 is usual; 0.01 will do for gigabytes.",
            )
        if self.split_by not in SPLITS:
            raise ConfigError(
                "There is no such way to split", seen=self.split_by, remedy=f"There are: {', '.join(SPLITS)}."
            )
        if self.block_size < 1:
            raise ConfigError("The block size must be positive", seen=self.block_size, remedy="512 is usual.")
        reads_training_text(self.tokenizer)  # raises now, not after a pass over the text, if the spec is wrong


def prepare(
    sources: Names,
    out: str | os.PathLike[str],
    tokenizer: str = "gpt2",
    val_fraction: float = 0.1,
    split_by: str = "document",
    block_size: int = 512,
    seed: int = 0,
    on_progress: OnProgress = _silent,
    *,
    pattern: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    format: FileFormat | None = None,
    text_column: str = "text",
    split_at: str | None = None,
    split_lines: bool = False,
) -> Report:
    """Makes a data set from text.

    Args:
        sources: what to read: names as in `minigpt.data.sources.SOURCES`, or one such name.
        out: the folder to make. It must not exist, and appears only when everything went well.
        tokenizer: `gpt2`, `char`, `byte`, `bpe:N` for a vocabulary of N ids learned from the training side, or the
            folder of a run or data set, whose tokenizer is then used.
        val_fraction: the share of the text that validates, above 0 and at most 0.5.
        split_by: `document`: every document is on one side (or the end of the text validates, where documents are
            too few). `sequence`: sequences of `block_size` tokens are drawn; documents then stand on both sides.
        block_size: the sequence length that `split_by="sequence"` cuts and that the report counts in. Training may
            use another.
        seed: decides the split.
        on_progress: told how far it is, a few times a second.
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
    names = _several(sources)
    reading = SourceOptions(
        pattern=_several(pattern),
        exclude=_several(exclude),
        format=format,
        text_column=text_column,
        split_at=split_at,
        split_lines=split_lines,
    )
    settings = _Settings(names, tokenizer, val_fraction, split_by, block_size, seed)
    on_progress = _Calmed(on_progress)
    started = time.perf_counter()
    with (
        new_folder(Path(out)) as folder,
        open_sources(names, reading) as opened,
    ):
        corpus = read_corpus(opened, lambda done: on_progress("reading", done, None))
        if not corpus.n_documents:
            raise DataError("There is no text", seen=", ".join(names), remedy="Name sources that hold some.")
        plan = _plan(corpus, settings)
        made = _make_tokenizer(opened, corpus, plan, settings, on_progress)
        made.save(folder)
        parts = _counted(planned_parts(opened, corpus, plan), "encoding", corpus.text_bytes, on_progress)
        pack = _pack_sequences if split_by == "sequence" else _pack_documents
        seen, n_unknown = pack(folder, parts, made, settings)
        report = _report(folder, corpus, plan, made, settings, seen, n_unknown, started, on_progress)
        report = replace(
            report,
            left_out=tuple(words for source in opened for words in source.findings.left_out),
            reading=reading,
            notes=(*report.notes, *source_notes(opened, reading)),
        )
        report.save(folder)
    return report


def _several(names: Names) -> tuple[str, ...]:
    return tuple(os.fspath(name) for name in ([names] if isinstance(names, str | os.PathLike) else names))


def _plan(corpus: Corpus, settings: _Settings) -> Plan:
    if settings.split_by == "document":
        return plan_split(corpus, settings.val_fraction, settings.seed)
    sides = np.where(corpus.kept, TRAIN, LEFT_OUT).astype(np.uint8)  # drawn later, from the tokens
    note = "Sequences were drawn at random: documents stand on both sides, and validation looks easier than it is."
    return Plan("sequence", sides, note=note)


def _make_tokenizer(
    opened: Sequence[Source], corpus: Corpus, plan: Plan, settings: _Settings, on_progress: OnProgress
) -> Tokenizer:
    if not reads_training_text(settings.tokenizer):
        return make_tokenizer(settings.tokenizer)
    parts = _counted(planned_parts(opened, corpus, plan), "learning", corpus.text_bytes, on_progress)
    return make_tokenizer(settings.tokenizer, (part.text for part in parts if part.side == TRAIN))


def _counted(parts: Iterator[Part], phase: str, total: int, on_progress: OnProgress) -> Iterator[Part]:
    """The same parts, with the progress reported as they go by."""
    done = 0
    for part in parts:
        yield part
        done += part.n_bytes
        on_progress(phase, done, total)


def _pack_documents(
    folder: Path, parts: Iterator[Part], tokenizer: Tokenizer, settings: _Settings
) -> tuple[npt.NDArray[np.bool_], int]:
    """Writes both token files. Returns which ids occur in training, and how many characters are unknown."""
    seen, n_unknown = np.zeros(tokenizer.vocab_size, dtype=bool), 0
    with (
        ShardWriter(folder / TRAIN_FILE, tokenizer.vocab_size, tokenizer.identity) as train,
        ShardWriter(folder / VAL_FILE, tokenizer.vocab_size, tokenizer.identity) as val,
    ):
        for sides in encode_parts(parts, tokenizer):
            for packed, writer in zip(sides, (train, val), strict=True):
                writer.append(packed.ids, n_documents=packed.n_documents, n_bytes=packed.n_bytes)
                n_unknown += packed.n_unknown
            seen[sides[TRAIN].ids] = True
    return seen, n_unknown


def _pack_sequences(
    folder: Path, parts: Iterator[Part], tokenizer: Tokenizer, settings: _Settings
) -> tuple[npt.NDArray[np.bool_], int]:
    """As `_pack_documents`, by way of one file with all tokens, which is removed again."""
    whole, n_unknown, seam = folder / "all.tokens", 0, settings.block_size
    size, identity = tokenizer.vocab_size, tokenizer.identity
    with ShardWriter(whole, size, identity, seam) as writer:
        for packed, _ in encode_parts(parts, tokenizer):
            writer.append(packed.ids, n_documents=packed.n_documents, n_bytes=packed.n_bytes)
            n_unknown += packed.n_unknown
    with (
        ShardWriter(folder / TRAIN_FILE, size, identity, seam) as train,
        ShardWriter(folder / VAL_FILE, size, identity, seam) as val,
    ):
        shard = Shard.open(whole, verify=False)
        seen = draw_sequences(shard, train, val, tokenizer, settings.val_fraction, settings.seed)
    del shard  # Windows removes no file that is mapped
    whole.unlink()
    return seen, n_unknown


def _report(
    folder: Path,
    corpus: Corpus,
    plan: Plan,
    tokenizer: Tokenizer,
    settings: _Settings,
    seen: npt.NDArray[np.bool_],
    n_unknown: int,
    started: float,
    on_progress: OnProgress,
) -> Report:
    """Looks at what was written, and says no if it is too little to train on."""
    train, val = (Shard.open(folder / name, verify=False) for name in (TRAIN_FILE, VAL_FILE))
    if train.n_tokens <= settings.block_size or val.n_tokens < 2:
        found = f"{train.n_tokens:,} training and {val.n_tokens:,} validation tokens"
        del train, val  # Windows removes no file that is mapped
        raise DataError(
            f"There is too little text: one training sequence needs {settings.block_size + 1:,} tokens, validation 2",
            seen=found,
            remedy="Prepare more text, or shorter sequences: a smaller --block-size here and --model.block-size later.",
        )
    share, n_windows = overlap(train, val, lambda done: on_progress("comparing", done, train.n_tokens))
    return Report(
        sources=settings.names,
        tokenizer=tokenizer.spec,
        vocab_size=tokenizer.vocab_size,
        vocab_in_train=int(seen.sum()),
        block_size=settings.block_size,
        seed=settings.seed,
        val_fraction=settings.val_fraction,
        split_by=settings.split_by,
        split=plan.split,
        documents=corpus.n_documents,
        duplicates=corpus.duplicates,
        empty=corpus.empty,
        unknown_characters=n_unknown,
        overlap=share,
        overlap_windows=n_windows,
        disk_bytes=sum(shard.path.stat().st_size for shard in (train, val)),
        seconds=time.perf_counter() - started,
        train=_side(train, settings.block_size),
        val=_side(val, settings.block_size),
        notes=tuple(_notes(plan, settings, tokenizer, n_unknown, share)),
    )


def _side(shard: Shard, block_size: int) -> SplitReport:
    n_sequences = -(-(shard.n_tokens - 1) // block_size)
    return SplitReport(shard.n_documents, shard.n_bytes, shard.n_tokens, n_sequences)


def _notes(plan: Plan, settings: _Settings, tokenizer: Tokenizer, n_unknown: int, share: float) -> Iterator[str]:
    if plan.note:
        yield plan.note
    if plan.split == "sequence" and reads_training_text(settings.tokenizer):
        yield "The tokenizer learned from all of the text, validation included: it was made before the sequences were."
    wanted = int(tokenizer.spec.partition(":")[2] or 0)
    if reads_training_text(settings.tokenizer) and wanted > tokenizer.vocab_size:
        yield f"The text gave {tokenizer.vocab_size:,} ids, not {wanted:,}: the model's vocabulary will be that small."
    if n_unknown:
        unknown = counted(n_unknown, "character")
        yield f"Validation holds {unknown} that training does not: all such share one id."
    if share > HIGH_OVERLAP:
        yield f"{share:.0%} of validation stands in training too: its loss will look better than it is."
