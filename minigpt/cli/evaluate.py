"""`minigpt evaluate`: the metrics of a model on a text, as tables or JSON.

Not here: measuring them (minigpt.evaluation).
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
    tasks: Several = None,
    split: Literal["val", "train", "all"] | None = None,
    stride: int | None = None,
    checkpoint: str = "best",
    batch_size: int = 8,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
    plot: Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    reading: Annotated[SourceOptions, TEXT_OPTIONS] = DEFAULT_SOURCE_OPTIONS,
) -> None:
    """Measure how well a trained model predicts a text, compared with simple baselines.

    Reports loss, perplexity, bits per byte, accuracy and calibration with 95 % intervals, and the loss by context
    length, token frequency and document. The whole text is evaluated, so the same run and text always give the same
    result.

    Examples:

    `minigpt evaluate runs/books`

    `minigpt evaluate runs/books --text letter.txt diary.txt --stride 64`

    `minigpt evaluate runs/books --tasks lambada_openai my_task.yaml`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    data
        Data set made with the same tokenizer; by default the one the run was trained on.
    text
        Files, folders, or standard input as --text=-, instead of a data set. Each document is read by itself.
    tasks
        Tasks of lm-evaluation-harness, by name or as YAML files, instead of a text (extra `eval`).
    split
        Which part of the data set: val (the default), train, or all, for data that the model was not trained on.
    stride
        Tokens from one window to the next. A smaller stride gives each token more context and takes longer; the default
        is the model's context length, as in training.
    checkpoint
        best (lowest validation loss), latest, or a step number.
    batch_size
        Windows per forward pass.
    as_json
        Print one JSON object instead of tables.
    plot
        Also plot loss by context and frequency, and calibration: a .png, .svg or .pdf file.
    device
        auto, cpu, cuda or mps.
    precision
        Number format of matrix products; auto is that of the run.
    threads
        Number of CPU threads; by default those of the run.
    """
    if threads is not None and threads < 1:
        raise ConfigError("--threads must be positive", got=threads, remedy="Give 1 or more.")
    machine = MachineConfig(device=device, precision=precision, threads=threads)
    for option, values, wanted in (("--text", text, "FILE"), ("--tasks", tasks, "TASK")):
        if values == []:
            command = shell_line(["minigpt", "evaluate", str(run), option, wanted])
            raise ConfigError(f"{option} needs a value", remedy=f"Give one or more: {command}")
    if reading != DEFAULT_SOURCE_OPTIONS and not text:
        option = reading.arguments()[0]
        raise ConfigError(f"{option} needs --text", remedy="It describes how the files of --text are read.")
    if tasks:
        if data or text or plot or split or stride is not None:
            remedy = "Omit --data, --text, --split, --stride and --plot."
            raise ConfigError("Tasks come with their own texts", got="--tasks", remedy=remedy)
        _evaluate_tasks(run, tasks, checkpoint, machine, batch_size, as_json)
        return

    from minigpt.cli.console import print_json
    from minigpt.cli.progress import progress
    from minigpt.evaluation import evaluate
    from minigpt.evaluation.eval_plots import check_picture, draw_evaluation

    if plot:
        check_picture(plot)
    with progress() as on_progress:
        evaluation = evaluate(
            run,
            data=data,
            texts=text or (),
            source_options=unescaped_options(reading),
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
    if plot:  # last, so that an error there does not lose the results
        draw_evaluation(evaluation, plot)


def _evaluate_tasks(
    run: Path, tasks: list[str], checkpoint: str, machine: MachineConfig, batch_size: int, as_json: bool
) -> None:
    from minigpt.cli.console import Console, print_json
    from minigpt.cli.progress import progress
    from minigpt.evaluation.harness import run_harness
    from minigpt.generation import stream
    from minigpt.runs.folder import RunFolder, load
    from minigpt.runtime import restore_runtime

    runtime = restore_runtime(RunFolder.open(run).environment(), machine)
    model, tokenizer = load(run, checkpoint, runtime.device)
    with progress() as on_progress:
        results = run_harness(
            model,
            tokenizer,
            runtime,
            tasks,
            generate=lambda prompt, n: stream(model, tokenizer, prompt, max_new_tokens=n, temperature=0.0, seed=0),
            batch_size=batch_size,
            on_progress=lambda done, total: on_progress("requests", done, total),
        )
    if as_json:
        print_json({"run": str(run), "tasks": [vars(result) for result in results]})
    else:
        Console(soft_wrap=False).print_table(_task_table(results))


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


def _task_table(results: Sequence[TaskResult]) -> Table:
    rows = [
        (result.task, result.metric, f"{result.value:.4f}", "" if result.stderr is None else f"{result.stderr:.4f}")
        for result in results
    ]
    return Table(["task", "metric", "value", "standard error"], rows, (0, 1))
