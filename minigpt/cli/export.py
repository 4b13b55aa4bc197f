"""`minigpt export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from minigpt.cli.console import Console
from minigpt.export.formats import FORMATS

FORMAT_HELP = "; ".join(f"{name}: for {format.opened_by}" for name, format in FORMATS.items())


def export_command(
    run: Path,
    /,
    *,
    out: Path,
    format: Annotated[str, Parameter(help=f"Format of the files. {FORMAT_HELP}.")] = "hf",
    checkpoint: str = "best",
    license: str | None = None,
) -> None:
    """Write a trained model in a format that other programs open.

    Format hf is a folder with config, safetensors, tokenizer, generation settings and model card, which
    `AutoModelForCausalLM` and `AutoTokenizer` open without Mini-GPT. It needs GPT-2's architecture: rope, rmsnorm,
    swiglu, qk-norm and grouped queries cannot be exported.

    Example:

    `minigpt export runs/books --out books-hf --license mit`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    out
        Folder to make; it must not exist.
    checkpoint
        best (lowest validation loss), latest, or a step number.
    license
        The model's licence for its model card, as the Hugging Face hub spells it: mit, apache-2.0, cc-by-4.0.
    """
    from minigpt.export.exporting import export_run

    made = export_run(run, out, format=format, checkpoint=checkpoint, license=license)
    console = Console()
    console.print(f"{made}, for {FORMATS[format].opened_by}:")
    for file in sorted(made.iterdir()):
        console.print(f"  {file.name:<26}{file.stat().st_size:>14,} bytes")
