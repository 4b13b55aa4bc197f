"""What happens to a run while nobody thinks of it: another user, a second process, data that goes, a moved clock.

Each function is given a workshop and yields what went wrong, or "" for a trial that went well.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from trials.aftermath import KILLED, SIGNALLED, alone, differences, messages, said, some, start, tree_of
from trials.cases import TINY
from trials.workshop import Workshop


def users(shop: Workshop, chance: random.Random, number: int, quick: bool) -> Iterator[str]:
    """Reads a run that belongs to root as nobody."""
    if os.geteuid():
        print("users: left out; only root can become another user")
        return
    theirs = shop.place.parent.parent / "theirs"

    def become_nobody() -> None:
        os.environ |= {"HOME": str(theirs), "XDG_CACHE_HOME": str(theirs)}
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.umask(0o022)

    shop.clean()
    for folder in (theirs.parent.parent, theirs.parent):
        folder.chmod(0o755)
    reading = (
        *("generate run --max-new-tokens 4", "evaluate run", "evaluate imported --data data", "doctor run"),
        *(f"export run --out {theirs}/out", f"import model --run {theirs}/new", "samples run"),
        *(f"report run --out {theirs}/page.html", f"train --data data --run {theirs}/run --steps 2 {TINY}"),
        f"train --init-from run --data data --run {theirs}/more --steps 2",
        f"prepare stories --out {theirs}/data --tokenizer run --block-size 8",
        *(f"plan --data data {TINY}", "samples run --prompt cat --max-new-tokens 4"),
    )
    writing = (
        *("resume run --steps 8", "export run --out out", "prepare stories --out out --tokenizer byte", "report run"),
        *("import model --run new", f"train --data data --run new --steps 2 {TINY}"),
    )
    for line in some([*reading, *writing], quick):
        shop.clean()
        shutil.rmtree(theirs, ignore_errors=True)
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
        before = tree_of(shop)
        ended = start(shop, line, before=become_nobody).wait(120)
        err, expected = said(shop), 2 if line in writing else 0
        wrong = [] if ended.code == expected else [f"ended with {ended.code}: {err[-300:]!a}"]
        wrong += ["traceback"] if "Traceback" in err else []
        wrong += ["what belongs to root has changed"] if tree_of(shop) != before else []
        yield f"as nobody: {line}: {'; '.join(wrong)}" if wrong else ""


def together(shop: Workshop, chance: random.Random, number: int, quick: bool) -> Iterator[str]:
    """Runs two commands at once in one run or place."""
    beside = (
        *("generate run --max-new-tokens 4", "evaluate run", "report run", "export run --out out", "doctor run"),
        *("samples run --prompt cat --max-new-tokens 4", "samples run --json", "resume run --steps 9"),
    )
    for line in some(beside, quick):
        shop.clean()
        first = start(shop, "resume run --steps 100000 --data data")
        wrong = _wait_for(shop.place / "run" / "metrics.jsonl", b'"step": 7')
        ended = start(shop, line).wait(60)
        expected = 2 if line.startswith("resume") else 0
        wrong += [] if ended.code == expected else [f"ended with {ended.code}: {said(shop)[-300:]!a}"]
        first.send(signal.SIGTERM)
        ended = first.wait(30)
        wrong += [] if ended.code == 143 else [f"the training ended with {ended.code}"]
        ended = start(shop, "doctor run").wait(30)
        wrong += [f"doctor ended with {ended.code}"] if ended.code else []
        yield f"{line}, beside a training: {'; '.join(wrong)}" if wrong else ""
    lines = {**KILLED, "train": f"train --data data --run new --steps 3 {TINY}"}
    for name in some(lines, quick):
        line = lines[name]
        whole, _ = alone(shop, line)
        shop.clean()
        children = [start(shop, line) for _ in range(2)]
        codes = sorted(child.wait(120).code for child in children)
        once = name in ("prepare", "export", "import", "train")
        wrong = [] if codes in ([0, 2], [0, 0])[not once :] else [f"ended with {codes}: {said(shop)[-300:]!a}"]
        if name != "train":
            wrong += differences(tree_of(shop), whole)
        yield f"{line}, twice at once: {'; '.join(wrong)}" if wrong else ""


def _wait_for(file: Path, text: bytes, seconds: float = 30.0) -> list[str]:
    """Waits until a file holds a text; returns what is wrong if it does not come to."""
    end = time.monotonic() + seconds
    while not (file.exists() and text in file.read_bytes()):
        if time.monotonic() > end:
            return [f"{file.name} never held {text!r}"]
        time.sleep(0.01)
    return []


def lost(shop: Workshop, chance: random.Random, number: int, quick: bool) -> Iterator[str]:
    """Takes the data set away while a run trains on it."""
    data = shop.place / "data"
    harms: dict[str, Callable[[], object]] = {
        "the folder goes": lambda: shutil.rmtree(data),
        "the training tokens go": (data / "train.tokens").unlink,
        "the validation tokens go": (data / "val.tokens").unlink,
        "the training tokens are cut": lambda: os.truncate(data / "train.tokens", 200),
        "the validation tokens are cut": lambda: os.truncate(data / "val.tokens", 129),
        "all tokens are cut to nothing": lambda: [os.truncate(file, 0) for file in data.glob("*.tokens")],
        "the run goes": lambda: shutil.rmtree(shop.place / "run"),
        "the checkpoints go": lambda: shutil.rmtree(shop.place / "run" / "checkpoints"),
    }
    for name, harm in some(harms.items(), quick):
        shop.clean()
        child = start(shop, "resume run --steps 60")
        wrong = _wait_for(shop.place / "run" / "metrics.jsonl", b'"step": 9')
        harm()
        ended, err = child.wait(60), said(shop)
        if ended.code not in (0, 2):
            wrong.append(f"ended with {ended.code}: {err[-300:]!a}")
        if ended.code == 2 and messages(err) != 1:
            wrong.append("exit code 2 without one message")
        if "tokens" in name or "folder" in name:
            for file, (content, _) in shop.pattern.items():
                if file.startswith("data/") and content is not None:
                    data.mkdir(exist_ok=True)
                    (shop.place / file).write_bytes(content)
            ended = start(shop, "resume run --steps 63").wait(60)
            wrong += [f"then resume ended with {ended.code}: {said(shop)[-300:]!a}"] if ended.code else []
        yield f"{name} while a run trains: {'; '.join(wrong)}" if wrong else ""


def clock(shop: Workshop, chance: random.Random, number: int, quick: bool) -> Iterator[str]:
    """Moves the clock, and the times of files."""

    def jumping() -> None:
        real, jumps = time.time, random.Random(1)
        time.time = lambda: real() + jumps.choice([-1e9, -3600.0, 0.0, 3600.0, 1e9])

    for line in some(SIGNALLED.values(), quick):
        whole, _ = alone(shop, line)
        for how in ("jumps", "the future", "1970"):
            shop.clean()
            if how != "jumps":
                for path in shop.place.rglob("*"):
                    if not path.is_symlink():
                        os.utime(path, (4e9, 4e9) if how == "the future" else (0, 0))
            ended = start(shop, line, before=jumping if how == "jumps" else None).wait(120)
            wrong = [f"ended with {ended.code}: {said(shop)[-300:]!a}"] if ended.code else []
            wrong += differences(tree_of(shop), whole)
            yield f"{line}, clock: {how}: {'; '.join(wrong)}" if wrong else ""
