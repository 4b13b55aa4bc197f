"""A run's model in EleutherAI's lm-evaluation-harness: a thin adapter, so that its tasks ask our model.

The harness asks for two things: how likely a continuation is, which scores.py answers as for any text, and for a
continuation up to a stop string, which whoever calls hands in as a function.

Needs the extra `eval`. A task file is a program, not only data: it may name Python functions, which the harness runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

Write = Callable[[str, int], Sequence[str] | Any]
"""From a prompt and a number of new tokens to the pieces of the most likely continuation, one by one."""

BOOTSTRAP_RESAMPLES = 1_000
DEFAULT_NEW_TOKENS = 256
FEWSHOT_SEED = 1234  # the harness's own, so that its examples are those of other people's figures


@dataclass(frozen=True)
class TaskResult:
    """One figure of a task.

    Attributes:
        task: its name.
        metric: what was measured, with the filter that answers went through: `acc,none`.
        value: the figure.
        stderr: its standard error; None where the harness gives none.
    """

    task: str
    metric: str
    value: float
    stderr: float | None


def run_harness(
    model: GPT,
    tokenizer: Tokenizer,
    machine: Runtime,
    tasks: Sequence[str],
    *,
    write: Write,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[TaskResult]:
    """Returns what a model reaches on tasks of the harness.

    Args:
        model, tokenizer: as `minigpt.load` returns them.
        machine: device and precision to compute with.
        tasks: names of the harness's own tasks, or YAML files of one's own.
        write: continues a prompt greedily; for tasks that let the model write.
        batch_size: requests at once.
        on_progress: called with windows done and in all, for each kind of request.

    Raises:
        ConfigError: if there is no such task.
        DataError: if a task or its data cannot be read.
    """
    own = [task for task in tasks if Path(task).is_file()]
    if missing := [task for task in tasks if task not in own and task.endswith((".yaml", ".yml"))]:
        raise ConfigError("There is no such task file", got=", ".join(missing), remedy="Check its path.")
    manager = TaskManager(include_defaults=len(own) < len(tasks))  # looking through all of its own takes seconds
    for task in tasks:
        if task not in own and task not in manager.all_tasks:
            raise ConfigError(
                "The harness has no such task",
                got=task,
                remedy=f"{did_you_mean(task, manager.all_tasks)}Its own are listed by `lm-eval ls tasks`.",
            )
    try:
        loaded = manager.load(list(tasks))
    except Exception as error:  # a task file can be wrong in any way, and its data anywhere
        raise DataError(
            "A task or its data cannot be read",
            got=f"{type(error).__name__}: {error}",
            remedy="Check the task file; the harness's own tasks fetch their data from the Hugging Face hub.",
        ) from error
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise ConfigError("The task runs what a model writes", got=name, remedy="Mini-GPT runs no such task.")
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    adapter = HarnessModel(model, tokenizer, machine, write, batch_size, on_progress)
    found = evaluate(adapter, loaded, bootstrap_iters=BOOTSTRAP_RESAMPLES, log_samples=False)
    return [result for task, figures in found["results"].items() for result in _results(task, figures)]


def _results(task: str, figures: dict[str, Any]) -> list[TaskResult]:
    """Returns a task's figures: `acc,none` with `acc_stderr,none` beside it."""
    results = []
    for metric, value in figures.items():
        name, _, answer_filter = metric.partition(",")
        if answer_filter and not name.endswith("_stderr") and isinstance(value, int | float):
            stderr = figures.get(f"{name}_stderr,{answer_filter}")
            results.append(TaskResult(task, metric, float(value), stderr if isinstance(stderr, float) else None))
    return results


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A model as the harness sees it. Arguments as `run_harness`."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        machine: Runtime,
        write: Write,
        batch_size: int = 8,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        super().__init__()
        self._model, self._ids, self._machine = model, tokenizer, machine
        self._write, self._batch_size, self._on_progress = write, batch_size, on_progress

    @property
    def eot_token_id(self) -> int:
        """The id that stands before a text that has nothing before it."""
        return self._ids.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **settings: Any) -> list[int]:
        """Returns the ids of a text; none of them is special."""
        return self._ids.encode(string).tolist()

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **settings: Any
    ) -> list[tuple[float, bool]]:
        return self.log_likelihoods([(context, continuation) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of whole texts, each from its beginning: as `measure` of the same text."""
        pairs = [([self.eot_token_id], self.tok_encode(request.args[0])) for request in requests]
        return [total for total, _ in self.log_likelihoods(pairs)]

    def log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Returns for each context and continuation, as ids, the log-likelihood of the continuation in nats, and
        whether each of its tokens is the model's first guess.

        Of a context longer than the model's, the last tokens count. A continuation longer than that is read in windows.
        """
        most = self._model.config.block_size
        rows = [(context + continuation)[-max(most, len(continuation)) - 1 :] for context, continuation in pairs]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of like length make full batches
        starts = np.cumsum([0, *(len(rows[i]) for i in order)])
        leads = np.array([len(rows[i]) - len(pairs[i][1]) for i in order])
        tokens = np.concatenate([np.array(rows[i], dtype=np.uint32) for i in order])
        material = EvalText(tokens, starts[:-1], leads, starts[:-1], None, 1.0, self._ids)
        scores = score(self._model, material, self._machine, batch_size=self._batch_size, on_progress=self._on_progress)
        row = np.searchsorted(starts, scores.places, side="right") - 1  # (n_targets,)
        totals = np.bincount(row, weights=-scores.nll.astype(np.float64), minlength=len(rows))
        misses = np.bincount(row, weights=scores.rank > 0, minlength=len(rows))
        results = {i: (float(totals[place]), not misses[place]) for place, i in enumerate(order)}
        return [results[i] for i in range(len(rows))]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns the most likely continuations, each up to the first of its stop strings."""
        return [self._continued(*request.args) for request in requests]

    def _continued(self, prompt: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        text = ""
        for piece in self._write(prompt, int(settings.get("max_gen_toks", DEFAULT_NEW_TOKENS))):
            text += piece
            if any(stop in text for stop in stops):
                break
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]
