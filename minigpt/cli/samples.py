"""`minigpt samples`: what a run wrote to the same prompts as it learned.

Not here: how the samples are generated and logged (minigpt/generation/sample_log.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from minigpt.cli.console import Console, print_json, say, styled
from minigpt.cli.generate_options import inference_runtime
from minigpt.cli.progress import progress
from minigpt.errors import ConfigError, DataError
from minigpt.text_utils import escape_control

if TYPE_CHECKING:
    from minigpt.generation.sample_log import SampleRecord
    from minigpt.runs.folder import RunFolder

DEFAULT_TEMPERATURE = 0.7

MAX_NEW_TOKENS = 10_000
"""More would take hours, and a model writes nothing new that late."""

ASK_FOR_PROMPT = "Give a prompt of your own: --prompt 'Once upon a time'"


def samples_command(
    run: Path,
    /,
    *,
    prompt: Annotated[list[str] | None, Parameter(negative="")] = None,
    temperature: Annotated[list[float] | None, Parameter(negative="", allow_leading_hyphen=True)] = None,
    max_new_tokens: int | None = None,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
    checkpoint: str = "all",
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Watch a run learn to write: the same prompts, continued by the model of each epoch.

    After each epoch training continues a few passages of the validation text, at the temperatures 0, 0.7 and 1 with a
    fixed seed, and logs the samples in RUN/samples.jsonl. Your own prompts are continued at the checkpoints that still
    exist, and logged too; the run may be in training.

    Examples:

    `minigpt samples runs/books`

    `minigpt samples runs/books --prompt "It was" --temperature 0 --temperature 1`

    `minigpt samples runs/books --checkpoint best --temperature 0`

    Parameters
    ----------
    run
        Run folder of `minigpt train` or `minigpt import`.
    prompt
        Your own text to continue; may be repeated. If it begins with a dash: --prompt="- like this".
    temperature
        0 always takes the most likely token; may be repeated. The default is 0.7.
    max_new_tokens
        The most tokens to add, up to 10,000; a few lines by default.
    as_json
        Print a JSON object per line for each sample, as in samples.jsonl.
    checkpoint
        all, best (lowest validation loss), latest, or a step number.
    device
        auto, cpu, cuda, cuda:1 or mps.
    threads
        Number of CPU threads; all cores by default.
    """
    if max_new_tokens is not None and not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
        remedy = f"Give 1 to {MAX_NEW_TOKENS:,}."
        raise ConfigError("--max-new-tokens is out of range", got=max_new_tokens, remedy=remedy)

    from minigpt.generation.notes import notes_of_all
    from minigpt.generation.sample_log import fill_sample_log
    from minigpt.runs.folder import RunFolder

    folder, temperatures = RunFolder.open(run), list(dict.fromkeys(temperature or [DEFAULT_TEMPERATURE]))
    if device != "auto" or threads:  # a mistake is an error even if no model has to run
        inference_runtime(device, threads)
    for note in notes_of_all(folder.tokenizer(), prompt, folder.config().model.block_size) if prompt else ():
        say(f"note: {note}")
    wanted = {"checkpoint": checkpoint, "temperatures": temperatures, "max_new_tokens": max_new_tokens}
    with progress() as on_progress:

        def fill(prompts: Sequence[str] | None, **settings: Any) -> list[SampleRecord]:
            settings |= {"device": inference_runtime(device, threads).device, "on_progress": on_progress}
            return fill_sample_log(folder, prompts, **settings, note=lambda line: say(f"note: {line}"))

        found = fill(prompt, **wanted) if prompt else _of_fixed_prompts(folder, fill, wanted)
    if as_json:
        from msgspec import to_builtins

        for record in found:
            print_json(to_builtins(record))
    else:
        _show(found)


def _of_fixed_prompts(
    folder: RunFolder, fill: Callable[..., list[SampleRecord]], wanted: dict[str, Any]
) -> list[SampleRecord]:
    """Returns the samples of the data set's passages: from the log if it has them, else from the checkpoints."""
    from minigpt.generation.sample_log import TEMPERATURES, default_max_new_tokens, matching_samples, read_sample_log
    from minigpt.runs.folder import step_number

    checkpoint, temperatures, max_new_tokens = wanted.values()
    logged = read_sample_log(folder)
    if not any(record.source == "fixed" for record in logged):
        try:
            logged = fill(None)
        except DataError as error:
            raise DataError(error.what, got=error.got, remedy=ASK_FOR_PROMPT) from None
    prompts = list(dict.fromkeys(record.prompt for record in logged if record.source == "fixed"))
    if not prompts:
        raise DataError("The validation text has no passage to continue", got=folder.path, remedy=ASK_FOR_PROMPT)
    steps = None
    if checkpoint != "all":
        step = step_number(checkpoint)  # its samples may be logged although the checkpoint is deleted
        steps = [folder.checkpoint_step(folder.find_checkpoint(checkpoint)) if step is None else step]
    limit = max_new_tokens or default_max_new_tokens(folder.tokenizer())
    found = matching_samples(logged, prompts, temperatures, limit, steps)
    complete = {record.temperature for record in found} >= set(temperatures)
    of_training = max_new_tokens is None and set(temperatures) <= set(TEMPERATURES)  # logged after each epoch
    existing = {folder.checkpoint_step(place) for place in folder.checkpoint_folders()}
    if complete and (of_training or not existing.intersection(steps or existing)):
        return found
    return fill(prompts, **wanted)


def _show(found: Sequence[SampleRecord]) -> None:
    """Prints a table for each prompt and temperature, with a row for each step."""
    from rich.table import Table

    console = Console()
    for prompt, temperature in dict.fromkeys((record.prompt, record.temperature) for record in found):
        name = prompt or "(the beginning of a document)"
        console.print(styled((name, "bold"), f"   temperature {temperature:g}"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("epoch", "step"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("continuation", overflow="fold")
        for record in found:
            if (record.prompt, record.temperature) == (prompt, temperature):
                epoch = "" if record.epoch is None else f"{record.epoch:.2f}".rstrip("0").rstrip(".")
                table.add_row(epoch, f"{record.step:,}", _printable(record))
        console.print(table)
        console.print()


def _printable(record: SampleRecord) -> str:
    """Returns the text without control characters and empty lines; ■ marks its end."""
    lines = [line.rstrip() for line in escape_control(record.text).splitlines()]
    return "\n".join(line for line in lines if line) + (" ■" if record.ended else "")
