"""A check that resuming is exact, on this machine: one run without interruption, one killed and resumed.

Each run is a process of its own, killed in a way that no program can catch (SIGKILL, or TerminateProcess). In the end
every byte of weights and optimizer state, and every metric that does not measure time, must be the same.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from minigpt.config import Config
from minigpt.errors import ConfigError, RunError
from minigpt.generation.sample_log import read_sample_log
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder
from minigpt.text_utils import pluralize

TIMES = {"seconds", "tokens_per_second", "data_wait_ratio", "memory", "device_util", "mfu"}
"""Fields of metrics.jsonl that measure the machine, not the training."""


def verify_resume(
    data: Path | str,
    config: Config,
    *,
    steps: int = 20,
    kills: int = 3,
    init_from: Path | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[int, list[str]]:
    """Trains twice for a few steps, one of the runs killed at random moments and resumed, and compares them.

    Args:
        data: a data set.
        config: the settings to check; their length and their saves are replaced by shorter ones.
        steps: optimizer steps of each run.
        kills: how often to kill the second run.
        init_from: a run whose weights both start from.
        report: is given lines of progress.

    Returns:
        How often a process was killed while it trained, and what differs between the runs.

    Raises:
        ConfigError: if there are fewer steps than kills.
        RunError: if a run fails.
    """
    if not 1 <= kills < steps:
        got = f"{pluralize(kills, 'kill')}, {pluralize(steps, 'step')}"
        raise ConfigError("Every kill needs a step of its own", got=got, remedy="Increase --steps.")
    every = max(1, steps // 5)
    train = replace(
        config.train, steps=steps, save_every=every, validate_every=2 * every, log_every=1, keep_checkpoints=1000
    )
    rng = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="minigpt-verify-", ignore_cleanup_errors=True) as temporary:
        whole, killed = Path(temporary, "whole"), Path(temporary, "killed")
        settings = Path(temporary, "config.toml")
        settings.write_text(replace(config, train=train).to_toml(), encoding="utf-8")
        start = ["train", "--data", str(data), "--config", str(settings)]
        start += ["--init-from", str(init_from)] if init_from is not None else []

        def command() -> list[str]:
            return ["resume", str(killed)] if killed.exists() else [*start, "--run", str(killed)]

        report(f"training {pluralize(steps, 'step')} without interruption")
        run_command([*start, "--run", str(whole)])
        count, stretch = 0, steps / kills  # a kill in each stretch of the run
        for number in range(kills):
            step = min(steps - 1, max(1, round(stretch * (number + rng.random()))))
            if not run_command(command(), partial(_has_passed, killed, step), rng.uniform(0, 0.2)):
                count += 1
                report(f"killed after step {last_step(killed)} ({count} of {kills})")
        run_command(command())
        return count, differences(whole, killed)


def differences(one: Path, other: Path) -> list[str]:
    """Returns which checkpoints, metrics and samples of two runs differ, as sentences."""
    found = []
    ours, theirs = _checkpoints(one), _checkpoints(other)
    if ours.keys() != theirs.keys():
        found.append(f"checkpoints {sorted(ours.keys() ^ theirs.keys())} are in one run only")
    found += [f"{name} differs" for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]
    records = [
        [_without_times(r) for r in read_metrics(run / "metrics.jsonl") if r["kind"] != "plan"] for run in (one, other)
    ]
    if len(records[0]) != len(records[1]):
        found.append(f"metrics.jsonl has {len(records[0])} lines in one run and {len(records[1])} in the other")
    found += [f"metrics differ: {a} and {b}" for a, b in zip(*records, strict=False) if a != b]
    samples = [[sample.to_json() for sample in read_sample_log(RunFolder(run))] for run in (one, other)]
    return [*found, "samples.jsonl differs"] if samples[0] != samples[1] else found


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


def _checkpoints(run: Path) -> dict[str, bytes]:
    """Returns the contents of the tensor files of every checkpoint."""
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


def run_command(arguments: Sequence[str], kill_when: Callable[[], bool] | None = None, delay: float = 0.0) -> bool:
    """Runs a `minigpt` command; returns whether it ended, and was not killed.

    Args:
        arguments: of the command.
        kill_when: asked a hundred times a second; the process is killed `delay` seconds after the first true.
        delay: seconds.

    Raises:
        RunError: if the command fails.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    killed = False
    try:
        while kill_when is not None and process.poll() is None:
            if kill_when():
                time.sleep(delay)
                killed = process.poll() is None
                process.kill()
                break
            time.sleep(0.01)
        _, errors = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if not killed and process.returncode:
        raise RunError("A run of the check failed", got=errors.strip()[-500:], remedy="Fix that first.")
    return not killed
