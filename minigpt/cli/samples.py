"""`minigpt samples`: what a run said to the same prompts as it learned.

Not here: how the texts are made and kept (minigpt/generation/sample_log.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from minigpt.cli.console import Console, print_json, say, styled
from minigpt.cli.progress import progress
from minigpt.errors import ConfigError, DataError
from minigpt.text_utils import escape_control

if TYPE_CHECKING:
    from minigpt.generation.sample_record import SampleRecord
    from minigpt.runs.folder import RunFolder

TEMPERATURE = 0.7
"""Shown when none is named."""

MOST_TOKENS = 10_000
"""Of a text: more takes hours, and no model says anything new so late."""

ASK_FOR_PROMPT = "Give a text of your own: --prompt 'Once upon a time'"


def samples_command(
    run: Path,
    /,
    *,
    prompt: Annotated[list[str] | None, Parameter(negative="")] = None,
    checkpoint: str = "all",
    temperature: Annotated[list[float] | None, Parameter(negative="", allow_leading_hyphen=True)] = None,
    tokens: int | None = None,
    device: str = "auto",
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
) -> None:
    """See language form: the same prompts, continued by the model of each epoch.

    Training continues a few passages of the validation text after each epoch, at the temperatures 0, 0.7 and 1 with a
    fixed seed, and keeps that in RUN/samples.jsonl. Prompts of your own are continued at the checkpoints that are
    there, and are kept too, also while the training goes on.

    Examples:

    `minigpt samples runs/books`

    `minigpt samples runs/books --prompt "It was" --temperature 0 --temperature 1`

    `minigpt samples runs/books --checkpoint best --temperature 0`

    Parameters
    ----------
    run
        Run folder of `minigpt train` or `minigpt import`.
    prompt
        A text of your own to continue; may be repeated. One that begins with a dash: --prompt="- like this".
    checkpoint
        all, best (lowest validation loss), latest, or a step number.
    temperature
        How freely tokens are chosen, 0 for the most likely ones; may be repeated. 0.7 when left out.
    tokens
        The most to add, up to 10,000; a few lines when left out.
    device
        auto, cpu, cuda, mps.
    as_json
        Print a JSON object a line for each text, as samples.jsonl has them.
    """
    if tokens is not None and not 1 <= tokens <= MOST_TOKENS:
        raise ConfigError("The number of tokens is out of range", got=tokens, remedy=f"Give 1 to {MOST_TOKENS:,}.")

    from minigpt.generation.notes import notes_of_all
    from minigpt.generation.sample_log import fill_sample_log
    from minigpt.runs.folder import RunFolder
    from minigpt.runtime import detect_runtime

    folder, temperatures = RunFolder.open(run), list(dict.fromkeys(temperature or [TEMPERATURE]))
    if device != "auto":  # refused where there is none, also when all is kept
        detect_runtime(device, "float32")
    for note in notes_of_all(folder.tokenizer(), prompt, folder.config().model.block_size) if prompt else ():
        say(f"note: {note}")
    wanted = {"checkpoint": checkpoint, "temperatures": temperatures, "tokens": tokens}
    with progress() as on_progress:

        def fill(prompts: Sequence[str] | None, **wanted: Any) -> list[SampleRecord]:
            machine = detect_runtime(device, "float32")
            return fill_sample_log(
                folder,
                prompts,
                **wanted,
                device=machine.device,
                on_progress=on_progress,
                note=lambda line: say(f"note: {line}"),
            )

        found = fill(prompt, **wanted) if prompt else _of_fixed_prompts(folder, fill, checkpoint, temperatures, tokens)
    if as_json:
        for kept in found:
            print_json(asdict(kept))
    else:
        _show(found)


def _of_fixed_prompts(
    folder: RunFolder,
    fill: Callable[..., list[SampleRecord]],
    checkpoint: str,
    temperatures: list[float],
    tokens: int | None,
) -> list[SampleRecord]:
    """Returns what the run said to its data set's passages: what is kept, or else at the checkpoints that are there."""
    from minigpt.generation.sample_log import answers, read_sample_log
    from minigpt.generation.sample_record import TEMPERATURES, usual_tokens
    from minigpt.runs.folder import step_number

    kept = read_sample_log(folder)
    if not any(one.source == "fixed" for one in kept):
        try:
            kept = fill(None)
        except DataError as error:
            raise DataError(error.what, got=error.got, remedy=ASK_FOR_PROMPT) from None
    prompts = list(dict.fromkeys(one.prompt for one in kept if one.source == "fixed"))
    if not prompts:
        raise DataError("The validation text has no passage to continue", got=folder.path, remedy=ASK_FOR_PROMPT)
    steps = None
    if checkpoint != "all":
        step = step_number(checkpoint)  # it may be kept where its checkpoint is gone
        steps = [folder.checkpoint_step(folder.find_checkpoint(checkpoint)) if step is None else step]
    found = answers(kept, prompts, temperatures, tokens or usual_tokens(folder.tokenizer()), steps)
    said = {one.temperature for one in found} >= set(temperatures)
    of_training = tokens is None and set(temperatures) <= set(TEMPERATURES)  # made after each epoch, not on request
    there = {folder.checkpoint_step(place) for place in folder.checkpoint_folders()}
    if said and (of_training or not there.intersection(steps or there)):
        return found
    return fill(prompts, checkpoint=checkpoint, temperatures=temperatures, tokens=tokens)


def _show(found: Sequence[SampleRecord]) -> None:
    """Prints a table for each prompt and temperature, a row for each step."""
    from rich.table import Table

    console = Console()
    for prompt, temperature in dict.fromkeys((one.prompt, one.temperature) for one in found):
        name = prompt or "(the beginning of a document)"
        console.print(styled((name, "bold"), f"   temperature {temperature:g}"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("epoch", "step"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("goes on with", overflow="fold")
        for one in found:
            if (one.prompt, one.temperature) == (prompt, temperature):
                epoch = "" if one.epoch is None else f"{one.epoch:.2f}".rstrip("0").rstrip(".")
                table.add_row(epoch, f"{one.step:,}", _in_rows(one))
        console.print(table)
        console.print()


def _in_rows(kept: SampleRecord) -> str:
    """Returns a text with nothing in it that a terminal would obey, without empty lines; its end is marked."""
    lines = [line.rstrip() for line in escape_control(kept.text).splitlines()]
    return "\n".join(line for line in lines if line) + (" ■" if kept.ended else "")
