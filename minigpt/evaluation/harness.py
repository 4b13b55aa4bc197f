"""An adapter to EleutherAI's lm-evaluation-harness, so that its tasks can be run on a model.

The harness asks for the likelihood of a continuation, which scores.py computes as for any text, and for a continuation
up to a stop string, for which the caller passes a function.

Needs the extra `eval`. A task file is a program, not just data: the harness runs the Python functions that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.errors import ConfigError, DataError, MissingExtraError, did_you_mean
from minigpt.evaluation.eval_text import EvalText
from minigpt.evaluation.scores import score
from minigpt.model import GPT
from minigpt.runtime import Runtime
from minigpt.tokenizers import Tokenizer

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager
except ImportError as missing:
    raise MissingExtraError("The evaluation harness", "eval") from missing

Generate = Callable[[str, int], Iterable[str]]
"""Takes a prompt and a number of new tokens, and yields the pieces of the greedy continuation."""

BOOTSTRAP_RESAMPLES = 1_000
DEFAULT_NEW_TOKENS = 256
FEWSHOT_SEED = 1234  # the harness's default, for results that compare with others'


@dataclass(frozen=True)
class TaskResult:
    """One metric of a task.

    Attributes:
        task: the task's name.
        metric: the metric's name and the filter applied to answers: `acc,none`.
        value: its value.
        stderr: its standard error; None if the harness gives none.
    """

    task: str
    metric: str
    value: float
    stderr: float | None


def run_harness(
    model: GPT,
    tokenizer: Tokenizer,
    runtime: Runtime,
    tasks: Sequence[str],
    *,
    generate: Generate,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[TaskResult]:
    """Returns a model's results on tasks of the harness.

    Args:
        model, tokenizer: as `minigpt.load` returns them.
        runtime: device and precision.
        tasks: names of tasks that come with the harness, or YAML files.
        generate: continues a prompt greedily, for tasks that need it.
        batch_size: requests per forward pass.
        on_progress: called with windows done and in all, for each type of request.

    Raises:
        ConfigError: if a task is unknown.
        DataError: if a task or its data cannot be read.
    """
    task_files = [task for task in tasks if Path(task).is_file()]
    if missing := [task for task in tasks if task not in task_files and task.endswith((".yaml", ".yml"))]:
        raise ConfigError("Task file not found", got=", ".join(missing), remedy="Check its path.")
    manager = TaskManager(include_defaults=len(task_files) < len(tasks))  # indexing the harness's tasks takes seconds
    for task in tasks:
        if task not in task_files and task not in manager.all_tasks:
            remedy = f"{did_you_mean(task, manager.all_tasks)}`lm-eval ls tasks` lists them."
            raise ConfigError("The harness has no such task", got=task, remedy=remedy)
    try:
        loaded = manager.load(list(tasks))
    except Exception as error:  # task files and their data can fail in any way
        raise DataError(
            "A task or its data cannot be read",
            got=f"{type(error).__name__}: {error}",
            remedy="Check the task file; tasks of the harness download their data from the Hugging Face hub.",
        ) from error
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise ConfigError("The task executes code that the model writes", got=name, remedy="Choose another task.")
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    adapter = HarnessModel(model, tokenizer, runtime, generate, batch_size, on_progress)
    found = evaluate(adapter, loaded, bootstrap_iters=BOOTSTRAP_RESAMPLES, log_samples=False)
    return [result for task, figures in found["results"].items() for result in _results(task, figures)]


def _results(task: str, figures: dict[str, Any]) -> list[TaskResult]:
    """Returns a task's metrics, such as `acc,none`, whose standard error is `acc_stderr,none`."""
    results = []
    for metric, value in figures.items():
        name, _, answer_filter = metric.partition(",")
        if answer_filter and not name.endswith("_stderr") and isinstance(value, int | float):
            stderr = figures.get(f"{name}_stderr,{answer_filter}")
            results.append(TaskResult(task, metric, float(value), stderr if isinstance(stderr, float) else None))
    return results


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A model for the harness. Arguments as for `run_harness`."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        runtime: Runtime,
        generate: Generate,
        batch_size: int = 8,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        super().__init__()
        self._model, self._tokenizer, self._runtime = model, tokenizer, runtime
        self._generate, self._batch_size, self._on_progress = generate, batch_size, on_progress

    @property
    def eot_token_id(self) -> int:
        """The id before a text without context."""
        return self._tokenizer.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **settings: Any) -> list[int]:
        """Returns the ids of a text; special tokens in it are ordinary characters."""
        return self._tokenizer.encode(string).tolist()

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **settings: Any
    ) -> list[tuple[float, bool]]:
        return self.log_likelihoods([(context, continuation) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of whole texts, each from its beginning, as `evaluate` computes it."""
        pairs = [([self.eot_token_id], self.tok_encode(request.args[0])) for request in requests]
        return [total for total, _ in self.log_likelihoods(pairs)]

    def log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Returns for each context and continuation, as ids, the log-likelihood of the continuation in nats, and
        whether each of its tokens is the most likely one.

        A context longer than the model's is cut to its last tokens. A longer continuation is read in windows.
        """
        most = self._model.config.block_size
        rows = [(context + continuation)[-max(most, len(continuation)) - 1 :] for context, continuation in pairs]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of similar length fill batches
        starts = np.cumsum([0, *(len(rows[i]) for i in order)])
        leads = np.array([len(rows[i]) - len(pairs[i][1]) for i in order])
        tokens = np.concatenate([np.array(rows[i], dtype=np.uint32) for i in order])
        text = EvalText(tokens, starts[:-1], leads, starts[:-1], None, 1.0, self._tokenizer)
        scores = score(self._model, text, self._runtime, batch_size=self._batch_size, on_progress=self._on_progress)
        row = np.searchsorted(starts, scores.positions, side="right") - 1  # (n_targets,)
        totals = np.bincount(row, weights=-scores.nll.astype(np.float64), minlength=len(rows))
        misses = np.bincount(row, weights=scores.rank > 0, minlength=len(rows))
        results = {i: (float(totals[position]), not misses[position]) for position, i in enumerate(order)}
        return [results[i] for i in range(len(rows))]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns greedy continuations, each up to the first of its stop strings."""
        return [self._continued(*request.args) for request in requests]

    def _continued(self, prompt: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        text = ""
        for piece in self._generate(prompt, int(settings.get("max_gen_toks", DEFAULT_NEW_TOKENS))):
            text += piece
            if any(stop in text for stop in stops):
                break
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]
