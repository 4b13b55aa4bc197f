"""`minigpt` commands in forks of one process that has imported everything: tens of milliseconds each, not seconds.

A fork finds Python, torch and the package in memory. In it the streams, the working folder and the arguments are those
of a new process, `minigpt.cli.app.main` runs, and the process ends as the interpreter would end it. What is measured of
the machine (the rate of matrix products) is a constant here: it decides the precision, and takes seconds.

Needs a system that forks: Linux, macOS. `hostile.py` and `kills.py` use it.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

QUIET = {
    "OMP_NUM_THREADS": "1",  # a pool of threads does not live through a fork
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "COLUMNS": "120",
}
CLOSED = "closed"
"""A stream that is not there at all, as the shell's `>&-` makes it."""

ASLEEP = 5.0
"""So many seconds without any work mean that a process waits for what never comes."""

CAN_FORK = hasattr(os, "fork")


def be_quiet() -> None:
    """Sets the environment in which a process may fork. Before torch is imported."""
    assert "torch" not in sys.modules
    os.environ.update(QUIET)


def warm_up() -> None:
    """Imports what commands import, once for all forks."""
    import pyarrow.parquet  # noqa: F401
    import safetensors.torch  # noqa: F401
    import tokenizers  # noqa: F401
    import torch

    import minigpt.cli.app
    import minigpt.cli.commands
    import minigpt.cli.train_view
    import minigpt.doctor
    import minigpt.evaluation
    import minigpt.export
    import minigpt.generation
    import minigpt.report
    import minigpt.runtime
    import minigpt.training

    torch.set_num_threads(1)
    rates = {torch.bfloat16: 1e9, torch.float16: 1e9, torch.float32: 1e9}
    minigpt.runtime.measure_matmul_flops = lambda device, dtype, *_, **__: rates[dtype]


def tell_modules(file: Path) -> None:
    """Writes the names of the modules that are imported."""
    file.write_text("\n".join(list(sys.modules)))


def import_told(file: Path) -> None:
    """Imports what a command that ran before has imported, so that later forks find it."""
    for name in file.read_text().split("\n"):
        if not name.startswith("_"):
            with suppress(Exception):
                importlib.import_module(name)


@dataclass(frozen=True)
class Streams:
    """Where a command's streams lead: a file's path, `CLOSED`, or /dev/null."""

    stdin: str = os.devnull
    stdout: str = os.devnull
    stderr: str = os.devnull


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code, or minus the number of the signal that ended it.
        seconds: how long it took.
        hung: why it was killed here ("asleep", "too long", "deaf to SIGTERM"), or "".
    """

    code: int
    seconds: float
    hung: str = ""


def fork() -> int:
    """Forks, whatever idle threads libraries may have started: what runs in the forks needs none of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on
        return os.fork()


class Child:
    """A command that runs in a fork.

    Args:
        arguments: what stands behind `minigpt`.
        folder: its working folder; its temporary files go into `tmp` beside that.
        streams: where its streams lead.
        memory: bytes that it may take beyond what it begins with; None for any number.
        before: called in the fork, right before the command.
        after: called in the fork, right behind it.
    """

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        streams: Streams = Streams(),
        memory: int | None = None,
        before: Callable[[], object] | None = None,
        after: Callable[[], object] | None = None,
    ) -> None:
        self.began = time.monotonic()
        self.pid = fork()
        if not self.pid:
            _become(arguments, folder, streams, memory, before, after)

    def send(self, number: int) -> None:
        """Sends a signal to it and what it has started."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # it has no group of its own yet, or is gone
            os.kill(self.pid, number)

    def wait(self, limit: float, polite: bool = False) -> Ended:
        """Waits for its end, at most so many seconds; kills it then.

        Args:
            limit: seconds.
            polite: it may take longer, if it ends on SIGTERM then.
        """
        try:
            return self._wait_in_order(limit, polite)
        except BaseException:  # Ctrl-C: nothing is left running
            self.send(signal.SIGKILL)
            raise

    def _wait_in_order(self, limit: float, polite: bool) -> Ended:
        ended = self._wait(limit)
        if ended is None and polite:
            self.send(signal.SIGTERM)
            ended = self._wait(ASLEEP)
            limit = -1.0
        if ended is not None:
            return ended
        hung = "deaf to SIGTERM" if limit < 0 else "asleep" if time.monotonic() - self.began < limit else "too long"
        self.send(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), time.monotonic() - self.began, hung)

    def _wait(self, limit: float) -> Ended | None:
        """Returns its end; None if that has not come in so many seconds, or never will."""
        pause, worked, since = 0.001, -1.0, time.monotonic()
        end = since + limit
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            now = time.monotonic()
            if pid:
                return Ended(os.waitstatus_to_exitcode(status), now - self.began)
            if now > end or (now - since > ASLEEP and limit > ASLEEP):
                return None
            if pause >= 0.02 and (work := _work(self.pid)) != worked:
                worked, since = work, now
            time.sleep(pause)
            pause = min(0.02, 1.3 * pause)


def _work(pid: int) -> float:
    """Returns a number that changes as long as a process works, or waits for one that it has started."""
    try:
        if Path(f"/proc/{pid}/task/{pid}/children").read_text():
            return time.monotonic()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return time.monotonic() if fields[0] != "S" else float(fields[11]) + float(fields[12])
    except OSError:  # no Linux, or it ends just now
        return time.monotonic()


def _become(
    arguments: list[str],
    folder: Path,
    streams: Streams,
    memory: int | None,
    before: Callable[[], object] | None,
    after: Callable[[], object] | None,
) -> NoReturn:
    """Turns this fork into a process that runs a command, to its end."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["TMPDIR"], tempfile.tempdir = str(folder.parent / "tmp"), None
        if memory is not None:
            _limit_memory(memory)
        _connect(streams)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        code = _run(arguments, before)
        if after is not None:
            after()
    finally:
        os._exit(code)


def _run(arguments: list[str], before: Callable[[], object] | None) -> int:
    """Runs a command as the interpreter would; returns its exit code."""
    from minigpt.cli.app import main

    sys.argv = ["minigpt", *arguments]
    try:
        if before is not None:
            before()
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        code = 1
        with suppress(OSError):
            if sys.stderr is not None:
                traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError):
            code = 120 if stream is sys.stdout else code  # as Python itself does
    return code


def _connect(streams: Streams) -> None:
    """Makes file descriptors 0, 1 and 2 and Python's streams of them."""
    for number, (name, place) in enumerate(vars(streams).items()):
        mode = os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT
        if place == CLOSED:
            os.close(number)
            stream: Any = None
        else:
            opened = os.open(place, mode | getattr(os, "O_APPEND", 0) * (number > 0), 0o644)
            os.dup2(opened, number)
            if opened != number:
                os.close(opened)
            stream = _text_stream(number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _text_stream(number: int) -> IO[str]:
    raw: Any = open(number, "rb" if not number else "wb", closefd=False)  # noqa: SIM115
    errors = ("surrogateescape", "strict", "backslashreplace")[number]
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, line_buffering=number == 2, write_through=False)


def _limit_memory(more: int) -> None:
    """Limits what it takes for itself; files that are mapped do not count. Only Linux keeps to that."""
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        taken = 1024 * int(status.read_text().partition("VmData:")[2].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (taken + more, taken + more))
