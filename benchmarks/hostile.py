"""Hostile cases: thousands of commands on damaged files, with odd options, sources and streams; none may go wrong.

A case is a command of `minigpt` in a folder of its own, in which one thing is wrong: a file of a run, a data set, a
model to import, prompts, settings or text is damaged (damage.py), a source is odd (odd_sources.py), options make no
sense, or a standard stream is closed or full. It has gone well if

    it ended: with 0, or with 2 and one message on standard error, without traceback or warning
    no control character of a terminal stands in what it said
    nothing changed but what the command makes; after an error that is nothing, and no half-written file is left

Cases depend on the seed and their number alone.

    python benchmarks/hostile.py                      5,000 cases, some minutes on two cores
    python benchmarks/hostile.py --cases 100000       longer
    python benchmarks/hostile.py --only 1234          one case again: its folder stays, the command is printed
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trials.aftermath import messages
from trials.cases import HEARD, Case, make_case
from trials.damage import WAYS
from trials.forking import CAN_FORK, Child, Ended, fork
from trials.pattern import the_pattern
from trials.workshop import LEFTOVER, MAY_CHANGE, Entry, Workshop

KEEPS_PARTS = {"train", "resume", "samples", "report", "evaluate"}
"""Commands that may have done a part of their work when they meet an error: it stays."""

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
MEMORY = 3 << 29
"""Bytes that a command may take: no damaged file needs a gigabyte and a half to be refused."""


def faults(case: Case, ended: Ended, out: str, err: str, changes: dict[str, str]) -> Iterator[str]:
    """Yields what went wrong."""
    if ended.hung:
        yield f"hang: {ended.hung}"
        return
    stopped = case.kind == "option" and ended.code in (-signal.SIGTERM, 128 + signal.SIGTERM)
    if "Traceback (most recent" in out + err:
        last = [
            line
            for line in err.splitlines()
            if re.match(r"[\w.]+(Error|Exception|Interrupt|Timeout|Iteration)\b", line)
        ]
        frame = re.findall(r'File ".*/(minigpt/[^"]+)", line (\d+)', err)
        yield f"traceback: {(last or ['?'])[-1][:100]} at {':'.join(frame[-1]) if frame else '?'}"
    elif ended.code not in (0, 2) and not stopped and not (ended.code == 1 and _may_say_no(case)):
        yield f"ended with {ended.code}"
    heard = case.streams.stderr == "../err"
    if ended.code == 2 and heard and messages(err) != 1:
        yield "exit code 2 without one message"
    if ended.code == 0 and re.search(r"^error:", err, re.MULTILINE):
        yield "a message of an error, and exit code 0"
    if "Exception ignored" in err or re.search(r"^\S+\.py:\d+: \w*Warning", err, re.MULTILINE):
        yield f"a warning: {err.strip().splitlines()[0][-90:]}"
    if case.kind != "option" and "not enough memory" in err:
        yield "took all memory"
    texts = {"standard error": err, "standard output": out}
    if case.command == "generate" and "--json" not in case.arguments:
        del texts["standard output"]  # a model's words, as they are, for programs
    for name, text in texts.items():
        if found := CONTROLS.search(text):
            yield f"control character {found[0]!a} on {name}"
    allowed = re.compile(MAY_CHANGE.get(case.command, "(?!)"))
    for path, change in changes.items():
        if LEFTOVER.search(path):
            yield f"left over: {re.sub('[0-9a-f]{8}', '*', path)}"
        elif not allowed.fullmatch(path) and not (case.kind == "option" and change == "new" and ended.code == 0):
            yield f"{change}: {path}"
        elif ended.code == 2 and case.command not in KEEPS_PARTS and case.streams.stdout != "/dev/full":
            yield f"after an error, {change}: {path.partition('/')[0]}"


def _may_say_no(case: Case) -> bool:
    """Whether the command may say no by exit code 1."""
    return case.command == "verify-resume" or "--strict" in case.arguments


def run(shop: Workshop, seed: int, number: int, limit: float) -> tuple[Case, Ended, list[str]]:
    """Runs a case; returns what it was, how it ended and what went wrong."""
    shop.clean()
    case = make_case(seed, number, shop.place)
    heard = [shop.place / name for name in HEARD]
    for file in heard:
        file.touch()
    before = shop.state()
    child = Child(case.arguments, shop.place, case.streams, memory=MEMORY)
    ended = child.wait(4.0, polite=True) if case.kind == "option" else child.wait(limit)
    out, err = (file.read_text("utf-8", "replace") for file in heard)
    return case, ended, list(dict.fromkeys(faults(case, ended, out, err, shop.changes(before))))


def work(pattern: Mapping[str, Entry], root: Path, options: argparse.Namespace, first: int) -> None:
    """Runs every n-th case, and appends what came of it to a file."""
    shop = Workshop(pattern, root, first)
    with (root / f"{first}.jsonl").open("a") as results:
        for number in range(first, options.cases, options.jobs):
            case, ended, wrong = run(shop, options.seed, number, options.limit)
            told = {**asdict(case), "command": case.command, "shell": case.shell(), "wrong": wrong, **asdict(ended)}
            results.write(json.dumps(told) + "\n")
            results.flush()


def results_of(root: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Starts the workers, and yields what came of each case as they tell it."""
    workers = []
    for first in range(options.jobs):
        if not (pid := fork()):
            code = 1
            try:
                work(options.pattern, root, options, first)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        workers.append(pid)
    files = [root / f"{first}.jsonl" for first in range(options.jobs)]
    read = [0] * options.jobs
    while True:
        workers = [pid for pid in workers if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        for place, file in enumerate(files):
            if file.exists():
                with file.open() as lines:
                    lines.seek(read[place])
                    while (line := lines.readline()).endswith("\n"):
                        read[place] = lines.tell()
                        yield json.loads(line)
        if not workers:
            return
        time.sleep(0.1)


def main(words: list[str] | None = None) -> int:
    """Parses the command line, runs the cases, and prints what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="this case alone; its folder stays")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at once")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that a case may take")
    parser.add_argument("--results", type=Path, help="a file for what came of each case, as JSON lines")
    options = parser.parse_args(words)
    if not CAN_FORK:
        print("This system cannot fork processes: nothing is tried. Linux and macOS can.")
        return 0
    begun = time.monotonic()
    options.pattern = the_pattern()
    root = Path(tempfile.mkdtemp(prefix="minigpt-hostile-")).resolve()
    if options.only is not None:
        return show_one(root, options)
    print(f"{time.monotonic() - begun:.0f} s: everything is made; {options.cases:,} cases begin", flush=True)
    try:
        return show_all(root, options)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def show_one(root: Path, options: argparse.Namespace) -> int:
    """Runs one case, shows it, and leaves its folder."""
    shop = Workshop(options.pattern, root, 0)
    case, ended, wrong = run(shop, options.seed, options.only, options.limit)
    (root / "command.sh").write_bytes(os.fsencode(case.shell() + "\n"))
    print(f"{case.what}\n  {case.shell()[:2000]!a}\n  {ended}\n  {wrong}")
    print(f"  in {shop.place}; its line is in {root / 'command.sh'}")
    for name in HEARD:
        print(f"--- {name}\n{(shop.place / name).read_text('utf-8', 'replace')[-6000:]!a}".replace("\\n", "\n"))
    return bool(wrong)


def show_all(root: Path, options: argparse.Namespace) -> int:
    """Runs all cases; returns whether any went wrong."""
    begun = said = time.monotonic()
    tried: dict[str, Counter[str]] = {name: Counter() for name in ("command", "kind", "where", "code")}
    ways: set[str] = set()
    wrong: Counter[str] = Counter()
    first: dict[str, int] = {}
    done = failed = 0
    kept = options.results.open("w") if options.results else None
    for told in results_of(root, options):
        done += 1
        failed += bool(told["wrong"])
        ways.update(told["ways"])
        for name, count in tried.items():
            count[str(told[name])] += 1
        if kept:
            kept.write(json.dumps(told) + "\n")
        for fault in told["wrong"]:
            wrong[f"{told['command']}: {fault}"] += 1
            first.setdefault(f"{told['command']}: {fault}", told["number"])
        if told["wrong"]:
            print(
                f"case {told['number']}: {'; '.join(told['wrong'])}\n    {told['shell'][:300]!a}\n    {told['what']!a}",
                flush=True,
            )
        if time.monotonic() - said > 15:
            said = time.monotonic()
            left = (said - begun) / done * (options.cases - done)
            print(f"{done:,} of {options.cases:,} cases, {failed} went wrong, {left:.0f} s left", flush=True)
    print(f"\n{done:,} cases in {time.monotonic() - begun:.0f} s, seed {options.seed}; {failed} went wrong")
    for name in ("command", "kind", "code"):
        print(f"  by {name}: " + ", ".join(f"{what} {count}" for what, count in tried[name].most_common()))
    print(f"  {len(tried['where'])} files, options, sources and streams, {len(ways)} ways of damage")
    files = {name for name, (content, _) in options.pattern.items() if content is not None}
    missed = sorted(files - tried["where"].keys()) + sorted(WAYS - ways)
    if missed and done >= 5000:
        print(f"  never met: {', '.join(missed)}")
    for fault, count in wrong.most_common():
        print(f"  {count:5} {fault!a}   (--seed {options.seed} --only {first[fault]})")
    if done < options.cases:
        print(f"  {options.cases - done} cases were not run: a worker ended early")
    return bool(failed or done < options.cases)


if __name__ == "__main__":
    sys.exit(main())
