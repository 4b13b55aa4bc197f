"""`minigpt import`."""

from __future__ import annotations

from pathlib import Path

from minigpt.cli.console import Console
from minigpt.text_utils import pluralize, shell_word


def import_command(folder: Path, /, *, run: Path, tokenizer: str | None = None) -> None:
    """Make a run from a GPT-2 checkpoint in Hugging Face's format.

    The folder contains config.json, model.safetensors (or its shards and their index) and usually the tokenizer. The
    run can generate and be evaluated; to continue training, use `minigpt train --init-from RUN --data DATA --run NEW`.
    Nothing in the folder is executed; a checkpoint that Mini-GPT does not support is refused.

    Examples:

    `minigpt import downloads/gpt2 --run runs/gpt2`

    `minigpt import downloads/mine --run runs/mine --tokenizer gpt2`

    Parameters
    ----------
    folder
        The checkpoint's folder.
    run
        Run folder to make; it must not exist.
    tokenizer
        gpt2, byte, or the folder of a run, instead of the tokenizer in the folder.
    """
    from minigpt.export.importing import import_hugging_face

    made = import_hugging_face(folder, run, tokenizer=tokenizer)
    model = made.config
    console = Console()
    shape = f"{pluralize(model.n_layer, 'layer')}, {pluralize(model.n_head, 'head')}"
    console.print(
        f"{made.run}: {made.parameters:,} parameters, {shape}, {model.n_embd} wide, context {model.block_size:,}, "
        f"tokenizer {made.tokenizer}, vocabulary {model.vocab_size:,}"
    )
    for note in made.notes:
        console.print(f"note: {note}")
    console.print(f"try: minigpt generate {shell_word(made.run)} --prompt ...")
