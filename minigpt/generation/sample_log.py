"""What a model writes as it learns: the same prompts continued at its checkpoints, logged in RUN/samples.jsonl.

The file holds one JSON object per line, a `SampleRecord`. After each epoch training adds the continuations of the data
set's fixed prompts (`extend_sample_log`); `fill_sample_log` adds your own prompts, and what older runs lack, at the
checkpoints that still exist. A sample depends on the model, the prompt, the temperature, the seed and the number of
tokens alone, so nothing in the file is ever generated twice.

Not here: which passages the fixed prompts are (fixed_prompts.py), when training samples (minigpt/training).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Literal, TypeAlias

import msgspec
import torch
from filelock import FileLock

from minigpt.atomic import write_file
from minigpt.config import TrainConfig
from minigpt.errors import CheckpointError, RunError
from minigpt.files import read_lines, why
from minigpt.generation.fixed_prompts import fixed_prompts
from minigpt.generation.inference_weights import for_inference
from minigpt.generation.text import prompt_ids, stream_samples
from minigpt.model import GPT
from minigpt.records import read_metrics
from minigpt.runs.folder import RunFolder, load_model
from minigpt.sampling_params import SamplingParams
from minigpt.tokenizers import Tokenizer, utf8

TEMPERATURES = (0.0, 0.7, 1.0)
"""Greedy, what people like to read, and the model's own distribution (no top-k, no top-p)."""

SEED = 1
"""The seed of every sample, so that two epochs differ only by what was learned in between."""

NEW_TOKENS, NEW_CHARACTERS = 64, 256
"""How many tokens a sample has; the larger number if each token is at most one character."""

PromptSource: TypeAlias = Literal["fixed", "own"]


class SampleRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sample in the log: a line of samples.jsonl.

    Attributes:
        step: the number of optimizer steps of the model that wrote it.
        epoch: the same in epochs; None if unknown.
        source: `fixed` for the data set's own passages, `own` for a user's prompt.
        prompt, prompt_ids: what it continues.
        temperature, seed: how its tokens were chosen; without top-k and top-p.
        text, ids: the continuation and its tokens, without the one that ended it.
        ended: whether the model ended the text itself.
    """

    step: int
    epoch: float | None
    source: PromptSource
    prompt: str
    prompt_ids: tuple[int, ...]
    temperature: float
    seed: int
    text: str
    ids: tuple[int, ...]
    ended: bool

    @classmethod
    def from_json(cls, line: bytes | str) -> SampleRecord:
        """Returns the record in a line of the file.

        Raises:
            ValueError: if it is not one.
        """
        try:
            return msgspec.json.decode(line, type=cls)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    def to_json(self) -> bytes:
        """Returns its line of the file."""
        return msgspec.json.encode(self) + b"\n"

    def matches(self, prompt: str, temperature: float, max_new_tokens: int, seed: int = SEED) -> bool:
        """Returns whether this is the sample that these settings give."""
        length_fits = len(self.ids) == max_new_tokens or (self.ended and len(self.ids) < max_new_tokens)
        return length_fits and (self.prompt, self.temperature, self.seed) == (prompt, temperature, seed)


def default_max_new_tokens(tokenizer: Tokenizer) -> int:
    """Returns how many tokens a sample has at most unless the user says: a few lines, in any vocabulary."""
    longest = max(map(len, tokenizer.vocabulary), default=0)
    return NEW_CHARACTERS if longest <= 4 else NEW_TOKENS  # four bytes: one character


def make_samples(
    model: GPT,
    tokenizer: Tokenizer,
    wanted: Sequence[tuple[str, float]],
    *,
    step: int,
    epoch: float | None,
    source: PromptSource,
    max_new_tokens: int,
    on_token: Callable[[], None] = lambda: None,
) -> list[SampleRecord]:
    """Returns a sample for each pair of a prompt and a temperature; writes nothing.

    `minigpt generate RUN --top-k none` with the same prompt, temperature and seed gives the same text. A model in
    training is left as it is. `on_token` is called for each token.

    Raises:
        ConfigError: if a setting cannot work.
        MiniGPTError: if the model's logits are not numbers.
    """
    model, records = for_inference(model), []
    for temperature in dict.fromkeys(each for _, each in wanted):
        params = SamplingParams(temperature=temperature, top_k=None, max_new_tokens=max_new_tokens, seed=SEED)
        prompts = [prompt for prompt, each in wanted if each == temperature]
        samples, outputs = stream_samples(model, tokenizer, prompts, params, logprobs=False)
        for _ in outputs:
            on_token()
        for each in samples:
            ended = each.finish_reason == "stop"
            ids = tuple(each.tokens[:-1] if ended else each.tokens)
            known = (each.prompt, tuple(prompt_ids(tokenizer, each.prompt)), float(temperature), SEED)
            records.append(SampleRecord(step, epoch, source, *known, each.text, ids, ended))
    return records


def read_sample_log(folder: RunFolder) -> list[SampleRecord]:
    """Returns all logged samples of a run in the order in which they were made; none if there is no log.

    An incomplete last line, cut short by a crash or still being written, is skipped.

    Raises:
        RunError: if another line is not a sample.
    """
    records = []
    for number, line in enumerate(_lines(folder), start=1):
        try:
            records.append(SampleRecord.from_json(line))
        except ValueError as error:
            raise RunError(
                "Invalid line in the sample log",
                got=f"{folder.samples_file}, line {number}: {error}",
                remedy="Remove that line.",
            ) from None
    return records


def truncate_sample_log(folder: RunFolder, step: int) -> None:
    """Drops samples of later steps, and damaged lines, so that training can go on from there without duplicates.

    The lines that stay keep their bytes.
    """
    if not folder.samples_file.exists():
        return
    with _write_lock(folder):
        lines = _lines(folder)
        kept = [line for line in lines if _is_until(line, step)]
        if kept != lines:
            write_file(folder.samples_file, b"".join(line + b"\n" for line in kept))


def extend_sample_log(
    folder: RunFolder,
    model: Callable[[], GPT],
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    step: int,
    epoch: float | None,
    source: PromptSource,
    temperatures: Sequence[float] = TEMPERATURES,
    max_new_tokens: int | None = None,
    on_token: Callable[[], None] = lambda: None,
    note: Callable[[str], None] = lambda text: None,
) -> list[SampleRecord]:
    """Continues the prompts that the log does not have at this step yet, logs the samples and returns them.

    Args:
        folder: the run.
        model: returns the model; called only if a sample is missing.
        tokenizer, prompts: the run's tokenizer, and the texts to continue; an empty one begins a new document.
        step, epoch, source: what to record, see `SampleRecord`.
        temperatures: 0 always takes the most likely token.
        max_new_tokens: the most tokens to add; None for a few lines.
        on_token: called for each token.
        note: called with a message if the file cannot be written.

    Raises:
        MiniGPTError: as `make_samples` and `read_sample_log`.
    """
    limit = default_max_new_tokens(tokenizer) if max_new_tokens is None else max_new_tokens
    here = [record for record in read_sample_log(folder) if record.step == step]
    wanted = [(prompt, temperature) for temperature in temperatures for prompt in dict.fromkeys(prompts)]
    wanted = [each for each in wanted if not any(record.matches(*each, limit) for record in here)]
    if not wanted:
        return []
    facts: dict[str, Any] = {"step": step, "epoch": epoch, "source": source}
    made = make_samples(model(), tokenizer, wanted, **facts, max_new_tokens=limit, on_token=on_token)
    try:
        _append(folder, made)
    except OSError as error:
        note(f"the samples of step {step} could not be saved: {error}")
    return made


def fill_sample_log(
    folder: RunFolder,
    prompts: str | Sequence[str] | None = None,
    *,
    checkpoint: str = "all",
    temperatures: Sequence[float] = TEMPERATURES,
    max_new_tokens: int | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> list[SampleRecord]:
    """Continues prompts at existing checkpoints, logs the samples, and returns all of the run's samples of them.

    The run may be in training. Samples that are logged already are not generated again.

    Args:
        folder: the run, trained or imported.
        prompts: the texts to continue, or a single one; None for the data set's fixed prompts.
        checkpoint: `all`, `best`, `latest`, or a step number.
        temperatures, max_new_tokens: as in `extend_sample_log`.
        device: where to run the models.
        on_progress: called with the phase, and how many tokens are done, of at most how many.
        note: called with a message for each problem that does not stop the work.

    Returns:
        The samples by step; with `all`, also those of checkpoints that have been deleted.

    Raises:
        CheckpointError: if there is no such checkpoint, or it is damaged. With `all`, damaged ones are only noted, as
            long as there is something to return.
        DataError: if the fixed prompts are needed, and the data set cannot be found.
        ConfigError: if a setting cannot work.
    """
    existing = folder.checkpoint_folders()
    if not existing:
        remedy = "Continue the training with `minigpt resume RUN`, or restore its checkpoints from a copy."
        raise CheckpointError("The run has no checkpoints", got=folder.path, remedy=remedy)
    config, tokenizer = folder.config(), folder.tokenizer()
    source: PromptSource = "fixed" if prompts is None else "own"
    if prompts is None:
        prompts = fixed_prompts(folder.open_data(), config.train.sample_prompts or TrainConfig().sample_prompts)
    prompts = [prompts] if isinstance(prompts, str) else prompts
    prompts = [utf8(prompt).decode() for prompt in prompts]  # invalid characters become U+FFFD
    checkpoints = existing if checkpoint == "all" else [folder.find_checkpoint(checkpoint)]
    limit = default_max_new_tokens(tokenizer) if max_new_tokens is None else max_new_tokens
    per_epoch, records = _steps_per_epoch(folder), read_sample_log(folder)
    per_checkpoint, errors = limit * len(prompts) * len(temperatures), list[CheckpointError]()
    for number, place in enumerate(checkpoints):
        done, total = count(number * per_checkpoint), len(checkpoints) * per_checkpoint
        step = folder.checkpoint_step(place)
        try:
            records += extend_sample_log(
                folder,
                partial(load_model, config, place, device),
                tokenizer,
                prompts,
                step=step,
                epoch=round(step / per_epoch, 4) if per_epoch else None,
                source=source,
                temperatures=temperatures,
                max_new_tokens=limit,
                on_token=lambda done=done, total=total: on_progress("sampling", next(done), total),  # type: ignore[misc]
                note=note,
            )
        except CheckpointError as error:  # one of many may be damaged, or deleted while training goes on
            if checkpoint != "all":
                raise
            errors.append(error)
    steps = None if checkpoint == "all" else [folder.checkpoint_step(place) for place in checkpoints]
    found = matching_samples(records, prompts, temperatures, limit, steps)
    if errors and not found:
        raise errors[-1]
    for each in errors:
        note(str(each))
    return found


def matching_samples(
    records: Sequence[SampleRecord],
    prompts: Sequence[str],
    temperatures: Sequence[float],
    max_new_tokens: int,
    steps: Sequence[int] | None = None,
) -> list[SampleRecord]:
    """Returns the samples of these prompts with these settings, by step; None for all steps."""
    wanted = [(prompt, temperature) for prompt in prompts for temperature in temperatures]
    found = [
        record
        for record in records
        if (steps is None or record.step in steps) and any(record.matches(*each, max_new_tokens) for each in wanted)
    ]
    return sorted(found, key=lambda record: record.step)


def _steps_per_epoch(folder: RunFolder) -> int | None:
    """Returns the number according to the run's metrics; None if they do not show it."""
    records = [record for record in read_metrics(folder.metrics_file) if type(record.get("epoch")) in (int, float)]
    known = [(record["step"], record["epoch"]) for record in records if 0 < record["epoch"] < math.inf]
    step, epoch = max(known, default=(0, 1))
    return round(step / epoch) or None


def _lines(folder: RunFolder) -> list[bytes]:
    try:
        return read_lines(folder.samples_file)[:-1]  # the last item is empty, or a line cut short
    except (OSError, ValueError) as error:
        raise RunError(
            "The sample log cannot be read",
            got=f"{folder.samples_file}: {why(error)}",
            remedy="Restore the file from a copy, or delete it: `minigpt samples RUN` generates the samples again.",
        ) from None


def _is_until(line: bytes, step: int) -> bool:
    try:
        return SampleRecord.from_json(line).step <= step
    except ValueError:
        return False


def _append(folder: RunFolder, records: Sequence[SampleRecord]) -> None:
    """Adds lines after the last complete one, except those that another process has added in the meantime."""
    with _write_lock(folder), folder.samples_file.open("a+b") as stream:
        stream.seek(0)
        *complete, cut = stream.read().split(b"\n")
        stream.truncate(stream.tell() - len(cut))
        for line in map(SampleRecord.to_json, records):
            if line.removesuffix(b"\n") not in complete:
                stream.write(line)
                stream.flush()


@contextmanager
def _write_lock(folder: RunFolder) -> Iterator[None]:
    """Keeps two processes, such as training and `minigpt samples`, from writing the file at once.

    Raises:
        OSError: if the folder cannot be written, or another process writes for too long.
    """
    with FileLock(folder.path / ".samples.lock", timeout=10):
        yield
