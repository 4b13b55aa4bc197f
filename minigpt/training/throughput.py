"""How fast a run trains, between two of its step records."""

from __future__ import annotations

from minigpt.runtime import DeviceMonitor


class Throughput:
    """Measures speed, data wait and device use of the steps between two records, without what happens around them.

    Attributes:
        tokens, seconds: targets trained on, and the time that their steps took.
        data_wait: seconds of it spent waiting for batches; whoever waits adds to it.
    """

    def __init__(self, monitor: DeviceMonitor) -> None:
        self.monitor = monitor
        self.reset()

    def reset(self) -> None:
        """Starts over."""
        self.tokens, self.seconds, self.data_wait = 0, 0.0, 0.0

    def count(self, tokens: int, seconds: float) -> None:
        """Adds a step."""
        self.tokens += tokens
        self.seconds += seconds

    def read(self) -> dict[str, float]:
        """Returns speed, data wait, memory and device use since the last reading, and starts over."""
        reading = {
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "data_wait_ratio": round(self.data_wait / self.seconds, 5),
            **self.monitor.read(),
        }
        self.reset()
        return reading
