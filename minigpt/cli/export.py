"""`minigpt export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from minigpt.cli.console import Console


def export_command(
    run: Path,
    /,
    *,
    out: Path,
    to: Literal["hf"] = "hf",
    checkpoint: str = "best",
    license: str | None = None,
) -> None:
    """Write a trained model in a form that other programs open.

    hf: a folder for Hugging Face's transformers: config, safetensors, tokenizer, generation settings, model card.
    `AutoModelForCausalLM` and `AutoTokenizer` open it with nothing of Mini-GPT installed. What GPT-2's architecture
    cannot express (rope, rmsnorm, swiglu) is refused.

    Example:

    `minigpt export runs/books --to hf --out books-hf --license mit`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    out
        Folder to make; it must not exist.
    to
        The form.
    checkpoint
        best (lowest validation loss), latest, or a step number.
    license
        The model's licence, for its card, as the hub spells it: mit, apache-2.0, cc-by-4.0.
    """
    from minigpt.export import export_hugging_face

    assert to == "hf"
    made = export_hugging_face(run, out, checkpoint=checkpoint, license=license)
    console = Console()
    console.print(f"{made}, for transformers:")
    for file in sorted(made.iterdir()):
        console.print(f"  {file.name:<26}{file.stat().st_size:>14,} bytes")
