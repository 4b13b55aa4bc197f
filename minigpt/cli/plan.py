"""`minigpt plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from minigpt.cli.config_options import PRESETS, ShortOptions, options, parent_of, typed_settings
from minigpt.config import Config, GPTConfig, MachineConfig, OptimizerConfig, ScheduleConfig, TrainConfig, resolve

if TYPE_CHECKING:
    from minigpt.cli.console import Console
    from minigpt.runtime import Runtime
    from minigpt.training.estimate import TrainingEstimate


def plan_command(
    *,
    data: Path | None = None,
    init_from: Path | None = None,
    preset: Annotated[str | None, Parameter(help=f"Preset to start from. {PRESETS}. [default: seed]")] = None,
    config: Path | None = None,
    short: ShortOptions = ShortOptions(),  # noqa: B008 (frozen)
    model: Annotated[GPTConfig, options("Model", 1)] = GPTConfig(),  # noqa: B008
    train: Annotated[TrainConfig, options("Training", 2)] = TrainConfig(),  # noqa: B008
    optimizer: Annotated[OptimizerConfig, options("Optimizer", 3)] = OptimizerConfig(),  # noqa: B008
    schedule: Annotated[ScheduleConfig, options("Learning-rate schedule", 4)] = ScheduleConfig(),  # noqa: B008
    machine: Annotated[MachineConfig, options("Machine", 5)] = MachineConfig(),  # noqa: B008
) -> None:
    """Estimate what a training will cost: parameters, FLOPs, memory and time.

    Takes the settings of `minigpt train`, and trains nothing. Memory is computed, time is measured with a few steps of
    the model on this machine. At the end of a run, `minigpt train` compares the outcome with this estimate.

    Example:

    `minigpt plan --data data/books --model.n-layer 6 --epochs 3`

    Parameters
    ----------
    data
        Folder that `minigpt prepare` made. Without it, the vocabulary has the size of the preset's tokenizer, and the
        length of the run is only known if you give --steps.
    init_from
        Run whose weights to start from, as for `minigpt train`.
    config
        TOML file of settings, in groups as below.
    """
    parsed = Config(model=model, train=train, optimizer=optimizer, schedule=schedule, machine=machine)
    parent, data = parent_of(init_from, data)
    settings = resolve(preset, config, typed_settings(parsed, short), parent)

    from minigpt.cli.console import Console
    from minigpt.config import load_preset, with_model, with_vocabulary
    from minigpt.data.dataset_card import DatasetCard
    from minigpt.runtime import detect_runtime
    from minigpt.training.estimate import estimate_training

    console = Console()
    card = DatasetCard.load(data) if data else None
    if card:
        settings = with_vocabulary(settings, card.vocab_size)
    elif not settings.model.vocab_size:
        name = load_preset(preset or "seed").tokenizer
        settings = with_model(settings, vocab_size=_vocabulary(name))
        guess = " (a guess: it depends on the text)" if name == "char" else ""
        console.print(
            f"vocabulary size {settings.model.vocab_size:,}, as with --tokenizer {name}{guess}; --data DATA uses that "
            "of your data\n"
        )
    chosen = detect_runtime(settings.machine.device, settings.machine.precision, settings.machine.threads)
    _show(console, estimate_training(settings, chosen, card), settings, chosen)


def _vocabulary(tokenizer: str) -> int:
    """Returns the vocabulary size of a tokenizer; for characters a guess, since it depends on the text."""
    name, _, size = tokenizer.partition(":")
    return {"gpt2": 50_257, "char": 256, "byte": 257}.get(name) or int(size)


def _show(console: Console, estimate: TrainingEstimate, settings: Config, machine: Runtime) -> None:
    from minigpt.cli.train_view import duration, parameter_lines
    from minigpt.model.accounting import flops_per_token, parameter_count, parameter_table
    from minigpt.text_utils import pluralize

    train, block_size = settings.train, settings.model.block_size
    console.print(parameter_lines(parameter_table(settings.model)))

    flops = flops_per_token(settings.model)
    console.print("\nmillions of FLOPs per token, forward and backward")
    for part, count in {**flops, "total": sum(flops.values())}.items():
        console.print(f"  {part:36}{count / 1e6:>12,.2f}")

    memory, rows = estimate.memory, train.batch_size // train.grad_accum_steps
    console.print(f"\npeak memory in MB, with micro-batches of {rows} x {block_size} tokens, {machine.precision}")
    parts = {
        "weights": memory.weights,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "logits, one chunk": memory.logits,
        "gradients": memory.gradients,
        "temporary": memory.working,
        "Python, PyTorch, Matplotlib": estimate.process_bytes,
        "total": estimate.bytes,
    }
    for part, size in parts.items():
        if size:
            console.print(f"  {part:36}{size / 1e6:>12,.0f}")
    if not estimate.fits:
        console.print(f"  more than this machine has: {(estimate.available_bytes or 0) / 1e6:,.0f}")

    tokens = train.batch_size * block_size
    console.print(f"\ntime on {machine.device}, {estimate.how}")
    console.print(
        f"  one step of {pluralize(tokens, 'token')}: {estimate.step_seconds:.3g} s, "
        f"{tokens / estimate.step_seconds:,.0f} tokens/s"
    )
    if estimate.steps is None or estimate.tokens is None or estimate.seconds is None:
        console.print("  number of steps not known: give --data, or --steps")
    else:
        for part, (count, each) in estimate.parts.items():
            if count:
                console.print(f"  {part:20}{count:>12,}{duration(count * each):>14}")
        console.print(f"  {'total':32}{duration(estimate.seconds):>14}")
        if train.patience and "patience" not in {warning.name for warning in estimate.config_warnings}:
            validations = pluralize(train.patience, "validation")
            console.print(f"  or less: early stopping after {validations} without improvement")
        warmup = settings.schedule.warmup(estimate.steps)
        rising = f" after {pluralize(warmup, 'step')} of warm-up" if warmup else ""
        console.print(f"\nlearning rate {train.lr:g}{rising}, then {settings.schedule.name}")
        share = estimate.tokens / parameter_count(settings.model)
        console.print(f"{estimate.tokens:,} training tokens, {share:.1f} per parameter")
    for warning in estimate.config_warnings:
        console.print(f"\n{warning}")
    kept = f"the latest {train.keep_checkpoints} and the best are kept"
    console.print(f"\ncheckpoint size: {estimate.checkpoint_bytes / 1e6:,.1f} MB; {kept}")
