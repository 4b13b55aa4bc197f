"""`minigpt plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from minigpt.cli.config_options import PRESETS, options, parent_of, typed_settings
from minigpt.config import Config, GPTConfig, MachineConfig, OptimizerConfig, ScheduleConfig, TrainConfig, resolve

if TYPE_CHECKING:
    from minigpt.runtime import Runtime
    from minigpt.training.estimate import TrainingEstimate


def plan_command(
    *,
    data: Path | None = None,
    run: Path | None = None,
    init_from: Path | None = None,
    preset: Annotated[str | None, Parameter(help=f"The settings to start from. {PRESETS}. [default: seed]")] = None,
    config: Path | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    tensorboard: bool = False,
    model: Annotated[GPTConfig, options("Model", 1)] = GPTConfig(),  # noqa: B008 (frozen)
    train: Annotated[TrainConfig, options("Trainer", 2)] = TrainConfig(),  # noqa: B008
    optimizer: Annotated[OptimizerConfig, options("Optimizer", 3)] = OptimizerConfig(),  # noqa: B008
    schedule: Annotated[ScheduleConfig, options("Learning-rate schedule", 4)] = ScheduleConfig(),  # noqa: B008
    machine: Annotated[MachineConfig, options("Runtime", 5)] = MachineConfig(),  # noqa: B008
) -> None:
    """See what a training would cost, before it begins: parameters, arithmetic, memory, time.

    Takes the options of `minigpt train`, and trains nothing. Memory comes from closed forms; time from a few steps of
    the model on this machine. A run says at its end how its plan came out.

    Example:

    `minigpt plan --data data/books --model.n-layer 6 --epochs 3`

    Parameters
    ----------
    data
        Folder that `minigpt prepare` made. Without it the vocabulary is of the size that the preset is made for, and
        how long the run is only --steps can tell.
    run
        Not used: so that a line for `minigpt train` can be planned by changing one word.
    init_from
        Run whose weights to begin with, as for `minigpt train`.
    config
        TOML file of settings, in groups as below.
    epochs
        Short for --train.epochs.
    steps
        Short for --train.steps.
    tensorboard
        Not used either.
    """
    parsed = Config(model=model, train=train, optimizer=optimizer, schedule=schedule, machine=machine)
    model_there, data = parent_of(init_from, data)
    settings = resolve(preset, config, typed_settings(parsed, epochs, steps), model_there)

    from minigpt.cli.console import Console
    from minigpt.config import load_preset, with_model, with_vocabulary
    from minigpt.data.dataset_card import DatasetCard
    from minigpt.runtime import detect_runtime
    from minigpt.training.estimate import estimate_training

    report = DatasetCard.load(data) if data else None
    if report:
        settings = with_vocabulary(settings, report.vocab_size)
    elif not settings.model.vocab_size:
        name = load_preset(preset or "seed").tokenizer
        settings = with_model(settings, vocab_size=_vocabulary(name))
        Console().print(
            f"a vocabulary of {settings.model.vocab_size:,}, as of --tokenizer {name}"
            + (" (a guess: each text has its own)" if name == "char" else "")
            + "; --data DATA takes its own\n"
        )
    chosen = detect_runtime(settings.machine.device, settings.machine.precision, settings.machine.threads)
    _show(estimate_training(settings, chosen, report), settings, chosen)


def _vocabulary(tokenizer: str) -> int:
    """Returns how many ids a tokenizer has; for characters a guess, since each text has its own."""
    name, _, size = tokenizer.partition(":")
    return {"gpt2": 50_257, "char": 256, "byte": 257}.get(name) or int(size)


def _show(plan: TrainingEstimate, settings: Config, machine: Runtime) -> None:
    from minigpt.cli.console import Console
    from minigpt.cli.train_view import duration, parameter_lines
    from minigpt.model.accounting import flops_per_token, parameter_count, parameter_table
    from minigpt.text_utils import pluralize

    console = Console()
    console.print(parameter_lines(parameter_table(settings.model)))

    flops = flops_per_token(settings.model)
    console.print("\nmillions of floating-point operations a token, forward and backward")
    for part, count in {**flops, "in all": sum(flops.values())}.items():
        console.print(f"  {part:36}{count / 1e6:>12,.2f}")

    memory = plan.memory
    rows = settings.train.batch_size // settings.train.grad_accum_steps
    console.print(
        f"\nMB of memory at the peak, {rows} x {settings.model.block_size} tokens at once, {machine.precision}"
    )
    parts = {
        "weights": memory.weights,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "logits, a chunk of them": memory.logits,
        "gradients": memory.gradients,
        "working room": memory.working,
        "Python, PyTorch, pictures": plan.program,
        "in all": plan.bytes,
    }
    for part, size in parts.items():
        if size:
            console.print(f"  {part:36}{size / 1e6:>12,.0f}")

    if not plan.fits:
        console.print(f"  more than this machine has: {(plan.room or 0) / 1e6:,.0f}")

    a_step = settings.train.batch_size * settings.model.block_size
    console.print(f"\ntime on {machine.device}, {plan.how}")
    console.print(
        f"  a step of {pluralize(a_step, 'token')}: {plan.step_seconds:.3g} s, "
        f"{a_step / plan.step_seconds:,.0f} tokens/s"
    )
    if plan.steps is not None and plan.tokens is not None and plan.seconds is not None:
        for part, (count, each) in plan.parts.items():
            if count:
                console.print(f"  {part:20}{count:>12,}{duration(count * each):>14}")
        console.print(f"  {'in all':32}{duration(plan.seconds):>14}")
        if (patience := settings.train.patience) and "patience" not in {misfit.name for misfit in plan.config_warnings}:
            console.print(f"  or less: it ends early after {pluralize(patience, 'validation')} without a lower loss")
        warmup = settings.schedule.warmup(plan.steps)
        rising = f" after {pluralize(warmup, 'step')} of warm-up" if warmup else ""
        console.print(f"\nlearning rate {settings.train.lr:g}{rising}, then {settings.schedule.name}")
        share = plan.tokens / parameter_count(settings.model)
        console.print(f"{plan.tokens:,} tokens trained on, {share:.1f} for each parameter")
    else:
        console.print("  how many steps: give --data, or --steps")
    for misfit in plan.config_warnings:
        console.print(f"\n{misfit}")
    console.print(
        f"\na checkpoint: {plan.checkpoint_bytes / 1e6:,.1f} MB, {settings.train.keep_checkpoints} kept and the best"
    )
