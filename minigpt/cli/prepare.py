"""`minigpt prepare`: text to a data set, with its progress and a summary. The work: minigpt/data/prepare.py."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from minigpt.cli.console import Console
from minigpt.cli.progress import progress
from minigpt.cli.signals import interruptible
from minigpt.cli.text_options import TEXT_OPTIONS, unescaped_options
from minigpt.errors import ConfigError, did_you_mean
from minigpt.source_options import DEFAULT_SOURCE_OPTIONS, SourceOptions
from minigpt.text_utils import shell_line

if TYPE_CHECKING:
    from minigpt.data import DatasetCard


def prepare_command(
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],  # for the single hyphen of standard input
    out: Path,
    tokenizer: str = "gpt2",
    val: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    val_fraction: Annotated[float | None, Parameter(show_default=lambda value: "0.1")] = None,
    split_by: Literal["document", "sequence"] = "document",
    block_size: int = 512,
    seed: int = 0,
    source_options: Annotated[SourceOptions, TEXT_OPTIONS] = DEFAULT_SOURCE_OPTIONS,
) -> None:
    """Turn text into tokens that `minigpt train` reads.

    The text is split into training and validation, document by document, and duplicates are dropped. Memory use stays
    small for text of any size. The folder appears when everything is done.

    A first try, with text that is on every machine: `minigpt prepare pylib --out data/pylib --tokenizer bpe:4096`

    Your own notes: `minigpt prepare notes/ --exclude drafts --out data/notes --tokenizer bpe:4096`

    Code: `minigpt prepare src/ --pattern '*.py' --pattern '*.toml' --out data/code`

    Records: `minigpt prepare books.parquet mail.csv more.jsonl.gz --text-column body --out data/books`

    Stories in one file: `minigpt prepare stories.txt --split-at '<|endoftext|>' --out data/stories`

    Your own validation files: `minigpt prepare train/ --val val/ --out data/mine`

    The hub: `minigpt prepare hf:roneneldan/TinyStories --out data/stories --val-fraction 0.01`

    A pipe: `zcat dump.gz | minigpt prepare - --out data/dump`

    Parameters
    ----------
    sources
        What to read, one or more: text files, folders, files of records (.jsonl, .json, .csv, .tsv, .parquet; all but
        the last may be .gz), hf:OWNER/NAME[:CONFIG][@SPLIT] or hf:./FOLDER, - for standard input, pylib (the
        documentation of Python's standard library, 0.8 million tokens) or pylib-code (its source, 5 million).
    out
        The folder to make. It must not exist yet.
    tokenizer
        gpt2 (50,257 ids, works offline), char (the characters of the training text), byte (257 ids), bpe:N (N ids
        learned from the training text; bpe:4096 suits a few megabytes), or the folder of a run, for text to evaluate
        that run on, or to train it further.
    val
        Validation files of your own, one or more, named as the sources are. They are used whole, and nothing is drawn
        from the sources; documents of the sources that are also in them are dropped from training.
    val_fraction
        Without --val: the share of the text for validation, above 0 and at most 0.5.
    split_by
        document: each document is in one split; with fewer than ten, validation is the end of the text. sequence: draw
        sequences of --block-size tokens at random; documents are then in both splits, and validation looks easier.
    block_size
        The sequence length that --split-by sequence cuts and that the summary counts in.
    seed
        Decides which documents are for validation. The same seed and text give the same data set.
    """
    from minigpt.data import prepare

    for name in sources:
        if name.startswith("--"):
            parameters = [
                *inspect.signature(prepare_command).parameters,
                *(each.name for each in fields(SourceOptions)),
            ]
            guess = did_you_mean(name, [f"--{each.replace('_', '-')}" for each in parameters])
            raise ConfigError("Unknown option", got=name, remedy=f"{guess}See: minigpt prepare --help")
    remedy = "minigpt prepare TEXT --val FILES --out DATA"
    if val == []:
        raise ConfigError("--val has no value", remedy=f"Give one file or more: {remedy}")
    if val and not sources:
        what = "There is nothing to train on: all files follow --val"
        raise ConfigError(what, got=", ".join(val), remedy=f"Name the training text first: {remedy}")
    with interruptible(), progress(in_bytes=True) as on_progress:
        card = prepare(
            sources,
            out,
            tokenizer=tokenizer,
            val=val or (),
            val_fraction=val_fraction,
            split_by=split_by,
            block_size=block_size,
            seed=seed,
            on_progress=on_progress,
            on_note=on_progress.note,
            **vars(unescaped_options(source_options)),
        )
    _show(card, out, tokenizer)


def _show(card: DatasetCard, out: Path, tokenizer: str) -> None:
    from rich.table import Table

    console = Console(soft_wrap=False)
    table = Table(title=f"Data set {out}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in card.rows():
        table.add_row(name, value)
    console.print(table)
    for note in card.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    console.print(f"Next: {_next(card, out, tokenizer)}", soft_wrap=True)


def _next(card: DatasetCard, out: Path, tokenizer: str) -> str:
    """The command to continue with: evaluate or train further the run whose tokenizer was used, or train a new run with
    the preset for this kind of tokenizer."""
    from minigpt.atomic import unused_path
    from minigpt.config import resolve

    words = ["--data", str(out), "--run", unused_path(Path("runs", out.name)).as_posix()]
    if (Path(tokenizer) / "config.toml").is_file():
        evaluate = shell_line(["minigpt", "evaluate", tokenizer, "--data", str(out), "--split", "all"])
        train = shell_line(["minigpt", "train", "--init-from", tokenizer, *words])
        return f"{evaluate}\n  or, to train it further: {train}"
    preset = {"bpe": "laptop", "char": "shakespeare"}.get(card.tokenizer.partition(":")[0], "seed")
    words += ["--preset", preset] if preset != "seed" else []
    if card.block_size < resolve(preset).model.block_size:  # the text may be too short for a longer one
        words += ["--model.block-size", str(card.block_size)]
    return shell_line(["minigpt", "train", *words])
