"""Which signals ask a command to stop. What it then does is up to the command (train_view.py, prepare.py)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def asked_to_stop() -> list[int]:
    """Returns SIGINT, SIGTERM and SIGHUP as far as the system has them, except those that are ignored.

    `nohup` ignores SIGHUP, and shells ignore SIGINT for background jobs; both stay ignored.
    """
    there = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    return [number for number in there if number is not None and signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that nothing half-written is left behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(128 + number)

    before = {number: signal.signal(number, stop) for number in asked_to_stop()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
