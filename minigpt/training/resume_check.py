"""Proof that resuming is exact, on this machine and with these settings: one run left alone, one killed and resumed.

Each run is a process of its own; a kill is one that no program can catch (SIGKILL, or TerminateProcess). In the end
every byte of weights and optimizer, and every figure that does not tell of time, must be the same.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from minigpt.config import Config
from minigpt.errors import ConfigError, RunError
from minigpt.generation.sample_log import read_sample_log
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder
from minigpt.text_utils import pluralize

TIMES = {"seconds", "tokens_per_second", "data_wait_ratio", "memory", "device_util"}
"""Fields of metrics.jsonl that tell of the machine's time, not of the training."""


@dataclass(frozen=True)
class Verdict:
    """What came of it.

    Attributes:
        kills: how many processes were killed while they trained.
        steps: steps of each run.
        differences: what differs between the two runs; empty when resuming is exact.
    """

    kills: int
    steps: int
    differences: tuple[str, ...]


def verify_resume(
    data: Path | str,
    config: Config,
    *,
    steps: int = 20,
    kills: int = 3,
    seed: int = 0,
    init_from: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Verdict:
    """Trains twice for a few steps, one of the runs killed at random moments and resumed, and compares.

    Args:
        data: a data set.
        config: the settings to prove; their length and their saves are replaced by shorter ones.
        steps: optimizer steps of each run.
        kills: how often the second run is killed.
        seed: decides when.
        init_from: a run whose weights both begin with.
        tell: is given a line of progress now and then.

    Raises:
        ConfigError: if there are fewer steps than kills.
        RunError: if a run fails by itself; with what it said.
    """
    if not 1 <= kills < steps:
        seen = f"{pluralize(kills, 'kill')}, {pluralize(steps, 'step')}"
        raise ConfigError("Each kill needs a step of its own", got=seen, remedy="Give more steps.")
    every = max(1, steps // 5)
    train = replace(
        config.train, steps=steps, save_every=every, validate_every=2 * every, log_every=1, keep_checkpoints=1000
    )
    config = replace(config, train=train)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="minigpt-verify-", ignore_cleanup_errors=True) as temporary:
        whole, killed = Path(temporary, "whole"), Path(temporary, "killed")
        settings = Path(temporary, "config.toml")
        settings.write_text(config.to_toml(), encoding="utf-8")
        first = [] if init_from is None else ["--init-from", str(init_from)]
        begin = ["train", "--data", str(data), "--config", str(settings), *first, "--run"]
        tell(f"training {pluralize(steps, 'step')} without a break")
        run_command([*begin, str(whole)])
        # a step in each stretch of the run, so that the kills are spread over all of it
        stretch = steps / kills
        marks = [min(steps - 1, max(1, round(stretch * (k + chance.random())))) for k in range(kills)]
        done = 0
        for mark in marks:
            command = ["resume", str(killed)] if killed.exists() else [*begin, str(killed)]
            passed = partial(_has_passed, killed, mark)
            if not run_command(command, kill_when=passed, after=chance.uniform(0, 0.2)):
                done += 1
                tell(f"killed once more, after step {last_step(killed)} ({done} of {kills})")
        run_command(["resume", str(killed)] if killed.exists() else [*begin, str(killed)])
        return Verdict(done, steps, tuple(differences(whole, killed)))


def differences(one: Path, other: Path) -> list[str]:
    """Returns in which checkpoints, figures and files two runs differ, as sentences."""
    found = []
    ours, theirs = _checkpoints(one), _checkpoints(other)
    if ours.keys() != theirs.keys():
        found.append(f"checkpoints {sorted(ours.keys() ^ theirs.keys())} are in one run only")
    found += [f"{name} differs" for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]
    records = [
        [_timeless(r) for r in read_metrics(run / "metrics.jsonl") if r["kind"] != "plan"] for run in (one, other)
    ]
    if len(records[0]) != len(records[1]):
        found.append(f"metrics.jsonl has {len(records[0])} lines in one run and {len(records[1])} in the other")
    found += [f"metrics differ: {a} and {b}" for a, b in zip(*records, strict=False) if a != b]
    said = [[kept.to_json() for kept in read_sample_log(RunFolder(run))] for run in (one, other)]
    if said[0] != said[1]:
        found.append("samples.jsonl differs")
    return found


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


def _checkpoints(run: Path) -> dict[str, bytes]:
    """Returns the tensors' files of every checkpoint."""
    return {
        f"{folder.name}/{file.name}": file.read_bytes()
        for folder in RunFolder(run).checkpoint_folders()
        for file in sorted(folder.glob("*.safetensors"))
    }


def last_step(run: Path) -> int:
    """Returns the last step in a run's metrics; 0 before the first."""
    return max((record["step"] for record in read_metrics(run / "metrics.jsonl")), default=0)


def _has_passed(run: Path, step: int) -> bool:
    return last_step(run) >= step


def run_command(command: Sequence[str], kill_when: Callable[[], bool] | None = None, after: float = 0.0) -> bool:
    """Runs a `minigpt` command; true if it ended, false if it was killed.

    Args:
        command: what stands behind `minigpt`.
        kill_when: asked a hundred times a second; kill the process some time after it says yes.
        after: that time, in seconds.

    Raises:
        RunError: if it fails by itself.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        while kill_when is not None and process.poll() is None:
            if kill_when():
                time.sleep(after)
                process.kill()
                break
            time.sleep(0.01)
        ended_by_itself = process.poll() is not None or kill_when is None
        _, errors = process.communicate()
    except BaseException:
        process.kill()
        raise
    if not ended_by_itself:
        return False
    if process.returncode:
        raise RunError("A run of the proof failed", got=errors.strip()[-500:], remedy="Mend that first.")
    return True
