"""The training loop: batch -> loss -> check -> step -> emit.

Everything random is a function of (seed, order, step): which batch comes from `BatchLoader`, and dropout is seeded anew
for each micro-batch. So a step is the same whatever came before it, and a run that was killed and resumed ends with the
same bytes as one that was not.

Not here: what happens around the steps, such as metrics, validation, checkpoints and health checks. Callbacks do that
(callbacks/), and the trainer knows none of them. How a run is started or resumed is in api.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from minigpt import runtime
from minigpt.config import Config
from minigpt.data import Batch, BatchLoader, Dataset
from minigpt.errors import MiniGPTError
from minigpt.intervals import Intervals
from minigpt.model import GPT
from minigpt.runs.folder import RunFolder
from minigpt.training.accumulate import GradientAccumulator
from minigpt.training.optimizers import make_optimizers, set_lr
from minigpt.training.schedules import lr_factor
from minigpt.training.step_guard import check_step, first_nonfinite_gradient
from minigpt.training.throughput import Throughput
from minigpt.training.train_state import StepResult, TrainResult, TrainState
from minigpt.training.trainer_callback import TrainerCallback


class Trainer:
    """A model, what trains it, and where it is in its training.

    Attributes:
        state: the step and everything else that a checkpoint holds besides tensors.
        model, optimizers, scaler: what a step changes.
        stopped: set by a callback to end the session after the current step.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        machine: runtime.Runtime,
        folder: RunFolder,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.config, self.dataset, self.machine, self.folder = config, dataset, machine, folder
        self.callbacks = callbacks
        self.intervals = Intervals(config, dataset.train.n_tokens, dataset.val.n_tokens)
        self.total_steps = self.intervals.total_steps
        self.throughput = Throughput(runtime.DeviceMonitor(machine.device))
        self.prefetches = machine.device.type != "cpu"  # a GPU computes while the next batch is read
        self.stopped = False
        self.started = time.perf_counter()
        self._failed: set[str] = set()
        self._fatal: Exception | None = None
        self.reset()

    def reset(self) -> None:
        """Sets everything to before the first step."""
        torch.manual_seed(self.config.train.seed)
        self.model = GPT(self.config.model).to(self.machine.device)
        self.optimizers = make_optimizers(self.model, self.config.train.lr, self.config.optimizer)
        self.scaler = torch.amp.GradScaler(self.machine.device.type, enabled=self.machine.precision == "float16")
        rows = self.config.train.batch_size // self.config.train.grad_accum_steps
        self.gradients = GradientAccumulator(self.model, self.machine, self.scaler, rows, self.note)
        self.set_state(TrainState())

    def set_state(self, state: TrainState) -> None:
        """Continues from a state, with the data in its order."""
        self.state, train = state, self.config.train
        self.seed = runtime.hash_seed(train.seed, state.order) if state.order else train.seed
        split, block_size, processes = self.dataset.train, self.config.model.block_size, runtime.world_size()
        self.batches = BatchLoader(split, block_size, train.batch_size, self.seed, runtime.rank(), processes)
        self.prefetched: tuple[int, Batch] | None = None
        self.batches.batch(0)  # a split too short for this context length is refused before anything is written

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss has not improved for `train.patience` validations."""
        return 0 < self.config.train.patience <= self.state.patience_counter and not self.stopped

    def run(self) -> TrainResult:
        """Takes all steps that remain.

        Raises:
            MiniGPTError: if the training cannot continue; what was learned is saved.
        """
        self.notify("on_start")
        self.throughput.reset()
        try:
            while self.state.step < self.total_steps and not (self.stopped or self.stopped_early):
                self.train_step()
        except MiniGPTError as error:
            self.notify("on_error", error)
            raise
        self.notify("on_end")
        state, early = self.state, self.stopped_early and self.state.step < self.total_steps
        peak = runtime.peak_memory(self.machine.device)
        self.emit("end", stopped=self.stopped, stopped_early=early, peak_bytes=peak)
        return TrainResult(
            self.folder.path, state.step, state.best_loss, state.best_step, self.seconds(), self.stopped, early
        )

    def train_step(self) -> None:
        """Takes the next step, and lets the callbacks see it."""
        started, step = time.perf_counter(), self.state.step
        batch = self.prefetched[1] if self.prefetched and self.prefetched[0] == step else self.batches.batch(step)
        self.throughput.data_wait += time.perf_counter() - started
        result = self.step(batch, self.config.train.lr * lr_factor(step, self.total_steps, self.config.schedule))
        self.state.count(result.loss_sum, result.tokens)
        self.throughput.count(result.tokens, time.perf_counter() - started)
        if result.problem:
            self.notify("on_problem", result.problem, batch)
        if self.state.step > step:  # unless a callback went back to a checkpoint
            self.notify("on_step", result)

    def step(self, batch: Batch, lr: float) -> StepResult:
        """Takes one optimizer step. A gradient that is not finite is never applied."""
        settings, state = self.config.train, self.state
        set_lr(self.optimizers, lr)
        loss_sum, tokens = self.gradients.add(batch, self.seed, state.step)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        read_seconds = self.prefetch()
        waiting = time.perf_counter()
        loss_value, grad_norm = float(loss_sum), float(runtime.full_tensor(norm))  # waits for a GPU to finish
        if time.perf_counter() - waiting < 0.1 * read_seconds:
            self.throughput.data_wait += read_seconds  # it had finished before: reading was the slower part
        problem = check_step(
            loss_value / tokens, grad_norm, state.norms, self.scaler, lambda: first_nonfinite_gradient(self.model)
        )
        if problem is None or (problem.kind == "spike" and not settings.skip_spikes):
            self.notify("on_gradients")
            if settings.grad_clip:
                clip_grads_with_norm_(self.model.parameters(), settings.grad_clip, norm)
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            state.bad_steps = 0
        if math.isfinite(grad_norm):
            state.norms.add(grad_norm)
        self.scaler.update()
        self.model.zero_grad(set_to_none=True)
        return StepResult(loss_value, tokens, lr, grad_norm, problem)

    def prefetch(self) -> float:
        """Reads the next batch while a GPU computes; returns the seconds that reading took."""
        if not self.prefetches:
            return 0.0
        started, step = time.perf_counter(), self.state.step + 1
        self.prefetched = step, self.batches.batch(step)
        return time.perf_counter() - started

    def emit(self, kind: str, **values: Any) -> None:
        """Gives a record to every callback, in the main process."""
        if runtime.is_main():
            where = {"step": self.state.step, "epoch": self.epoch()}
            self.notify("on_record", {"kind": kind, **where, **values, "seconds": self.seconds()})

    def note(self, text: str) -> None:
        """Emits something that a person should know."""
        self.emit("note", text=text)

    def notify(self, event: str, *arguments: Any) -> None:
        """Calls a method of every callback. One that may fail is noted the first time it does."""
        for callback in self.callbacks:
            try:
                getattr(callback, event)(self, *arguments)
            except Exception as error:
                if callback.failure is None or error is self._fatal:
                    self._fatal = error  # a callback that may fail must not hide it
                    raise
                if callback.failure not in self._failed:
                    self._failed.add(callback.failure)
                    kind = "" if isinstance(error, MiniGPTError) else f"{type(error).__name__}: "
                    self.note(f"{callback.failure}: {kind}{error}")

    def epoch(self) -> float:
        """Returns the passes over the training split so far."""
        return round(self.state.step / self.intervals.steps_per_epoch, 4)

    def seconds(self) -> float:
        """Returns the training time so far, over all sessions."""
        return round(time.perf_counter() - self.started, 3)
