"""`minigpt evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from minigpt.config import MachineConfig
from minigpt.errors import DataError


def evaluate_command(
    run: Path,
    /,
    *,
    data: Path | None = None,
    split: Literal["val", "train"] = "val",
    checkpoint: str = "best",
    batch_size: int = 8,
    as_json: Annotated[bool, Parameter("--json")] = False,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
) -> None:
    """Measure how well a trained model predicts a text: loss, perplexity and bits per byte.

    The whole split is measured, without chance: the same run and data give the same figures.

    Examples:

    `minigpt evaluate runs/books`

    `minigpt evaluate runs/books --data data/other --checkpoint latest`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    data
        Data set made with the same tokenizer; the one the run was trained on when left out.
    split
        Which part of the data set.
    checkpoint
        best (lowest validation loss), latest, or a step number.
    batch_size
        Sequences at once.
    as_json
        Print one JSON object instead of a table.
    device
        auto, cpu, cuda, mps.
    precision
        Number format of the matrix products; auto is that of the run, so that the figures are those of its training.
    """
    if batch_size < 1:
        raise DataError("batch-size must be positive", seen=batch_size, remedy="Give 1 or more.")
    from minigpt.device import choose_again
    from minigpt.evaluation import split_loss
    from minigpt.run import RunFolder, load

    folder = RunFolder.open(run)
    dataset = folder.open_data(data)
    place = dataset.folder
    machine = choose_again(folder.environment(), MachineConfig(device=device, precision=precision))
    model, _ = load(run, checkpoint, machine.device)
    shard = dataset.val if split == "val" else dataset.train
    console = Console(highlight=False, markup=False)
    with console.status("evaluating") as status:
        result = split_loss(
            model,
            shard,
            machine,
            batch_size=batch_size,
            on_progress=lambda done, total: status.update(f"evaluating, {done / total:.0%}"),
        )
    figures = {
        "loss": result.loss,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "tokens": result.tokens,
    }
    if as_json:
        print(json.dumps({"run": str(run), "data": str(place), "split": split, "checkpoint": checkpoint, **figures}))
        return
    console.print(f"{run}, checkpoint {checkpoint}, on the {split} split of {place} ({result.tokens:,} tokens)")
    console.print(f"  loss           {result.loss:.4f} nats per token")
    console.print(f"  perplexity     {result.perplexity:,.2f}")
    console.print(f"  bits per byte  {result.bits_per_byte:.4f}")
