"""`minigpt prepare`: text to a data set, with its progress and a report.

Not here: the preparing (minigpt.data.prepare).
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from minigpt.cli.console import Console, say
from minigpt.cli.reading import READING, source_options
from minigpt.cli.signals import asked_to_stop
from minigpt.errors import ConfigError
from minigpt.source_options import USUAL, SourceOptions
from minigpt.text_utils import shell_line

if TYPE_CHECKING:
    from minigpt.data import DatasetCard

PLAIN_LINE_EVERY = 5.0  # seconds, where the output is no terminal


def prepare_command(
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],  # for the single hyphen of standard input
    out: Path,
    tokenizer: str = "gpt2",
    val: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    val_fraction: Annotated[float | None, Parameter(show_default=lambda value: "0.1")] = None,
    split_by: Literal["document", "sequence"] = "document",
    block_size: int = 512,
    seed: int = 0,
    reading: Annotated[SourceOptions, READING] = USUAL,
) -> None:
    """Turn text into tokens that `minigpt train` reads.

    The text is split into training and validation, document by document; copies are left out; memory stays small
    however large the text. The folder appears when all is done, with a report of what went in and what came out.

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
        What to read, one or more: a text file, a folder, records (.jsonl, .json, .csv, .tsv, .parquet), all but the
        last also as .gz; hf:OWNER/NAME[:CONFIG][@SPLIT] or hf:./FOLDER, - for standard input, pylib (the documentation
        of Python's own library, 0.8 million tokens) or pylib-code (its source, 5 million).
    out
        The folder to make. It must not exist yet.
    tokenizer
        gpt2 (50,257 ids, works offline), char (the characters of the training text), byte (257 ids), bpe:N (N ids
        learned from the training text; bpe:4096 suits a few megabytes), or a run's folder, for text that is to be
        evaluated with that run, or to train it further.
    val
        Validation files of your own, one or more, named as the sources are: they validate whole, and nothing is drawn
        from the sources. Documents of the sources that are in them, too, are left out of training.
    val_fraction
        Without --val: the share of the text that validates, above 0 and at most 0.5.
    split_by
        document: every document is on one side; with fewer than ten, the end of the text validates. sequence: sequences
        of --block-size tokens are drawn at random, so documents stand on both sides and validation looks easier.
    block_size
        The sequence length that --split-by sequence cuts and the report counts in.
    seed
        Decides which documents validate. The same seed and text give the same data set.
    """
    from minigpt.data import prepare

    for name in sources:
        if name.startswith("--"):
            raise ConfigError("There is no such option", got=name, remedy="See: minigpt prepare --help")
    if val == []:
        raise ConfigError(
            "--val names nothing", remedy="Give one or more behind it: minigpt prepare TEXT --val FILES --out DATA"
        )
    if val and not sources:
        raise ConfigError(
            "There is nothing to train on: all files stand behind --val",
            got=", ".join(val),
            remedy="Name the training text first: minigpt prepare TEXT --val FILES --out DATA",
        )
    with _signals_stop(), _progress() as (on_progress, on_note):
        report = prepare(
            sources,
            out,
            tokenizer=tokenizer,
            val=val or (),
            val_fraction=val_fraction,
            split_by=split_by,
            block_size=block_size,
            seed=seed,
            on_progress=on_progress,
            on_note=on_note,
            **vars(source_options(reading)),
        )
    _show(report, out, tokenizer)


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Lets a polite `kill`, or a terminal that is closed, clean up as Ctrl-C does: nothing half-written stays."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(128 + number)

    before = {number: signal.signal(number, stop) for number in asked_to_stop()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str, int, int | None], None], Callable[[str], None]]]:
    """A bar with the time left on a terminal, else a line at every phase and then every few seconds; and notes."""
    if not sys.stderr.isatty():
        yield _PlainLines(), lambda note: say(f"Note: {note}")
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def show(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield show, lambda note: bars.console.print(f"Note: {note}")
        for task in bars.tasks:  # a total that was not known is now what was done
            bars.update(task.id, total=task.completed)


class _PlainLines:
    """Progress for a log file."""

    def __init__(self) -> None:
        self._phase, self._started, self._said = "", 0.0, 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._started = phase, now
        elif now - self._said < PLAIN_LINE_EVERY:
            return
        self._said = now
        of = f" of {total / 1e6:,.1f} million ({done / total:.0%})" if total else " million"
        seconds = now - self._started
        left = f", {seconds * (total - done) / done:.0f} s left" if total and done and seconds > 1 else ""
        say(f"{phase}: {done / 1e6:,.1f}{of}{left}")


def _show(report: DatasetCard, out: Path, tokenizer: str) -> None:
    from rich.table import Table

    console = Console(soft_wrap=False)
    table = Table(title=f"Data set {out}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in report.rows():
        table.add_row(name, value)
    console.print(table)
    for note in report.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    console.print(f"Next: {_next(report, out, tokenizer)}", soft_wrap=True)


def _next(report: DatasetCard, out: Path, tokenizer: str) -> str:
    """What most people want next: to measure or train further the run it was made for, or a run with the preset made
    for this kind of tokenizer.
    """
    from minigpt.config import resolve
    from minigpt.data.atomic_directory import free_folder

    words = ["--data", str(out), "--run", free_folder(Path("runs", out.name)).as_posix()]
    if (Path(tokenizer) / "config.toml").is_file():
        measured = shell_line(["minigpt", "evaluate", tokenizer, "--data", str(out), "--split", "all"])
        further = shell_line(["minigpt", "train", "--init-from", tokenizer, *words])
        return f"{measured}\n  or, to train it further: {further}"
    preset = {"bpe": "laptop", "char": "shakespeare"}.get(report.tokenizer.partition(":")[0], "seed")
    words += ["--preset", preset] if preset != "seed" else []
    if report.block_size < resolve(preset).model.block_size:  # the text may be too short for a longer one
        words += ["--model.block-size", str(report.block_size)]
    return shell_line(["minigpt", "train", *words])
