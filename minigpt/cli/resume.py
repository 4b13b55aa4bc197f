"""`minigpt resume`."""

from __future__ import annotations

from pathlib import Path


def resume_command(
    run: Path,
    /,
    *,
    data: Path | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    patience: int | None = None,
    tensorboard: bool = False,
) -> int:
    """Go on with a run that was stopped, killed or finished, as if it had never stopped.

    Takes the newest whole checkpoint, checks that data and settings are those it was made with, and goes on: the same
    batches, the same dropout, the same weights in the end, bit for bit. On another machine, or with another torch, it
    goes on as near as rounding lets it, and says so.

    A finished run can be given a new length with --epochs or --steps. Its schedule is then laid out over the new
    length: constant goes on as it was; the others go on at the rate that a run of this length has at this step.

    A run that its patience has ended goes on with a larger --patience, or with a new length, where it waits anew.

    Examples:

    `minigpt resume runs/books`

    `minigpt resume runs/books --epochs 20`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    data
        Where the data set is now, if it has moved.
    epochs
        A new number of epochs.
    steps
        A new number of steps, instead of epochs.
    patience
        A new --train.patience: how many validations without a lower loss end the run early; 0 for none.
    tensorboard
        Also write to RUN/tensorboard (extra `tensorboard`).
    """
    from minigpt.cli.train_view import StopSignals, TrainView, callbacks
    from minigpt.training import resume

    with TrainView() as view, StopSignals() as stop:
        outcome = resume(
            run,
            data=data,
            epochs=epochs,
            steps=steps,
            patience=patience,
            callbacks=callbacks(view, run, tensorboard),
            should_stop=stop,
        )
    view.summary(outcome)
    return stop.exit_code if outcome.stopped else 0
