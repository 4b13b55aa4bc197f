"""Kills, signals, other users, a second process, lost data, a moved clock: nothing is lost, nothing half-written stays.

    kills      SIGKILL at a random moment, and right before or after the n-th write, rename or sync: sources stay as
               they were, no half-written file has its final name, and the same command then gives the same result
    signals    hang-up, Ctrl-C and SIGTERM: their exit code, no traceback, nothing half-written
    users      a run that belongs to another user can be read, and is not written to
    together   two processes in one run, one data set, one place
    lost       the data set goes, or is cut, while a run trains on it
    clock      time jumps back and forth; files are of the future, or of 1970

    python benchmarks/kills.py                        100 kills and all else, some minutes on two cores
    python benchmarks/kills.py --kills 1000 --only kills

Training that is killed is what crash_soak.py looks at.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from trials.accidents import clock, lost, together, users
from trials.aftermath import (
    KILLED,
    SIGNALLED,
    alone,
    differences,
    half_written,
    kill_at,
    leftovers,
    said,
    some,
    start,
    tree_of,
    writes_of,
)
from trials.forking import CAN_FORK, Ended
from trials.pattern import the_pattern
from trials.workshop import Workshop


def kills(shop: Workshop, chance: random.Random, number: int, quick: bool) -> Iterator[str]:
    """Kills each command in turn; yields what was wrong, or "" for a kill that went well."""
    references = {}
    names = some(KILLED, quick)
    for name in names:
        shop.clean()
        before = tree_of(shop)
        references[name] = (before, *alone(shop, KILLED[name]), writes_of(shop, KILLED[name]))
        print(f"{name}: {references[name][2]:.2f} s, {references[name][3]} writes", flush=True)
    done = 0
    while done < number:
        name = names[done % len(names)]
        before, whole, seconds, writes = references[name]
        shop.clean()
        if chance.random() < 0.5 and writes:
            nth, after = chance.randrange(1, writes + 1), chance.random() < 0.5
            how = f"{'after' if after else 'before'} write {nth} of {writes}"
            ended = start(shop, KILLED[name], before=kill_at(nth, after)).wait(120)
        else:
            moment = chance.uniform(0, 1.05 * seconds)
            how = f"at {moment:.3f} of {seconds:.3f} s"
            child = start(shop, KILLED[name])
            time.sleep(moment)
            child.send(signal.SIGKILL)
            ended = child.wait(120)
        if ended.code != -signal.SIGKILL:
            continue  # it had ended before
        done += 1
        wrong = list(half_written(shop, name, before, whole))
        if name in ("prepare", "export", "import") and (shop.place / ("new" if name == "import" else "out")).exists():
            ended = Ended(0, 0.0)  # it was done, and is whole
        else:
            ended = start(shop, KILLED[name]).wait(120)
            if ended.code:
                wrong.append(f"the same command again ended with {ended.code}: {said(shop)[-300:]!a}")
        wrong += [f"then {difference}" for difference in differences(tree_of(shop), whole)]
        yield f"{KILLED[name]}, killed {how}: {'; '.join(wrong)}" if wrong else ""


def signals(shop: Workshop, chance: random.Random, number: int, quick: bool) -> Iterator[str]:
    """Sends each command each signal, several times at random moments."""
    for name in some(SIGNALLED, quick):
        line = SIGNALLED[name]
        shop.clean()
        before = tree_of(shop)
        whole, seconds = alone(shop, line)
        for which in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            for _ in range(number):
                shop.clean()
                moment = chance.uniform(0.01, 0.9 * seconds)
                child = start(shop, line)
                time.sleep(moment)
                child.send(which)
                ended = child.wait(30)
                err = said(shop)
                wrong = [] if ended.code in (0, -which, 128 + which) else [f"ended with {ended.code}"]
                wrong += ["it did not end"] if ended.hung else []
                wrong += [f"traceback: {err.strip().splitlines()[-1]!a}"] if "Traceback" in err else []
                if name not in ("train", "resume"):
                    wrong += half_written(shop, name, before, whole)
                wrong += [f"{left} is left over" for left in leftovers(tree_of(shop)) if ended.code != -which]
                yield f"{line}, {which.name} at {moment:.3f} of {seconds:.3f} s: {'; '.join(wrong)}" if wrong else ""


TO_BE_MADE = {"run/evaluation.json", "run/report.html"}
"""Kept from an earlier measuring: here they are to be made anew."""

SECTIONS = {
    "kills": kills,
    "signals": signals,
    "users": users,
    "together": together,
    "lost": lost,
    "clock": clock,
}


def main(words: list[str] | None = None) -> int:
    """Parses the command line, runs the sections, and prints what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signals", type=int, default=3, help="how often each command gets each signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a quarter of the commands and accidents")
    options = parser.parse_args(words)
    if not CAN_FORK:
        print("This system cannot fork processes: nothing is tried. Linux and macOS can.")
        return 0
    pattern = {name: entry for name, entry in the_pattern().items() if name not in TO_BE_MADE}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="minigpt-kills-") as folder:
        shop = Workshop(pattern, Path(folder).resolve(), 0)
        for name in options.only or SECTIONS:
            begun, done, wrong = time.monotonic(), 0, 0
            number = options.signals if name == "signals" else options.kills
            for fault in SECTIONS[name](shop, random.Random(f"{options.seed}/{name}"), number, options.quick):
                done += 1
                wrong += bool(fault)
                if fault:
                    print(f"  {fault}", flush=True)
            print(f"{name}: {done} tried in {time.monotonic() - begun:.0f} s, {wrong} went wrong", flush=True)
            failed += wrong
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
