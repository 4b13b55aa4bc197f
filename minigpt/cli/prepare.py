"""`minigpt prepare`: text to a data set, with its progress and a report.

Not here: the preparing (minigpt.data.prepare).
"""

from __future__ import annotations

import shlex
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
from minigpt.cli.signals import asked_to_stop
from minigpt.errors import ConfigError

if TYPE_CHECKING:
    from minigpt.data import Report

PLAIN_LINE_EVERY = 5.0  # seconds, where the output is no terminal


def prepare_command(
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],  # for the single hyphen of standard input
    out: Path,
    tokenizer: str = "gpt2",
    val_fraction: float = 0.1,
    split_by: Literal["document", "sequence"] = "document",
    block_size: int = 512,
    text_column: str = "text",
    pattern: str | None = None,
    seed: int = 0,
) -> None:
    """Turn text into tokens that `minigpt train` reads.

    The text is split into training and validation, document by document; copies are left out; memory stays small
    however large the text. The folder appears when all is done, with a report of what went in and what came out.

    A first try, with text that is on every machine: `minigpt prepare pylib --out data/pylib --tokenizer bpe:4096`

    Your own notes: `minigpt prepare notes/ --out data/notes --tokenizer bpe:4096`

    Code: `minigpt prepare src/ --pattern '*.py' --out data/code`

    Records: `minigpt prepare books.parquet more.jsonl.gz --text-column body --out data/books`

    The hub: `minigpt prepare hf:roneneldan/TinyStories --out data/stories --val-fraction 0.01`

    A pipe: `zcat dump.gz | minigpt prepare - --out data/dump`

    Parameters
    ----------
    sources
        What to read, one or more: a text file (.gz too), a folder, JSON lines (.jsonl, .jsonl.gz), a .parquet file,
        hf:OWNER/NAME[:CONFIG][@SPLIT] or hf:./FOLDER, - for standard input, pylib (the documentation of Python's own
        library, 0.8 million tokens) or pylib-code (its source, 5 million).
    out
        The folder to make. It must not exist yet.
    tokenizer
        gpt2 (50,257 ids, works offline), char (the characters of the training text), byte (257 ids), bpe:N (N ids
        learned from the training text; bpe:4096 suits a few megabytes), or a run's folder, for text that is to be
        evaluated with that run.
    val_fraction
        The share of the text that validates, above 0 and at most 0.5.
    split_by
        document: every document is on one side; with fewer than ten, the end of the text validates. sequence: sequences
        of --block-size tokens are drawn at random, so documents stand on both sides and validation looks easier.
    block_size
        The sequence length that --split-by sequence cuts and the report counts in.
    text_column
        The field of JSON lines and Parquet files that holds the text.
    pattern
        Which files of a folder to read, as '*.py'. Without it: .txt, .md, .rst, .jsonl, .parquet and their like.
    seed
        Decides which documents validate. The same seed and text give the same data set.
    """
    from minigpt.data import prepare

    for name in sources:
        if name.startswith("--"):
            raise ConfigError("There is no such option", seen=name, remedy="See: minigpt prepare --help")
    with _signals_stop(), _progress() as on_progress:
        report = prepare(
            sources, out, tokenizer, val_fraction, split_by, block_size, text_column, pattern, seed, on_progress
        )
    _show(report, out, tokenizer)


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Lets a polite `kill` or a hang-up clean up as Ctrl-C does, instead of leaving a half-written folder."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(128 + number)

    before = {number: signal.signal(number, stop) for number in asked_to_stop()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar with the time left on a terminal, else a line at every phase and then every few seconds."""
    if not sys.stderr.isatty():
        yield _PlainLines()
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

        yield show
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


def _show(report: Report, out: Path, tokenizer: str) -> None:
    from rich.table import Table

    console = Console(soft_wrap=False)
    table = Table(title=f"Data set {out}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in report.rows():
        table.add_row(name, value)
    console.print(table)
    for note in report.notes:
        console.print(f"Note: {note}")
    console.print(f"Next: {_next(report, out, tokenizer)}", soft_wrap=True)


def _next(report: Report, out: Path, tokenizer: str) -> str:
    """The command that most people want next: the preset made for this kind of tokenizer, or the run it came from."""
    place = shlex.quote(str(out))
    if Path(tokenizer).is_dir():
        return f"minigpt evaluate {shlex.quote(tokenizer)} --data {place}"
    preset = {"bpe": " --preset laptop", "char": " --preset shakespeare"}.get(report.tokenizer.partition(":")[0], "")
    return f"minigpt train --data {place} --run {shlex.quote(f'runs/{out.name}')}{preset}"
