"""`minigpt evaluate`: figures of a model on a text, as tables for people or JSON for machines.

Not here: the measuring (minigpt.evaluation).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from minigpt.cli.text_options import TEXT_OPTIONS, unescaped_options
from minigpt.config import MachineConfig, Precision
from minigpt.errors import ConfigError
from minigpt.source_options import DEFAULT_SOURCE_OPTIONS, SourceOptions
from minigpt.tables import Table
from minigpt.text_utils import pluralize, shell_line

if TYPE_CHECKING:
    from minigpt.evaluation.evaluate import Evaluation
    from minigpt.evaluation.harness import TaskResult

EXTREMES = 3  # documents listed of each kind, easiest and hardest
NAME_WIDTH = 36  # characters of a document's name

Several = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


def evaluate_command(
    run: Path,
    /,
    *,
    data: Path | None = None,
    text: Several = None,
    harness: Several = None,
    split: Literal["val", "train", "all"] = "val",
    stride: int | None = None,
    checkpoint: str = "best",
    batch_size: int = 8,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
    picture: Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    reading: Annotated[SourceOptions, TEXT_OPTIONS] = DEFAULT_SOURCE_OPTIONS,
) -> None:
    """Measure how well a trained model predicts a text, beside what simple models reach.

    Loss, perplexity, bits per byte, accuracy and calibration, with 95 % intervals; by context, token frequency and
    document. The whole text is measured, without chance: the same run and text give the same figures.

    Examples:

    `minigpt evaluate runs/books`

    `minigpt evaluate runs/books --text letter.txt diary.txt --stride 64`

    `minigpt evaluate runs/books --harness lambada_openai my_task.yaml`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    data
        Data set made with the same tokenizer; the one the run was trained on when left out.
    text
        Instead of a data set: files, folders, or standard input as --text=-. Each document is read by itself.
    harness
        Instead of a text: tasks of lm-evaluation-harness by name, or YAML files of your own (extra `eval`).
    split
        Which part of the data set: val, train, or all of it, for text that the model was not trained on.
    stride
        Tokens from one window to the next: smaller gives each token more context and takes longer. The model's context
        when left out, as in training.
    checkpoint
        best (lowest validation loss), latest, or a step number.
    batch_size
        How many windows the model reads at once.
    as_json
        Print one JSON object instead of tables.
    picture
        Also draw loss by context and frequency, and calibration: a .png, .svg or .pdf file.
    device
        auto, cpu, cuda, mps.
    precision
        Number format of the matrix products; auto is that of the run, so that the figures are those of its training.
    """
    machine = MachineConfig(device=device, precision=precision)
    for option, words, wanted in (("--text", text, "FILE"), ("--harness", harness, "TASK")):
        if words == []:
            command = shell_line(["minigpt", "evaluate", str(run), option, wanted])
            raise ConfigError(f"{option} names nothing", remedy=f"Give one or more behind it: {command}")
    if reading != DEFAULT_SOURCE_OPTIONS and not text:
        option = reading.arguments()[0]
        raise ConfigError(f"{option} says how a text is read, and none is named", remedy="Name one with --text.")
    if harness:
        if data or text or picture or stride is not None:
            remedy = "Leave out --data, --text, --stride and --picture."
            raise ConfigError("The harness brings its own texts", got="--harness", remedy=remedy)
        _evaluate_tasks(run, harness, checkpoint, machine, batch_size, as_json)
        return

    from minigpt.cli.console import print_json
    from minigpt.cli.progress import progress
    from minigpt.evaluation import evaluate
    from minigpt.evaluation.eval_plots import check_picture, draw_evaluation

    if picture:
        check_picture(picture)
    with progress() as on_progress:
        evaluation = evaluate(
            run,
            data=data,
            texts=text or (),
            reading=unescaped_options(reading),
            split=split,
            stride=stride,
            checkpoint=checkpoint,
            batch_size=batch_size,
            machine=machine,
            on_progress=on_progress,
        )
    if as_json:
        print_json(evaluation.to_dict())
    else:
        _show(evaluation)
    if picture:  # last: what has been measured is not lost by a picture that cannot be drawn
        draw_evaluation(evaluation, picture)


def _evaluate_tasks(
    run: Path, tasks: list[str], checkpoint: str, settings: MachineConfig, batch_size: int, as_json: bool
) -> None:
    from minigpt.cli.console import print_json
    from minigpt.cli.progress import progress
    from minigpt.evaluation.harness import run_harness
    from minigpt.generation import stream
    from minigpt.runs.folder import RunFolder, load
    from minigpt.runtime import restore_runtime

    machine = restore_runtime(RunFolder.open(run).environment(), settings)
    model, tokenizer = load(run, checkpoint, machine.device)
    with progress() as on_progress:
        results = run_harness(
            model,
            tokenizer,
            machine,
            tasks,
            write=lambda prompt, n: stream(model, tokenizer, prompt, max_new_tokens=n, temperature=0.0, seed=0),
            batch_size=batch_size,
            on_progress=lambda done, total: on_progress("asking", done, total),
        )
    if as_json:
        print_json({"run": str(run), "tasks": [vars(result) for result in results]})
    else:
        _show_tasks(results)


def _show(evaluation: Evaluation) -> None:
    from minigpt.cli.console import Console
    from minigpt.evaluation.eval_tables import baselines_table, bucket_tables, estimates_table

    found = evaluation.metrics
    console = Console(soft_wrap=False)
    console.print(
        f"{evaluation.run}, step {evaluation.step:,}, on {evaluation.text}\n"
        f"{pluralize(found.tokens, 'token')} of {pluralize(found.documents, 'document')}, in windows of "
        f"{evaluation.block_size}, {evaluation.stride} apart, in {evaluation.precision}\n"
    )
    console.print_table(estimates_table(found))
    console.print_table(baselines_table(found, "this model", evaluation.block_size))
    for table in bucket_tables(found, EXTREMES, NAME_WIDTH, console.width):
        console.print_table(table)
    for note in evaluation.notes:
        console.print(f"Note: {note}")


def _show_tasks(results: Sequence[TaskResult]) -> None:
    from minigpt.cli.console import Console

    rows = [
        (result.task, result.metric, f"{result.value:.4f}", "" if result.stderr is None else f"{result.stderr:.4f}")
        for result in results
    ]
    Console(soft_wrap=False).print_table(Table(["task", "metric", "value", "standard error"], rows, (0, 1)))
