"""Validation over the whole split, the best checkpoint, and early stopping."""

from __future__ import annotations

import math

from minigpt.evaluation.loss import perplexity, split_loss
from minigpt.records import read_metrics
from minigpt.text_utils import pluralize
from minigpt.training.train_state import StepResult
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class ValidateCallback(TrainerCallback):
    """Emits `validation`. Its errors end the run: without it, nobody would know how good the model is."""

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Validates when it is due."""
        if not trainer.stopped and trainer.intervals.validation(trainer.state.step):
            self.validate(trainer)

    def on_restore(self, trainer: Trainer) -> None:
        """Completes a checkpoint that was saved just before a validation: takes its result if there is one."""
        state = trainer.state
        if state.validated_step == state.step:
            return
        records = read_metrics(trainer.folder.metrics_file, "validation")
        record = next((record for record in records if record["step"] == state.step), None)
        if record is not None:
            state.take_epoch_loss()
            state.count_validation(record["val_loss"], record["best"])
        elif trainer.intervals.validation(state.step):
            self.validate(trainer)

    def validate(self, trainer: Trainer) -> None:
        """Measures the loss over the whole validation split."""
        state = trainer.state
        result = split_loss(
            trainer.model,
            trainer.dataset.val,
            trainer.machine,
            batch_size=trainer.gradients.rows,
            on_progress=lambda done, total: trainer.emit("validating", done=done, total=total),
        )
        train_loss = state.take_epoch_loss()
        best = math.isfinite(result.loss) and (state.best_loss is None or result.loss < state.best_loss)
        state.count_validation(result.loss, best)
        if best:
            trainer.folder.mark_best(state.step, result.loss)
        trainer.emit(
            "validation",
            tokens=state.tokens,
            train_loss=train_loss,
            val_loss=result.loss,
            train_perplexity=perplexity(train_loss),
            val_perplexity=result.perplexity,
            val_bits_per_byte=result.bits_per_byte,
            best=best,
            patience_counter=state.patience_counter,
        )

    def on_end(self, trainer: Trainer) -> None:
        """Says that early stopping has ended the run; a note in metrics.jsonl says it once."""
        state = trainer.state
        if not trainer.stopped_early or state.step == trainer.total_steps:
            return
        text = (
            f"early stopping after step {state.step:,} of {trainer.total_steps:,}: the validation loss did not improve "
            f"in {pluralize(trainer.config.train.patience, 'validation')}; the best checkpoint is that of step "
            f"{state.best_step}"
        )
        noted = any(note["text"] == text for note in read_metrics(trainer.folder.metrics_file, "note"))
        trainer.emit("message" if noted else "note", text=text)
