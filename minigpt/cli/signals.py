"""Which signals ask a command to stop.

Not here: what it does then (train_view.py for training, prepare.py).
"""

from __future__ import annotations

import signal


def asked_to_stop() -> list[int]:
    """Returns Ctrl-C, SIGTERM and hang-up, as far as the system has them, but for those that are to be ignored.

    `nohup` has a hang-up ignored, and a shell Ctrl-C for what it starts in the background: that stays so.
    """
    there = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    return [number for number in there if number is not None and signal.getsignal(number) is not signal.SIG_IGN]
