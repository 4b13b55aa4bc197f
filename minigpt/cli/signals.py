"""Which signals ask a command to stop. What it then does is up to the command (train_view.py, prepare.py)."""

from __future__ import annotations

import signal


def asked_to_stop() -> list[int]:
    """Returns SIGINT, SIGTERM and SIGHUP as far as the system has them, except those that are ignored.

    `nohup` ignores SIGHUP, and shells ignore SIGINT for background jobs; both stay ignored.
    """
    there = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    return [number for number in there if number is not None and signal.getsignal(number) is not signal.SIG_IGN]
