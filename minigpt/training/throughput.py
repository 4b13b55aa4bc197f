"""How fast a run is, between two of its records."""

from __future__ import annotations

import time

from minigpt.runtime import DeviceMonitor


class Throughput:
    """Measures speed, waiting and use between two step records.

    Attributes:
        tokens: targets trained on; whoever trains adds to it.
        waited: seconds spent waiting for data; whoever waits adds to it.
    """

    def __init__(self, monitor: DeviceMonitor) -> None:
        self.monitor = monitor
        self._restart()

    def _restart(self) -> None:
        self.tokens, self.waited, self.since = 0, 0.0, time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """Does not count the seconds just spent on something else than training."""
        self.since += seconds

    def read(self) -> dict[str, float]:
        """Returns speed, waiting, memory and use since the last reading, and starts over."""
        elapsed = time.perf_counter() - self.since
        reading = {
            "tokens_per_second": round(self.tokens / elapsed, 1),
            "data_wait_ratio": round(self.waited / elapsed, 5),
            **self.monitor.read(),
        }
        self._restart()
        return reading
