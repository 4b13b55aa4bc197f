"""What you see while a model trains: a live view on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from minigpt.cli.console import Console, say, styled
from minigpt.cli.signals import asked_to_stop
from minigpt.records import Callback, Record, read_metrics
from minigpt.text_utils import pluralize, shell_word
from minigpt.training import TrainerCallback, TrainResult

SHOWN_TEMPERATURE, SHOWN_CHARACTERS = 0.7, 100
"""Of the samples of an epoch, the first at this temperature is shown, cut to this many characters."""

PLAIN_SECONDS = 15.0
"""Seconds between two lines when the output is not a terminal."""


class StopSignals:
    """Lets the first Ctrl-C, SIGTERM or hang-up end a run after its step, saved; a second one acts as usual, at once.

    A context that handles the signals; called, it says whether one came.

    Attributes:
        exit_code: 0, or the conventional 128 + the signal's number.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in asked_to_stop():
            self._before[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: object) -> None:
        self.exit_code = 128 + number
        self._restore()

    def __call__(self) -> bool:
        return self.exit_code != 0

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *exception: object) -> None:
        self._restore()


class TimeLeft:
    """Estimates the time left from the speed of the last minutes, validations included."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def mark(self, step: int) -> None:
        """Records that a step is done."""
        now = time.monotonic()
        if not self.marks or now - self.marks[-1][0] > 1.0:
            self.marks = [*self.marks[-300:], (now, step)]

    def seconds(self, step: int, total: int) -> float | None:
        """Returns the seconds left, or None while they cannot be estimated."""
        first_time, first_step = self.marks[0] if self.marks else (0.0, step)
        if step <= first_step:
            return None
        return (time.monotonic() - first_time) / (step - first_step) * (total - step)


class TrainView:
    """Shows a training run; a function of its records, and a context for its live view."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.live = (
            Live(console=self.console, refresh_per_second=4, transient=True) if self.console.is_terminal else None
        )
        self.left = TimeLeft()
        self.total = self.step = 0
        self.per_epoch = 1
        self.last: Record = {}
        self.end: Record = {}
        self.patience = 0
        self.activity = ""
        self.failed = False
        self.last_line = 0.0

    def __enter__(self) -> TrainView:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, record: Record) -> None:
        """Shows a record."""
        draw = getattr(self, f"_on_{record['kind']}", None)
        if draw and not self.failed:
            try:
                draw(record)
            except OSError:  # the terminal, or the reader of our output, is gone: the run is not
                self.failed = True
            except Exception as error:
                self.failed = True
                say(f"the run continues, but its progress is no longer shown: {type(error).__name__}: {error}")

    def _on_start(self, record: Record) -> None:
        self.total, self.per_epoch = record["total"], record["steps_per_epoch"]
        self.console.print(parameter_lines(record["parameters"]))
        machine, config = record["machine"], record["config"]
        self.patience = config.train.patience
        self.console.print(
            f"device {machine.device} ({machine.device_reason}), precision {machine.precision} "
            f"({machine.precision_reason}), torch.compile {machine.compiled} ({machine.compiled_reason})"
        )
        self.console.print(
            f"{pluralize(record['sequences'], 'sequence')} of {pluralize(config.model.block_size, 'token')}, "
            f"{pluralize(self.per_epoch, 'step')} per epoch, {self.total:,} in total"
        )
        if record["step"] >= self.total:
            self.console.print(
                f"already finished: all {self.total:,} steps were taken; train it further with --epochs or --steps"
            )
        elif record["step"]:
            self.console.print(f"resuming after step {record['step']:,}")

    def _on_progress(self, record: Record) -> None:
        self.step, self.activity = record["step"], "training"
        self.left.mark(self.step)
        if self.live:
            self.live.update(self._panel())

    def _on_validating(self, record: Record) -> None:
        self.activity = f"validating {record['done'] / record['total']:.0%}"
        if self.live:
            self.live.update(self._panel())
        elif self._line_is_due():
            self.console.print(self.activity)

    def _on_step(self, record: Record) -> None:
        self.last, self.step = record, record["step"]
        if not self.live and (self._line_is_due() or record["step"] in (1, self.total)):
            self.console.print(self._line())

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        if now - self.last_line < PLAIN_SECONDS:
            return False
        self.last_line = now
        return True

    def _on_validation(self, record: Record) -> None:
        self.console.print(
            f"epoch {record['epoch']:.2f}  step {record['step']:,}: train loss {record['train_loss']:.4f} (perplexity "
            f"{perplexity_text(record['train_perplexity'])}), validation loss {record['val_loss']:.4f} (perplexity "
            f"{perplexity_text(record['val_perplexity'])}, {record['val_bits_per_byte']:.3f} bits per byte)"
            + ("  best so far" if record["best"] else self._patience(record["patience_counter"]))
        )

    def _patience(self, counter: int) -> str:
        return f"  no improvement, patience {counter}/{self.patience}" if self.patience else ""

    def _on_samples(self, record: Record) -> None:
        sample = next((one for one in record["samples"] if one.temperature == SHOWN_TEMPERATURE), None)
        if sample:
            prompt, text = (" ".join(part.split()) for part in (sample.prompt, sample.text[:SHOWN_CHARACTERS]))
            self.console.print(styled("  sample: ", (prompt, "dim"), " | ", text))

    def _on_plan(self, record: Record) -> None:
        self.console.print(f"estimate: {_cost(record['planned_seconds'], record['planned_bytes'])} ({record['how']})")

    def _on_end(self, record: Record) -> None:
        self.end = record

    def _on_note(self, record: Record) -> None:
        self.console.print(f"note, step {record['step']}: {record['text']}")

    def _on_finding(self, record: Record) -> None:
        finding = record["finding"]
        self.console.print(f"doctor, step {record['step']}: {finding.observation}")
        self.console.print(f"    {finding.fix}")

    def _on_message(self, record: Record) -> None:
        self.console.print(record["text"])

    def _panel(self) -> Group:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(f"epoch {self.step / self.per_epoch:.2f} of {_short(self.total / self.per_epoch)}", style="bold"),
            ProgressBar(total=max(1, self.total), completed=self.step, width=30),
            Text(f"{self.step / max(1, self.total):.0%}  " + ", ".join([self.activity, *self._time_left()])),
        )
        return Group(bar, Text("  ".join(self._figures()), overflow="fold"))

    def _line(self) -> str:
        return f"epoch {self.step / self.per_epoch:.2f}  " + "  ".join([*self._figures(), *self._time_left()])

    def _figures(self) -> list[str]:
        if not self.last:
            return [f"step {self.step:,}/{self.total:,}"]
        r = self.last
        use = f", {r['device_util']:.0%} busy" if "device_util" in r else ""
        return [
            f"step {self.step:,}/{self.total:,}",
            f"loss {r['loss']:.4f}",
            f"lr {r['lr']:.2e}",
            f"|grad| {r['grad_norm']:.2f}",
            f"{r['tokens_per_second']:,.0f} tokens/s",
            f"{r['memory'] / 1e9:.2f} GB{use}",
            f"data wait {r['data_wait_ratio']:.1%}",
        ]

    def _time_left(self) -> list[str]:
        seconds = self.left.seconds(self.step, self.total)
        return [] if seconds is None else [f"{duration(seconds)} left"]

    def summary(self, outcome: TrainResult) -> None:
        """Prints the table of all validations, the outcome, and what to do next."""
        self.console.print("")
        table = epoch_table(outcome.run / "metrics.jsonl")
        if table.rows:
            self.console.print(table)
        if outcome.stopped:
            self.console.print(f"stopped after step {outcome.steps:,}, and saved")
        if outcome.stopped_early:
            validations = pluralize(self.patience, "validation")
            self.console.print(
                f"early stopping after step {outcome.steps:,} of {self.total:,}: no improvement in {validations}"
            )
        if outcome.best_loss is not None:
            self.console.print(f"best validation loss {outcome.best_loss:.4f}, after step {outcome.best_step:,}")
        plans = read_metrics(outcome.run / "metrics.jsonl", "plan")
        estimated = ""
        if plans and plans[0]["steps"] == outcome.steps and plans[0]["planned_seconds"]:
            estimated = f"; the estimate was {_cost(plans[0]['planned_seconds'], plans[0]['planned_bytes'])}"
        self.console.print(f"took {_cost(outcome.seconds, self.end.get('peak_bytes'))}{estimated}")
        self.console.print(f"run folder: {outcome.run}")
        self.console.print(f"plot:       {outcome.run / 'training_metrics.png'}")
        run = shell_word(outcome.run)
        on = [f"minigpt resume {run}"] if outcome.stopped else []
        then = [*on, f'minigpt generate {run} --prompt "..."', f"minigpt doctor {run}", f"minigpt report {run}"]
        for number, command in enumerate(then):
            self.console.print(f"{'' if number else 'next steps:':12}{command}")


def callbacks(view: TrainView, tensorboard: bool) -> list[Callback | TrainerCallback]:
    """Returns the view, and TensorBoard if it is wanted."""
    from minigpt.training.callbacks.tensorboard import TensorBoardCallback

    return [view, TensorBoardCallback()] if tensorboard else [view]


def epoch_table(metrics_file: Path) -> Table:
    """Returns the table of all validations."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("epoch", "step", "train loss", "val loss", "train ppl", "val ppl", "bits/byte", ""):
        table.add_column(heading, justify="right")
    for r in read_metrics(metrics_file, "validation"):
        table.add_row(
            _short(r["epoch"]),
            f"{r['step']:,}",
            *(_number(r[name], ".4f") for name in ("train_loss", "val_loss")),
            *(perplexity_text(r[name]) for name in ("train_perplexity", "val_perplexity")),
            _number(r["val_bits_per_byte"], ".3f"),
            "best" if r["best"] else "",
        )
    return table


def parameter_lines(parts: dict[str, int]) -> Table:
    """Returns the model's parameters by part, as a table."""
    table = Table(box=None, pad_edge=False, show_header=False, show_footer=True)
    table.add_column(footer="parameters in total")
    table.add_column(justify="right", footer=f"{sum(parts.values()):,}")
    for part, count in parts.items():
        table.add_row(part, f"{count:,}")
    return table


def _cost(seconds: float | None, size: int | None) -> str:
    """Returns a time and, where it is known, an amount of memory."""
    time_text = duration(seconds) if seconds is not None else "an unknown time"
    return time_text + (f" and {size / 1e9:.2f} GB" if size else "")


def duration(seconds: float) -> str:
    """Returns a duration as text: 42 s, 3:05 min, 1:02:03 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def _short(number: float) -> str:
    """Returns a number with at most two decimals: 10, 0.27."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def perplexity_text(value: float | None) -> str:
    """Returns a perplexity as text, with a power of ten if it is larger than any vocabulary."""
    return _number(value, ",.1f" if value is None or value < 1e7 else ".2g")


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)
