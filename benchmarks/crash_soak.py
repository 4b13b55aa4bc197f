"""A crash soak: runs that are killed with SIGKILL again and again, and must end as if they never were.

Two kinds of kills, both seeded:
    from outside   at a random moment of a run's life: starting, stepping, saving, validating, finishing
    inside a save  right after the n-th of the writes, syncs and renames that saving is made of, n drawn at random;
                   the process kills itself there, so that every gap between two writes gets its turn

Each run is compared, byte for byte, with one of the same settings that was left alone. Bounded in runs and kills.

    python benchmarks/crash_soak.py                 55 kills of each kind, about ten minutes on two cores
    python benchmarks/crash_soak.py --kills 10      a short one
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SETTINGS = [
    ["--machine.precision=float32", "--optimizer.name=adam"],
    ["--machine.precision=bfloat16", "--optimizer.name=adamw", "--train.grad-accum-steps=2", "--schedule.name=cosine"],
    ["--machine.precision=float16", "--optimizer.name=muon", "--schedule.name=wsd"],
]
TINY = [
    "--model.block-size=32",
    "--model.n-layer=1",
    "--model.n-head=2",
    "--model.n-embd=32",
    "--model.n-inner=64",
    "--train.batch-size=4",
    "--train.lr=1e-2",
    "--machine.device=cpu",
    "--machine.threads=1",
    "--train.save-every=3",
    "--train.log-every=1",
    "--train.validate-every=10",
    "--train.keep-checkpoints=1000",
    "--steps=30",
]


def child(nth: int, arguments: list[str]) -> None:
    """Runs a `minigpt` command that kills itself right after the n-th of the calls that a save is made of."""
    from minigpt.cli.app import main
    from minigpt.runs import checkpoint

    left = [nth]

    def killing(real):
        def call(*a, **k):
            result = real(*a, **k)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, name in (
        (checkpoint, "save_file"),
        (checkpoint, "sync"),
        (os, "replace"),
        (Path, "rename"),
        (Path, "mkdir"),
    ):
        setattr(owner, name, killing(getattr(owner, name)))
    main(arguments)


def run(arguments: list[str], *, seconds: float | None = None, nth: int | None = None) -> str:
    """Runs a command to its end, or kills it; returns `ended`, `killed` or `failed: ...`."""
    inside = [] if nth is None else [str(Path(__file__)), "--child", str(nth)]
    command = [sys.executable, *(inside or ["-m", "minigpt"]), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "killed"
    if process.returncode == -signal.SIGKILL:
        return "killed"
    return "ended" if process.returncode == 0 else f"failed: {errors.strip()[-300:]}"


def soak(
    folder: Path, kills: int, seed: int, runs_of: int, settings: list[list[str]] = SETTINGS
) -> tuple[Counter[str], list[str]]:
    """Kills runs until both kinds have had their number; returns the counts and what went wrong."""
    from minigpt.training.resume_check import differences

    data = folder / "data"
    text = folder / "text"
    text.mkdir()
    chance = random.Random(seed)
    for number in range(30):
        words = [chance.choice(["the", "cat", "dog", "sees", "likes", "a", "bird", "and"]) for _ in range(60)]
        (text / f"{number}.txt").write_text(" ".join(words))
    assert run(["prepare", str(text), "--out", str(data), "--tokenizer", "byte", "--block-size", "32"]) == "ended"

    counts: Counter[str] = Counter()
    wrong: list[str] = []
    alone: list[tuple[Path, float]] = []
    for number, options in enumerate(settings):
        whole, begun = folder / f"whole-{number}", time.monotonic()
        assert run(["train", "--data", str(data), "--run", str(whole), *TINY, *options]) == "ended"
        alone.append((whole, time.monotonic() - begun))

    started = time.monotonic()
    while min(counts["killed from outside"], counts["killed inside a save"]) < kills:
        which = counts["runs"] % len(settings)
        whole, lasting = alone[which]
        target = folder / f"run-{counts['runs']}"
        for _ in range(runs_of):
            begin = ["train", "--data", str(data), "--run", str(target), *TINY, *settings[which]]
            command = ["resume", str(target)] if target.exists() else begin
            if counts["killed from outside"] <= counts["killed inside a save"]:
                kind, end = "killed from outside", run(command, seconds=chance.uniform(0.3, 1.0) * lasting)
            else:
                kind, end = "killed inside a save", run(command, nth=chance.randrange(1, 60))
            if end == "killed":
                counts[kind] += 1
            elif end == "ended":
                break
            else:
                wrong.append(f"run {counts['runs']}: {end}")
        end = run(["resume", str(target)] if target.exists() else begin)
        if end != "ended":
            wrong.append(f"run {counts['runs']}: {end}")
        found = differences(whole, target)
        wrong += [f"run {counts['runs']}: {difference}" for difference in found]
        counts["bit-identical runs"] += not found
        counts["runs"] += 1
        left = 2 * kills - counts["killed from outside"] - counts["killed inside a save"]
        pace = (time.monotonic() - started) / max(1, 2 * kills - left)
        print(f"{dict(counts)}, about {pace * max(0, left):.0f} s left", flush=True)
    return counts, wrong


def main() -> int:
    """Parses the command line and soaks."""
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]), sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=55, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills-per-run", type=int, default=4, help="the most kills that one run meets")
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="minigpt-soak-") as folder:
        counts, wrong = soak(Path(folder), options.kills, options.seed, options.kills_per_run)
    print(f"\n{time.monotonic() - begun:.0f} s, seed {options.seed}")
    for name, count in counts.items():
        print(f"{name:24} {count}")
    print(f"{'wrong':24} {len(wrong)}")
    for line in wrong:
        print(f"  {line}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
