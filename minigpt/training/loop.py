"""The training loop, top to bottom: `train` prepares, `Training.run` loops, `Training.step` takes one step.

Randomness is a function of (seed, step): the order of the data comes from `Batches`, and the dropout's random state is
set anew at each step. So a step is the same whatever came before it. What a run reports goes to watchers as records
(metrics.py); where it is kept is the run folder's business (run.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from minigpt import checkpoint, device
from minigpt.config import Config, with_model
from minigpt.data import Batch, Batches, Dataset
from minigpt.errors import MiniGPTError
from minigpt.evaluation.loss import SplitLoss, perplexity, split_loss
from minigpt.model import GPT
from minigpt.model.cost import parameter_table
from minigpt.model.head import IGNORE
from minigpt.run import MODEL, RunFolder, model_tensors
from minigpt.training.metrics import Meter, MetricsFile, Watcher
from minigpt.training.optimizers import make_optimizers, optimizer_tensors, set_rate
from minigpt.training.picture import draw_curves
from minigpt.training.schedules import rate

BAD_STEPS = 5
"""So many steps in a row whose gradient is not finite end the run."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        run: the run folder.
        steps: optimizer steps taken.
        best_loss, best_step: the lowest validation loss, in nats a token, and when it was.
        seconds: how long it took.
        stopped: whether it was stopped before its last step.
    """

    run: Path
    steps: int
    best_loss: float
    best_step: int
    seconds: float
    stopped: bool


@dataclass
class Position:
    """Where a run stands: all that a checkpoint holds beside weights and optimizer.

    Attributes:
        step: optimizer steps taken.
        tokens: targets trained on.
        loss_sum, loss_tokens: the training loss since the last validation, and the targets it is over.
        best_loss, best_step: the lowest validation loss, and when it was.
        skipped: steps whose gradient was not finite; bad_steps: the last ones of them in a row.
    """

    step: int = 0
    tokens: int = 0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    skipped: int = 0
    bad_steps: int = 0


def train(
    data: Path | str,
    run: Path | str,
    config: Config | None = None,
    *,
    watchers: Sequence[Watcher] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trains a model from scratch and leaves everything about it in a run folder.

    Args:
        data: a folder that `minigpt prepare` made.
        run: the folder to make; it must not exist.
        config: settings, as `minigpt.config.resolve` makes them; the preset `seed` when left out. The model's
            vocabulary is the data set's tokenizer's.
        watchers: functions that are given each record (see metrics.py).
        should_stop: asked after each step; true saves a checkpoint and ends the run.

    Raises:
        MiniGPTError: if data, settings or folder cannot work; nothing has been written then.
    """
    return start(data, run, config or Config(), watchers, should_stop).run()


def start(
    data: Path | str,
    run: Path | str,
    config: Config,
    watchers: Sequence[Watcher] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Training:
    """Returns a training before its first step, its run folder made. Arguments and errors as `train`."""
    config.check()
    RunFolder(run).check_absent()
    dataset = Dataset.open(data)
    config = with_model(config, vocab_size=dataset.tokenizer.vocab_size)
    machine = device.choose(config.machine.device, config.machine.precision, config.machine.threads)
    batches = Batches(dataset.train.tokens, config.model.block_size, config.train.batch_size, config.train.seed)
    batches.batch(0)  # a split too short for this context length is refused here, before anything is written
    torch.manual_seed(config.train.seed)
    model = GPT(config.model).to(machine.device)
    folder = RunFolder.create(run, config, dataset.tokenizer, dataset.identity(), device.environment(machine))
    return Training(config, dataset, batches, machine, model, folder, watchers, should_stop)


class Training:
    """A model in training, with all that takes part in it."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        batches: Batches,
        machine: device.Machine,
        model: GPT,
        folder: RunFolder,
        watchers: Sequence[Watcher],
        should_stop: Callable[[], bool],
    ) -> None:
        self.config, self.dataset, self.batches = config, dataset, batches
        self.machine, self.model, self.folder = machine, model, folder
        self.watchers: list[Watcher] = [MetricsFile(folder.metrics_file), *watchers]
        self.should_stop = should_stop
        self.total_steps = config.train.steps or config.train.epochs * batches.steps_per_epoch
        self.optimizers = make_optimizers(model, config.train.lr, config.optimizer)
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.precision == "float16")
        self.monitor = device.UseMonitor(machine.device)
        self.at = Position()
        self.start = time.perf_counter()

    def run(self) -> Outcome:
        """Takes every step; validates and saves at each epoch's end and at the last step."""
        self._tell_start()
        meter = Meter(self.monitor)
        stopped = False
        while self.at.step < self.total_steps and not stopped:
            asked = time.perf_counter()
            batch = self.batches.batch(self.at.step)
            meter.waited += time.perf_counter() - asked
            lr = self.config.train.lr * rate(self.at.step, self.total_steps, self.config.schedule)
            loss_sum, tokens, grad_norm = self.step(batch, lr)
            self._count(loss_sum, tokens, grad_norm)
            meter.add(loss_sum, tokens)
            if self.at.step == 1:
                self._check_first_loss(loss_sum / tokens)
            if self.at.step == 1 or self.at.step % self.config.train.log_every == 0 or self.at.step == self.total_steps:
                self._tell("step", tokens=self.at.tokens, lr=lr, grad_norm=grad_norm, **meter.read(), **self._clock())
            self._tell("progress", total=self.total_steps)
            stopped = self.at.step < self.total_steps and self.should_stop()
            if stopped or self._validation_is_due():
                self.save()
                if not stopped:
                    self.validate()
                meter = Meter(self.monitor)
        self._tell("end", stopped=stopped, **self._clock())
        at, seconds = self.at, time.perf_counter() - self.start
        return Outcome(self.folder.path, at.step, at.best_loss, at.best_step, seconds, stopped)

    def step(self, batch: Batch, lr: float) -> tuple[float, int, float]:
        """Takes one optimizer step, in `accumulate` parts whose gradients add up to the whole batch's.

        Each token of the batch has the same weight, in whichever part it stands. A gradient that is not finite is
        never applied.

        Returns:
            The summed loss in nats, the number of tokens it is over, and the gradient's norm before clipping.
        """
        settings = self.config.train
        torch.manual_seed(device.hash_seed(settings.seed, self.at.step))  # dropout: a function of (seed, step)
        self.model.train()
        set_rate(self.optimizers, lr)
        tokens = int((batch.y != IGNORE).sum())
        loss_sum = torch.zeros((), device=self.machine.device)
        for part in range(settings.accumulate):
            rows = slice(part * len(batch.x) // settings.accumulate, (part + 1) * len(batch.x) // settings.accumulate)
            ids, targets = (torch.from_numpy(array[rows]).to(self.machine.device) for array in (batch.x, batch.y))
            with self.machine.autocast():
                part_sum = self.model.loss_sum(ids, targets)
            self.scaler.scale(part_sum / tokens).backward()
            loss_sum += part_sum.detach()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        grad_norm = float(clip_grad_norm_(self.model.parameters(), settings.clip or math.inf))
        if math.isfinite(grad_norm) or self.scaler.is_enabled():  # the scaler skips an overflow by itself
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            self.scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return float(loss_sum), tokens, grad_norm

    def _count(self, loss_sum: float, tokens: int, grad_norm: float) -> None:
        """Moves the position past the step just taken.

        Raises:
            MiniGPTError: if too many steps in a row had no finite gradient.
        """
        self.at.step += 1
        self.at.tokens += tokens
        if math.isfinite(loss_sum):
            self.at.loss_sum += loss_sum
            self.at.loss_tokens += tokens
        if math.isfinite(grad_norm):
            self.at.bad_steps = 0
            return
        self.at.skipped += 1
        if self.scaler.is_enabled():
            return  # an overflow of float16 halves the scale and is part of finding it
        self.at.bad_steps += 1
        self._note(f"the gradient is not finite: the step is skipped (loss {loss_sum / max(1, tokens):.4g})")
        if self.at.bad_steps == BAD_STEPS:
            raise MiniGPTError(
                f"{BAD_STEPS} steps in a row had no finite gradient, the last at step {self.at.step}",
                remedy=f"Nothing of them was applied; the last checkpoint is whole. Try a lower --train.lr than "
                f"{self.config.train.lr:g}, some --schedule.warmup-steps, or --machine.precision float32.",
            )

    def _validation_is_due(self) -> bool:
        every = self.config.train.validate_every
        return (
            self.at.step % self.batches.steps_per_epoch == 0
            or self.at.step == self.total_steps
            or (every is not None and self.at.step % every == 0)
        )

    def save(self) -> None:
        """Writes a checkpoint of this moment, and lets old ones go."""
        checkpoint.save(
            self.folder.checkpoint_folder(self.at.step),
            {MODEL: model_tensors(self.model), "optimizer": optimizer_tensors(self.model, self.optimizers)},
            {
                "position": asdict(self.at),
                "scaler": self.scaler.state_dict(),
                "total_steps": self.total_steps,
            },
        )
        self.folder.remove_old_checkpoints(self.config.train.keep)

    def validate(self) -> None:
        """Measures the loss over the whole validation split, and redraws the picture."""
        result: SplitLoss = split_loss(
            self.model,
            self.dataset.val,
            self.machine,
            batch_size=max(1, self.config.train.batch_size // self.config.train.accumulate),
            on_progress=lambda done, total: self._tell("validating", done=done, total=total),
        )
        best = result.loss < self.at.best_loss
        if best:
            self.at.best_loss, self.at.best_step = result.loss, self.at.step
            self.folder.mark_best(self.at.step, result.loss)
        train_loss = self.at.loss_sum / self.at.loss_tokens if self.at.loss_tokens else math.nan
        self.at.loss_sum, self.at.loss_tokens = 0.0, 0
        self._tell(
            "validation",
            tokens=self.at.tokens,
            train_loss=train_loss,
            val_loss=result.loss,
            train_perplexity=perplexity(train_loss),
            val_perplexity=result.perplexity,
            val_bits_per_byte=result.bits_per_byte,
            best=best,
            **self._clock(),
        )
        draw_curves(self.folder.metrics_file, self.folder.picture_file, self.folder.path.name)

    def _check_first_loss(self, loss: float) -> None:
        """Says so if the first loss is far from ln(vocabulary), that of a model that knows nothing yet."""
        expected = math.log(self.config.model.vocab_size)
        if abs(loss - expected) > 0.1 * expected:
            self._note(
                f"the first loss is {loss:.3f}, but that of a model that knows nothing is ln(vocabulary) = {expected:.3f}: "
                "something is wrong with the initial weights or the targets"
            )

    def _tell_start(self) -> None:
        self._tell(
            "start",
            total=self.total_steps,
            steps_per_epoch=self.batches.steps_per_epoch,
            sequences=self.batches.n_sequences,
            parameters=parameter_table(self.config.model),
            device=str(self.machine.device),
            device_reason=self.machine.device_reason,
            precision=self.machine.precision,
            precision_reason=self.machine.precision_reason,
            data=self.dataset.identity(),
            run=str(self.folder.path),
        )

    def _note(self, text: str) -> None:
        self._tell("note", text=text)

    def _tell(self, kind: str, **values: Any) -> None:
        epoch = self.at.step / self.batches.steps_per_epoch
        record = {"kind": kind, "step": self.at.step, "epoch": round(epoch, 4), **values}
        for watcher in self.watchers:
            watcher(record)

    def _clock(self) -> dict[str, float]:
        return {"seconds": round(time.perf_counter() - self.start, 3)}
