"""What a model says as it learns: the same prompts continued at its checkpoints, kept in RUN/samples.jsonl.

One JSON object a line, a `SampleRecord`. Training adds what the data set's fixed prompts give after each epoch
(`extend_sample_log`); `fill_sample_log` adds prompts of one's own, and what an older run lacks, at the
checkpoints that are
there. What stands in the file is never made again. `read_sample_log` reads it.

Not here: what a kept text is (sample_record.py), which passages the fixed prompts are (fixed_prompts.py), when
training samples
(minigpt/training/trainer.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count

import torch
from filelock import FileLock

from minigpt.atomic import write_file
from minigpt.config import TrainConfig
from minigpt.errors import CheckpointError, RunError
from minigpt.files import read_lines, why
from minigpt.generation.fixed_prompts import fixed_prompts
from minigpt.generation.inference_weights import ready
from minigpt.generation.sample_record import TEMPERATURES, SampleRecord, Source, continue_prompts, usual_tokens
from minigpt.model import GPT
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder, load_model
from minigpt.tokenizers import Tokenizer, utf8


def read_sample_log(folder: RunFolder) -> list[SampleRecord]:
    """Returns all kept texts of a run in the order in which they were made, none if it has none.

    A last line that is not complete, cut short by a crash or being written, is passed over.

    Raises:
        RunError: if another line is none.
    """
    kept = []
    for number, line in enumerate(_lines(folder), start=1):
        try:
            kept.append(SampleRecord.from_json(line))
        except ValueError as error:
            raise RunError(
                "A line of the samples cannot be read",
                got=f"{folder.samples_file}, line {number}: {error}",
                remedy="Remove that line.",
            ) from None
    return kept


def truncate_sample_log(folder: RunFolder, step: int) -> None:
    """Drops what models behind a step said, and what is no whole line, so that going on from there says nothing twice.

    The lines that stay keep their bytes.
    """
    if not folder.samples_file.exists():
        return
    with _writing(folder):
        lines = _lines(folder)
        kept = [line for line in lines if _is_until(line, step)]
        if kept != lines:
            write_file(folder.samples_file, b"".join(line + b"\n" for line in kept))


def extend_sample_log(
    folder: RunFolder,
    model: Callable[[], GPT],
    tokenizer: Tokenizer,
    prompts: str | Sequence[str],
    *,
    step: int,
    epoch: float | None,
    source: Source,
    temperatures: Sequence[float] = TEMPERATURES,
    tokens: int | None = None,
    on_token: Callable[[], None] = lambda: None,
    note: Callable[[str], None] = lambda text: None,
) -> list[SampleRecord]:
    """Continues the prompts that the run has not yet continued at this step, keeps that, and returns it.

    Args:
        folder: the run.
        model: gives the model; asked only if something is missing.
        tokenizer, step, epoch, source, temperatures, tokens, on_token: as in `continue_prompts`.
        prompts: the texts to continue, or a single one.
        note: is told if the file cannot be written.

    Raises:
        MiniGPTError: as `continue_prompts` and `read_sample_log`.
    """
    prompts = [prompts] if isinstance(prompts, str) else prompts
    limit = usual_tokens(tokenizer) if tokens is None else tokens
    there = [kept for kept in read_sample_log(folder) if kept.step == step]
    missing = {
        temperature: [p for p in dict.fromkeys(prompts) if not any(kept.is_of(p, temperature, limit) for kept in there)]
        for temperature in temperatures
    }
    if not any(missing.values()):
        return []
    say = partial(
        continue_prompts,
        ready(model()),
        tokenizer,
        step=step,
        epoch=epoch,
        source=source,
        tokens=limit,
        on_token=on_token,
    )
    made = [kept for temperature, rest in missing.items() for kept in say(rest, temperatures=[temperature])]
    try:
        _append(folder, made)
    except OSError as error:
        note(f"the samples of step {step} are not kept: {error}")
    return made


def fill_sample_log(
    folder: RunFolder,
    prompts: str | Sequence[str] | None = None,
    *,
    checkpoint: str = "all",
    temperatures: Sequence[float] = TEMPERATURES,
    tokens: int | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> list[SampleRecord]:
    """Continues prompts at checkpoints that are there, keeps that, and returns all that the run has said to them.

    A training may be going on in the run. What is kept already is not made again.

    Args:
        folder: the run, trained or imported.
        prompts: the texts to continue, or a single one; the data set's fixed ones when left out.
        checkpoint: `all` that are there, `best`, `latest`, or a step number.
        temperatures, tokens: as in `continue_prompts`.
        device: where to run the models.
        on_progress: is told what is being done, how many tokens are done, and how many there are at most.
        note: is told what could not be kept.

    Returns:
        By step; with `all`, those of checkpoints that are gone too.

    Raises:
        CheckpointError: if there is no such checkpoint, or it is damaged. Of `all`, damaged ones are noted, as long as
            there is something to return.
        DataError: if the fixed prompts are asked for, and the data set is not there.
        ConfigError: if a setting cannot work.
    """
    there = folder.checkpoint_folders()
    if not there:
        remedy = "Train it on with `minigpt resume RUN`, or put its checkpoints back from a copy."
        raise CheckpointError("This run has no checkpoints", got=folder.path, remedy=remedy)
    config, tokenizer = folder.config(), folder.tokenizer()
    source: Source = "fixed" if prompts is None else "own"
    if prompts is None:
        prompts = fixed_prompts(folder.open_data(), config.train.sample_prompts or TrainConfig().sample_prompts)
    prompts = [prompts] if isinstance(prompts, str) else prompts
    prompts = [utf8(prompt).decode() for prompt in prompts]  # what is no character is U+FFFD
    places = there if checkpoint == "all" else [folder.find_checkpoint(checkpoint)]
    per_epoch, found = _steps_per_epoch(folder), read_sample_log(folder)
    limit = usual_tokens(tokenizer) if tokens is None else tokens
    a_place, faults = limit * len(prompts) * len(temperatures), list[CheckpointError]()
    for number, place in enumerate(places):
        tell = partial(_tell, on_progress, count(number * a_place), len(places) * a_place)
        step = folder.checkpoint_step(place)
        try:
            found += extend_sample_log(
                folder,
                partial(load_model, config, place, device),
                tokenizer,
                prompts,
                step=step,
                epoch=round(step / per_epoch, 4) if per_epoch else None,
                source=source,
                temperatures=temperatures,
                tokens=tokens,
                on_token=tell,
                note=note,
            )
        except CheckpointError as error:  # of many, one may be damaged, or go while a training goes on
            if checkpoint != "all":
                raise
            faults.append(error)
    steps = None if checkpoint == "all" else [folder.checkpoint_step(place) for place in places]
    answered = answers(found, prompts, temperatures, limit, steps)
    if faults and not answered:
        raise faults[-1]
    for fault in faults:
        note(str(fault))
    return answered


def _tell(on_progress: Callable[[str, int, int], None], done: Iterator[int], total: int) -> None:
    on_progress("sampling", next(done), total)


def answers(
    kept: Sequence[SampleRecord],
    prompts: Sequence[str],
    temperatures: Sequence[float],
    tokens: int,
    steps: Sequence[int] | None = None,
) -> list[SampleRecord]:
    """Returns those texts that answer these prompts at these settings, by step; at all steps when they are left out."""
    asked = [(prompt, temperature) for prompt in prompts for temperature in temperatures]
    found = [one for one in kept if (steps is None or one.step in steps) and any(one.is_of(*a, tokens) for a in asked)]
    return sorted(found, key=lambda one: one.step)


def _steps_per_epoch(folder: RunFolder) -> int | None:
    """Returns it as the run's metrics tell; None if they do not."""
    told = [record for record in read_metrics(folder.metrics_file) if type(record.get("epoch")) in (int, float)]
    known = [(record["step"], record["epoch"]) for record in told if 0 < record["epoch"] < math.inf]
    step, epoch = max(known, default=(0, 1))
    return round(step / epoch) or None


def _lines(folder: RunFolder) -> list[bytes]:
    try:
        return read_lines(folder.samples_file)[:-1]  # behind the last line's end stands nothing, or a line cut short
    except (OSError, ValueError) as error:
        raise RunError(
            "The samples cannot be read",
            got=f"{folder.samples_file}: {why(error)}",
            remedy="Restore the file from a copy, or remove it: `minigpt samples` makes it anew.",
        ) from None


def _is_until(line: bytes, step: int) -> bool:
    try:
        return SampleRecord.from_json(line).step <= step
    except ValueError:
        return False


def _append(folder: RunFolder, kept: Sequence[SampleRecord]) -> None:
    """Adds lines to the file, behind the last whole one; those that another process has added meanwhile stand there."""
    with _writing(folder), folder.samples_file.open("a+b") as stream:
        stream.seek(0)
        *whole, cut = stream.read().split(b"\n")
        stream.truncate(stream.tell() - len(cut))
        for line in (each.to_json().encode() for each in kept):
            if line.removesuffix(b"\n") not in whole:
                stream.write(line)
                stream.flush()


@contextmanager
def _writing(folder: RunFolder) -> Iterator[None]:
    """Keeps two processes, such as a training and `minigpt samples`, from writing the file at once.

    Raises:
        OSError: if the folder cannot be written, or another process writes for too long.
    """
    with FileLock(folder.path / ".samples.lock", timeout=10):
        yield
