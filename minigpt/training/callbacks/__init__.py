"""What happens around the steps of a training: a file each, called in the order of `default_callbacks`.

A callback that names its `failure` may fail: that is noted once, and the training goes on. An error of any other ends
the run. A new callback is a class in a file of its own, and a line below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minigpt.records import Callback
from minigpt.training.callbacks.doctor import DoctorCallback
from minigpt.training.callbacks.health import HealthCallback
from minigpt.training.callbacks.intro import IntroCallback
from minigpt.training.callbacks.log import LogCallback
from minigpt.training.callbacks.plot import PlotCallback
from minigpt.training.callbacks.rewind import RewindCallback
from minigpt.training.callbacks.sample import SampleCallback
from minigpt.training.callbacks.save import SaveCallback
from minigpt.training.callbacks.validate import ValidateCallback
from minigpt.training.estimate import TrainingEstimate
from minigpt.training.trainer_callback import FunctionCallback, TrainerCallback


def default_callbacks(
    given: Sequence[Callback | TrainerCallback],
    should_stop: Callable[[], bool],
    matmul_flops: float,
    estimate: TrainingEstimate | None = None,
    warn: bool = True,
) -> list[TrainerCallback]:
    """Returns the callbacks of a run, in the order in which they are called.

    Args:
        given: the caller's own.
        should_stop: asked after each step.
        matmul_flops: the machine's FLOP/s in matrix products.
        estimate: what a new run is expected to cost.
        warn: whether to warn of settings that do not fit the run.
    """
    return [
        HealthCallback(),
        LogCallback(matmul_flops),
        *(one if isinstance(one, TrainerCallback) else FunctionCallback(one) for one in given),
        DoctorCallback(),
        IntroCallback(estimate, warn),
        RewindCallback(),
        SaveCallback(should_stop),  # before validation, so that an error there loses nothing
        ValidateCallback(),
        SampleCallback(),
        PlotCallback(),
    ]
