"""Makes the reference curves, by which `minigpt doctor` tells whether a loss is normal.

    python benchmarks/reference_curves.py make books.parquet tinyshakespeare.txt pylib --minutes 20
    python benchmarks/reference_curves.py collect runs/books --corpus books

`make` prepares each text for each preset and trains them one after the other, each for so many minutes at the most.
A run that is cut off by them keeps the schedule of its whole length. Called again, it goes on where it stopped, and
passes over what is done. Ctrl-C saves and stops. `collect` takes runs that are there already.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import minigpt
from minigpt.cli.train_view import StopSignals, TrainView
from minigpt.config import load_preset, preset_names
from minigpt.data import Dataset
from minigpt.doctor.references import FILE, add, collect
from minigpt.errors import MiniGPTError
from minigpt.intervals import Intervals
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder
from minigpt.training import resume

QUICK_FIRST = ("shakespeare", "laptop", "seed", "deep")
"""The order of the presets; others come behind."""


def corpus_name(source: str) -> str:
    """Returns the name that a text has in the references: its file's, without the ending."""
    return Path(source).stem


def data_set(source: str, tokenizer: str, out: Path) -> Path:
    """Returns the folder of the prepared text; prepares it if it is not there yet."""
    folder = out / "data" / f"{corpus_name(source)}-{tokenizer.replace(':', '-')}"
    if not folder.exists():
        print(f"preparing {folder}", flush=True)
        minigpt.prepare([source], folder, tokenizer=tokenizer)
    return folder


def validate_every(preset: str, data: Dataset) -> int:
    """Returns the steps between two validations: so many that a quarter of the time at the most goes into these."""
    config = minigpt.resolve(preset)
    tokens = config.train.batch_size * config.model.block_size
    per_epoch = -(-data.train.n_tokens // tokens)
    same_tokens = data.val.n_tokens // tokens  # predicting one takes a third of the time that training on it takes
    return max(50, per_epoch // 4, same_tokens)


def make(preset: str, source: str, out: Path, minutes: float, stop: Callable[[], bool]) -> Path:
    """Trains a preset on a text, or goes on with it, until it has had its minutes; returns the run."""
    data = data_set(source, load_preset(preset).tokenizer, out)
    run = out / "runs" / f"{preset}-{corpus_name(source)}"
    spent, done = progress(run)
    began = time.monotonic()
    if done or spent >= 0.95 * 60 * minutes:  # the last line of metrics is a little older than the run
        print(f"{run}: done", flush=True)
        return run

    def enough() -> bool:
        return stop() or spent + time.monotonic() - began >= 60 * minutes

    print(f"\n{run}: {'going on' if spent else 'beginning'}", flush=True)
    with TrainView() as view:
        if run.exists():
            outcome = resume(run, data=data, callbacks=[view], should_stop=enough)
        else:
            every = validate_every(preset, Dataset.open(data))
            config = minigpt.resolve(preset, overrides={"train.validate_every": every, "train.sample_prompts": 0})
            outcome = minigpt.train(data, run, config, callbacks=[view], should_stop=enough)
    view.summary(outcome)
    return run


def progress(run: Path) -> tuple[float, bool]:
    """Returns the seconds that a run has taken, and whether it has taken all its steps."""
    if not run.exists():
        return 0.0, False
    folder = RunFolder.open(run)
    records = read_metrics(folder.metrics_file)
    if not records:
        return 0.0, False
    splits = folder.data()["splits"]
    total = Intervals(folder.config(), splits["train"]["tokens"], splits["val"]["tokens"]).total_steps
    return max(record["seconds"] for record in records), records[-1]["step"] >= total


def sources_in(places: list[str]) -> list[str]:
    """Returns the texts that are meant: a folder means the texts in it."""
    found: list[str] = []
    for place in places:
        path = Path(place)
        inside = sorted(f for f in path.iterdir() if f.suffix in (".txt", ".parquet")) if path.is_dir() else [place]
        found += map(str, inside)
    return found


def make_all(options: argparse.Namespace) -> None:
    """Makes every preset's curve on every text."""
    presets = sorted(options.presets.split(","), key=lambda n: QUICK_FIRST.index(n) if n in QUICK_FIRST else 99)
    with StopSignals() as stop:
        for preset in presets:
            for source in sources_in(options.sources):
                if stop():
                    return
                try:
                    run = make(preset, source, options.out, options.minutes, stop)
                    add(collect(run, corpus_name(source)), options.references)
                except MiniGPTError as error:
                    print(f"{preset} on {source}: {error}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    making = verbs.add_parser("make", help="prepare, train and collect")
    making.add_argument("sources", nargs="+", help="text files, folders of them, or pylib")
    making.add_argument("--minutes", type=float, default=20, help="for each run at the most (20)")
    making.add_argument("--presets", default=",".join(preset_names()), help=f"of {', '.join(preset_names())}")
    making.add_argument("--out", type=Path, default=Path("build/references"), help="for data and runs")
    making.set_defaults(do=make_all)
    collecting = verbs.add_parser("collect", help="take runs that are there")
    collecting.add_argument("runs", nargs="+")
    collecting.add_argument("--corpus", required=True, help="the name of their text")
    collecting.set_defaults(do=lambda o: [add(collect(run, o.corpus), o.references) for run in o.runs])
    for verb in (making, collecting):
        verb.add_argument("--references", type=Path, default=FILE, help="the file to write them into")
    options = parser.parse_args(argv)
    options.do(options)


if __name__ == "__main__":
    main()
