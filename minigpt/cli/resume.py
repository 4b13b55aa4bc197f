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
    """Resume a run that was stopped or killed, as if it had never stopped; or train a finished one further.

    Continues from the newest intact checkpoint, with the same batches and the same dropout: in the end, the weights are
    the same, bit for bit. On another machine, or with another version of torch, they are the same up to rounding, and
    a note says so.

    --epochs or --steps give a run a new length, and stretch its learning-rate schedule over it: a constant rate stays
    as it was; other schedules continue at the rate that a run of the new length has at this step. A run that was
    stopped early continues with a larger --patience, or with a new length, where its patience starts anew.

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
        New number of epochs, in total.
    steps
        New number of steps, in total, instead of epochs.
    patience
        New --train.patience: stop early after this many validations without a lower loss; 0 turns this off.
    tensorboard
        Also write to RUN/tensorboard (extra `tensorboard`).
    """
    from minigpt.cli.train_view import StopSignals, TrainView, callbacks
    from minigpt.training import resume

    with TrainView() as view, StopSignals() as stop:
        result = resume(
            run,
            data=data,
            epochs=epochs,
            steps=steps,
            patience=patience,
            callbacks=callbacks(view, tensorboard),
            should_stop=stop,
        )
    view.summary(result)
    return stop.exit_code if result.stopped else 0
