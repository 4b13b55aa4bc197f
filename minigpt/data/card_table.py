"""What a prepared folder holds, and what the reader should know of it, as a `DatasetCard`.

Not here: its form (dataset_card.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigpt.data.contamination import overlap
from minigpt.data.dataset import TRAIN_FILE, VAL_FILE
from minigpt.data.dataset_card import DatasetCard, SplitCard
from minigpt.data.prepare_options import PrepareOptions
from minigpt.data.split import Corpus, SplitAssignment
from minigpt.data.token_file import TokenFile
from minigpt.errors import DataError
from minigpt.text_utils import pluralize
from minigpt.tokenizers import Tokenizer, reads_training_text

HIGH_OVERLAP = 0.05


def summary(
    folder: Path,
    corpus: Corpus,
    plan: SplitAssignment,
    tokenizer: Tokenizer,
    settings: PrepareOptions,
    seen: npt.NDArray[np.bool_],
    n_unknown: int,
    started: float,
    on_progress: Callable[[str, int, int | None], None],
) -> DatasetCard:
    """Looks at what was written, and says no if it is too little to train on."""
    train, val = (TokenFile.open(folder / name, verify=False) for name in (TRAIN_FILE, VAL_FILE))
    if train.n_tokens <= settings.block_size or val.n_tokens < 2:
        found = f"{train.n_tokens:,} training and {val.n_tokens:,} validation tokens"
        del train, val  # Windows removes no file that is mapped
        raise DataError(
            f"There is too little text: one training sequence needs {settings.block_size + 1:,} tokens, validation 2",
            got=found,
            remedy="Prepare more text, or shorter sequences: a smaller --block-size here and --model.block-size later.",
        )
    share, n_windows = overlap(train, val, lambda done: on_progress("comparing", done, train.n_tokens))
    return DatasetCard(
        sources=settings.names,
        val_sources=settings.val_names,
        tokenizer=tokenizer.spec,
        vocab_size=tokenizer.vocab_size,
        vocab_in_train=int(seen.sum()),
        block_size=settings.block_size,
        seed=settings.seed,
        val_fraction=None if settings.val_names else settings.share,
        split_by=settings.split_by,
        split=plan.split,
        documents=corpus.n_documents,
        duplicates=corpus.duplicates,
        empty=corpus.empty,
        validated=corpus.validated,
        unknown_characters=n_unknown,
        overlap=share,
        overlap_windows=n_windows,
        disk_bytes=sum(shard.path.stat().st_size for shard in (train, val)),
        seconds=time.perf_counter() - started,
        train=_side(train, settings.block_size),
        val=_side(val, settings.block_size),
        notes=tuple(_notes(corpus, plan, settings, tokenizer, n_unknown, share, val.n_tokens)),
    )


def _side(shard: TokenFile, block_size: int) -> SplitCard:
    n_sequences = -(-(shard.n_tokens - 1) // block_size)
    return SplitCard(shard.n_documents, shard.n_bytes, shard.n_tokens, n_sequences)


def _notes(
    corpus: Corpus,
    plan: SplitAssignment,
    settings: PrepareOptions,
    tokenizer: Tokenizer,
    n_unknown: int,
    share: float,
    val_tokens: int,
) -> Iterator[str]:
    if plan.note:
        yield plan.note
    if corpus.validated:
        yield f"Left out of training: {pluralize(corpus.validated, 'document')} that the validation files hold, too."
    if plan.split == "files" and val_tokens <= settings.block_size:
        yield f"The validation files hold {pluralize(val_tokens, 'token')}: a loss over so few says little."
    if plan.split == "sequence" and reads_training_text(settings.tokenizer):
        yield "The tokenizer learned from all of the text, validation included: it was made before the sequences were."
    wanted = int(tokenizer.spec.partition(":")[2] or 0)
    if reads_training_text(settings.tokenizer) and wanted > tokenizer.vocab_size:
        yield f"The text gave {tokenizer.vocab_size:,} ids, not {wanted:,}: the model's vocabulary will be that small."
    if n_unknown:
        unknown = pluralize(n_unknown, "character")
        yield f"Validation holds {unknown} that training does not: all such share one id."
    if share > HIGH_OVERLAP:
        yield f"{share:.0%} of validation stands in training too: its loss will look better than it is."
