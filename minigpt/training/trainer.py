"""The training loop, top to bottom: `Trainer.run` loops, `Trainer.step` takes one step, the rest is what they call.

Everything random is a function of (seed, order, step): which batch comes from `BatchLoader`, and the dropout's random
state is set anew at each step. So a step is the same whatever came before it, and a run that was killed and resumed
ends with the same bytes as one that was not. What a run reports goes to watchers as records (metrics.py); where it is
kept is the run folder's business (folder.py); what is done about bad steps is in step_guard.py. How a run is begun or
resumed is in api.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from minigpt import runtime
from minigpt.atomic import sync
from minigpt.config import Config
from minigpt.config_warnings import config_warnings
from minigpt.data import Batch, BatchLoader, Dataset
from minigpt.errors import CheckpointError, ConfigError, DataError
from minigpt.evaluation.loss import perplexity, split_loss
from minigpt.generation.fixed_prompts import fixed_prompts
from minigpt.generation.sample_log import extend_sample_log, truncate_sample_log
from minigpt.intervals import Intervals
from minigpt.model import GPT
from minigpt.model.accounting import parameter_table
from minigpt.records import Callback, read_metrics, truncate_after
from minigpt.runs import checkpoint
from minigpt.runs.folder import MODEL, OPTIMIZER, RunFolder
from minigpt.state_dict import first_bad_tensor, load_weights, model_tensors
from minigpt.text_utils import pluralize, shell_line
from minigpt.training.accumulate import GradientAccumulator
from minigpt.training.estimate import TrainingEstimate
from minigpt.training.health import HealthProbe, probe_ids
from minigpt.training.optimizers import load_optimizer_tensors, make_optimizers, optimizer_tensors, set_rate
from minigpt.training.reports import Reports
from minigpt.training.schedules import lr_factor
from minigpt.training.step_guard import (
    MOST_BAD_STEPS,
    StepProblem,
    bad_steps_error,
    check_step,
    first_not_finite,
    save_dump,
)
from minigpt.training.throughput import Throughput
from minigpt.training.train_state import SavedTraining, TrainState

MOST_REWINDS = 3
"""So often `on_nonfinite = "rewind"` tries another order of the data before it gives up."""


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        run: the run folder.
        steps: optimizer steps taken, over all its sittings.
        best_loss, best_step: the lowest validation loss, in nats a token, and when it was; None before the first.
        seconds: how long it took, over all its sittings.
        stopped: whether it was stopped before its last step.
        early: whether its patience has ended it before that.
    """

    run: Path
    steps: int
    best_loss: float | None
    best_step: int | None
    seconds: float
    stopped: bool
    early: bool


class Trainer:
    """A model in training, with all that takes part in it.

    Attributes:
        at: where it stands.
        waited: validations in a row, up to now, without a lower loss.
        model, optimizers, scaler: what changes with each step, beside `at`.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        machine: runtime.Runtime,
        folder: RunFolder,
        callbacks: Sequence[Callback],
        should_stop: Callable[[], bool],
        plan: TrainingEstimate | None = None,
    ) -> None:
        self.plan = plan
        self.config, self.dataset, self.machine, self.folder = config, dataset, machine, folder
        self.reports = Reports(folder, dataset, callbacks, self._tell)
        self.should_stop = should_stop
        self.begin()
        self.due = Intervals(config, dataset.train.n_tokens, dataset.val.n_tokens)
        self.total_steps = self.due.total_steps
        self.monitor = runtime.DeviceMonitor(machine.device)
        self.meter = Throughput(self.monitor)
        self.reads_ahead = machine.device.type != "cpu"  # a GPU works on while the next batch is read
        self.began = self.saved = time.perf_counter()

    def begin(self) -> None:
        """Sets everything to before the first step."""
        torch.manual_seed(self.config.train.seed)
        self.model = GPT(self.config.model).to(self.machine.device)
        self.optimizers = make_optimizers(self.model, self.config.train.lr, self.config.optimizer)
        self.scaler = torch.amp.GradScaler(self.machine.device.type, enabled=self.machine.precision == "float16")
        rows = self.config.train.batch_size // self.config.train.grad_accum_steps
        self.gradients = GradientAccumulator(self.model, self.machine, self.scaler, rows, self.note)
        self._stand_at(TrainState())

    def _stand_at(self, at: TrainState) -> None:
        self.at = at
        seed = self.config.train.seed
        self.seed = runtime.hash_seed(seed, at.order) if at.order else seed
        self.batches = BatchLoader(
            self.dataset.train, self.config.model.block_size, self.config.train.batch_size, self.seed
        )
        self.ahead: tuple[int, Batch] | None = None
        self.look: HealthProbe | None = None
        self.waited = 0
        self.batches.batch(0)  # a split too short for this context length is refused here, before anything is written

    def run(self) -> TrainResult:
        """Takes every step, and tells how it ended.

        Raises:
            MiniGPTError: if it cannot go on; what it has learned is saved.
        """
        self.reports.call_doctor()
        self._tell_start()
        try:
            stopped = self._take_steps()
        except DataError:  # the text was changed under the run: what it has learned is not of that
            self.save()
            raise
        at = self.at
        early = self.out_of_patience and not stopped and at.step < self.total_steps
        if early:
            self._tell_early()
        self.reports.draw()
        self._tell("end", stopped=stopped, early=early, peak_bytes=runtime.peak_memory(self.machine.device))
        return TrainResult(self.folder.path, at.step, at.best_loss, at.best_step, self._seconds(), stopped, early)

    def _take_steps(self) -> bool:
        """Takes steps to the end, saving and validating as the calendar has it; true if it was asked to stop before."""
        self.meter = Throughput(self.monitor)
        stopped = False
        while self.at.step < self.total_steps and not stopped and not self.out_of_patience:
            asked = time.perf_counter()
            batch = self._batch()
            self.meter.waited += time.perf_counter() - asked
            lr = self.config.train.lr * lr_factor(self.at.step, self.total_steps, self.config.schedule)
            loss_sum, tokens, grad_norm, trouble = self.step(batch, lr)
            self.at.count(loss_sum, tokens)
            self.meter.tokens += tokens
            if trouble and self._handle(trouble, batch):
                self.meter = Throughput(self.monitor)
                continue
            self._tell_health()
            if self.due.log(self.at.step):
                loss = self.at.take_logged_loss()
                self._tell("step", loss=loss, lr=lr, grad_norm=grad_norm, tokens=self.at.tokens, **self.meter.read())
            self._tell("progress", total=self.total_steps)
            stopped = self.at.step < self.total_steps and self.should_stop()
            paused = time.perf_counter()
            if stopped or self.due.save(self.at.step, paused - self.saved):
                self.save()
            if not stopped and self.due.validation(self.at.step):
                self.validate()
            self.meter.leave_out(time.perf_counter() - paused)
        return stopped

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation loss has not come lower for as long as the settings wait for it."""
        return 0 < self.config.train.patience <= self.waited

    def _batch(self) -> Batch:
        """Returns this step's batch: the one read ahead, if it is."""
        if self.ahead and self.ahead[0] == self.at.step:
            return self.ahead[1]
        return self.batches.batch(self.at.step)

    def step(self, batch: Batch, lr: float) -> tuple[float, int, float, StepProblem | None]:
        """Takes one optimizer step. A gradient that is not finite is never applied.

        Returns:
            The summed loss in nats, the number of tokens it is over, the gradient's norm before clipping, and what was
            wrong with it, if anything.
        """
        settings = self.config.train
        set_rate(self.optimizers, lr)
        self.look = None
        loss_sum, tokens = self.gradients.add(batch, self.seed, self.at.step)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        began = time.perf_counter()
        if self.reads_ahead:
            self.ahead = self.at.step + 1, self.batches.batch(self.at.step + 1)
        read = time.perf_counter()
        loss_value, grad_norm = float(loss_sum), float(norm)  # a GPU that is still at work is waited for here
        if self.reads_ahead and time.perf_counter() - read < 0.1 * (read - began):
            self.meter.waited += read - began  # it had finished before: reading held it up
        trouble = check_step(
            loss_value / tokens, grad_norm, self.at.norms, self.scaler, lambda: first_not_finite(self.model)
        )
        if trouble is None or (not trouble.bad and not trouble.overflow and not settings.skip_spikes):
            if self.due.health(self.at.step + 1):
                self._look()
            if settings.grad_clip:
                clip_grads_with_norm_(self.model.parameters(), settings.grad_clip, norm)
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            self.at.bad_steps = 0
        if math.isfinite(grad_norm):
            self.at.norms.add(grad_norm)
        self.scaler.update()
        self.model.zero_grad(set_to_none=True)
        return loss_value, tokens, grad_norm, trouble

    def _look(self) -> None:
        """Looks inside before the gradients are applied; an accident there ends no run."""
        try:
            self.look = HealthProbe(self.model, probe_ids(self.batches, self.at.step), self.machine)
        except Exception as error:  # memory, most likely
            self.reports.excuse("no look inside at this step", error)

    def _tell_health(self) -> None:
        if self.look:
            self._tell("health", modules=self.look.read())

    def _handle(self, trouble: StepProblem, batch: Batch) -> bool:
        """Says what was wrong with the step just taken; true if the run went back to a checkpoint.

        Raises:
            MiniGPTError: if too many steps in a row were bad, and the run may not go back.
        """
        if trouble.overflow:
            return False  # float16's scaler has halved its scale: part of finding it
        self.note(trouble.text)
        if not trouble.bad:
            return False
        self.at.bad_steps += 1
        if self.at.bad_steps < MOST_BAD_STEPS:
            return False
        if self.config.train.on_nonfinite == "rewind" and self.at.order < MOST_REWINDS:
            self.rewind()
            return True
        dump = save_dump(self.folder, self.model, batch, self.at, self.seed)
        raise bad_steps_error(self.at.step, trouble, dump, self.config)

    def rewind(self) -> None:
        """Goes back to the newest whole checkpoint, and on with the data in another order."""
        order, step = self.at.order + 1, self.at.step
        self.restore()
        self._stand_at(replace(self.at, order=order, bad_steps=0))
        self.save()
        self.note(f"went back from step {step} to step {self.at.step}, and on with the data in another order")

    def save(self) -> None:
        """Writes a checkpoint of this moment, and lets old ones go. Weights that are not finite are not worth one."""
        if name := first_bad_tensor(model_tensors(self.model)):
            self.note(f"{name} is not finite: no checkpoint is written")
            return
        self.at.seconds = self._seconds()
        if self.folder.metrics_file.exists():
            sync(self.folder.metrics_file)
        checkpoint.save(self.folder.checkpoint_folder(self.at.step), *self.contents())
        self.folder.remove_old_checkpoints(self.config.train.keep_checkpoints)
        self.saved = time.perf_counter()

    def contents(self) -> checkpoint.Contents:
        """Returns what a checkpoint of this moment holds."""
        return (
            {MODEL: model_tensors(self.model), OPTIMIZER: optimizer_tensors(self.model, self.optimizers)},
            {
                "progress": asdict(self.at),
                "scaler": self.scaler.state_dict(),
                "config": self.config.to_dict(),
                "total_steps": self.total_steps,
            },
        )

    def restore(self) -> None:
        """Returns to the newest whole checkpoint, or to the beginning if there is none.

        Raises:
            CheckpointError: if it was made with other settings, or by a newer Mini-GPT; or if there is none, and the
                run did not begin by chance.
        """
        folder, damaged = self.folder.newest_whole_checkpoint()
        if folder is None and (origin := self.folder.origin()):
            begin = ["--init-from", origin["folder"], "--data", self.folder.data()["folder"]]
            begin += ["--config", str(self.folder.config_file), "--run", "NEW"]
            raise CheckpointError(
                "The run has no whole checkpoint left, not even the weights that it began with",
                got=self.folder.checkpoints,
                remedy=f"Begin again from them: {shell_line(['minigpt', 'train', *begin])}",
            )
        lost = folder is None and not damaged and bool(read_metrics(self.folder.metrics_file))
        if folder is None:
            self.begin()
        else:
            values: SavedTraining = checkpoint.load_values(folder, SavedTraining)
            self.folder.check_settings(self.config, values["config"])
            load_weights(self.model, checkpoint.load_tensors(folder, MODEL, self.machine.device))
            self.optimizers = make_optimizers(self.model, self.config.train.lr, self.config.optimizer)
            tensors = checkpoint.load_tensors(folder, OPTIMIZER, self.machine.device)
            load_optimizer_tensors(self.model, self.optimizers, tensors)
            if self.scaler.is_enabled() and values["scaler"]:  # a run begun in another precision has none
                self.scaler.load_state_dict(values["scaler"])
            self._stand_at(values["progress"])
        if self.at.step > self.total_steps:
            raise ConfigError(
                f"The run has taken {pluralize(self.at.step, 'step')} already, more than it is to have",
                got=self.total_steps,
                remedy="Give a larger --epochs or --steps.",
            )
        self.began = time.perf_counter() - self.at.seconds
        truncate_after(self.folder.metrics_file, self.at.step)
        truncate_sample_log(self.folder, self.at.step)
        for error in damaged:
            self.note(f"{error.what} ({error.got}). It is set aside; going on from step {self.at.step}")
        if lost:
            self._tell("message", text="no checkpoint is there, though the run has taken steps: it begins anew")
        if self.at.step and folder is not None:
            since = max(self.at.best_step or 0, self.at.patience_since)
            self.waited = sum(r["step"] > since for r in read_metrics(self.folder.metrics_file, "validation"))
            self._settle_validation()

    def _settle_validation(self) -> None:
        """Brings a checkpoint up to date that was saved just before a validation: takes its result, or validates."""
        records = read_metrics(self.folder.metrics_file, "validation")
        record = next((record for record in records if record["step"] == self.at.step), None)
        if record is not None:
            self.at.take_epoch_loss()
            if record["best"]:
                self.at.best_loss, self.at.best_step, self.waited = record["val_loss"], self.at.step, 0
            self._sample()
        elif self.due.validation(self.at.step):
            self.validate()

    def validate(self) -> None:
        """Measures the loss over the whole validation split."""
        result = split_loss(
            self.model,
            self.dataset.val,
            self.machine,
            batch_size=self.gradients.rows,
            on_progress=lambda done, total: self._tell("validating", done=done, total=total),
        )
        train_loss = self.at.take_epoch_loss()
        best = math.isfinite(result.loss) and (self.at.best_loss is None or result.loss < self.at.best_loss)
        self.waited = 0 if best else self.waited + 1
        if best:
            self.at.best_loss, self.at.best_step = result.loss, self.at.step
            self.folder.mark_best(self.at.step, result.loss)
        self._tell(
            "validation",
            tokens=self.at.tokens,
            train_loss=train_loss,
            val_loss=result.loss,
            train_perplexity=perplexity(train_loss),
            val_perplexity=result.perplexity,
            val_bits_per_byte=result.bits_per_byte,
            best=best,
            waited=self.waited,
        )
        self._sample()

    def _sample(self) -> None:
        """At an epoch's end, keeps what the model says to a few prompts; an accident there ends no run."""
        if not (self.config.train.sample_prompts and self.due.epoch_ends(self.at.step)):
            return
        try:
            made = extend_sample_log(
                self.folder,
                lambda: self.model,
                self.dataset.tokenizer,
                fixed_prompts(self.dataset, self.config.train.sample_prompts),
                step=self.at.step,
                epoch=self._epoch(),
                source="fixed",
                note=self.note,
            )
        except Exception as error:  # memory, numbers that are none, a damaged file: the weights are safe without it
            self.reports.excuse("no samples of this epoch", error)
            return
        if made:
            self._tell("samples", samples=made)

    def _tell_start(self) -> None:
        self._tell(
            "start",
            total=self.total_steps,
            steps_per_epoch=self.due.steps_per_epoch,
            sequences=self.due.sequences,
            parameters=parameter_table(self.config.model),
            machine=self.machine,
            config=self.config,
        )
        if self.plan and not self.at.step:
            self._tell("plan", **self.plan.record())
        if (origin := self.folder.origin()) and not self.at.step:
            self._tell("message", text=f"beginning with the weights of {origin['folder']}")
        if not self.at.step:
            self.tell_misfits()

    def tell_misfits(self) -> None:
        """Says which settings do not fit the length of the run or its text."""
        for misfit in config_warnings(self.due):
            self._tell("message", text=str(misfit))

    def _tell_early(self) -> None:
        """Says that the run ends before its full length; in its metrics that stands once."""
        at, patience = self.at, self.config.train.patience
        text = (
            f"no lower validation loss in {pluralize(patience, 'validation')}: the run ends here, after {at.step:,} of "
            f"{self.total_steps:,} steps; the best checkpoint is of step {at.best_step}"
        )
        told = any(note["text"] == text for note in read_metrics(self.folder.metrics_file, "note"))
        self._tell("message" if told else "note", text=text)

    def be_patient_again(self) -> None:
        """Counts from here on how long the validation loss does not come lower, and saves that."""
        self.waited, self.at.patience_since = 0, self.at.step
        self.save()

    def note(self, text: str) -> None:
        """Tells something that a person should know."""
        self._tell("note", text=text)

    def _tell(self, kind: str, **values: Any) -> None:
        where = {"step": self.at.step, "epoch": self._epoch()}
        self.reports({"kind": kind, **where, **values, "seconds": self._seconds()})

    def _epoch(self) -> float:
        return round(self.at.step / self.due.steps_per_epoch, 4)

    def _seconds(self) -> float:
        return round(time.perf_counter() - self.began, 3)
