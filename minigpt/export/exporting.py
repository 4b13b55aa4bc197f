"""Export: a run's model as a folder that other programs open, in any of the formats of formats.py."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from minigpt.atomic import atomic_directory
from minigpt.errors import ConfigError, did_you_mean
from minigpt.export.formats import FORMATS
from minigpt.model import GPT
from minigpt.runs.folder import RunFolder, load
from minigpt.tokenizers import Tokenizer


@dataclass(frozen=True)
class ExportSource:
    """What a format writes.

    Attributes:
        run: the run.
        checkpoint: the name of the exported checkpoint.
        model: its model, in evaluation mode; its vocabulary may be larger than the tokenizer's.
        tokenizer: the run's tokenizer.
        license: the model's licence, as the Hugging Face hub spells it (`mit`); None if it is not stated.
    """

    run: RunFolder
    checkpoint: str
    model: GPT
    tokenizer: Tokenizer
    license: str | None = None


def export_run(
    run: Path | str, out: Path | str, *, format: str = "hf", checkpoint: str = "best", license: str | None = None
) -> Path:
    """Writes a run's model and tokenizer as a folder in another format.

    Args:
        run: the run folder.
        out: the folder to make; it must not exist.
        format: a name in `FORMATS`. `hf` is opened by transformers' `AutoModelForCausalLM` and `AutoTokenizer`.
        checkpoint: `best` (lowest validation loss), `latest`, or a step number.
        license: the model's licence, for its model card (`mit`, `cc-by-4.0`).

    Returns:
        `out`.

    Raises:
        ConfigError: if the format is unknown or cannot express the model.
        MiniGPTError: if the run cannot be read or the folder not be written. Nothing is left behind.
    """
    if format not in FORMATS:
        remedy = f"{did_you_mean(format, FORMATS)}Formats: {', '.join(FORMATS)}."
        raise ConfigError("Unknown export format", got=format, remedy=remedy)
    if license is not None and not license.isprintable():
        remedy = "Spell it as the hub does: mit, apache-2.0, cc-by-4.0."
        raise ConfigError("The licence contains control characters", got=repr(license), remedy=remedy)
    folder, out = RunFolder.open(run), Path(out)
    source = ExportSource(folder, folder.find_checkpoint(checkpoint).name, *load(run, checkpoint), license)
    with atomic_directory(out) as made:
        import_module(FORMATS[format].module).write(source, made)
    return out
