"""metrics.jsonl, and a record of every step or every `train.log_every` steps."""

from __future__ import annotations

from minigpt import runtime
from minigpt.model.accounting import flops_per_token
from minigpt.records import MetricsFile, Record
from minigpt.training.train_state import StepResult
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class LogCallback(TrainerCallback):
    """Writes records to metrics.jsonl, and emits those of the steps.

    Args:
        matmul_flops: the machine's FLOP/s in matrix products, which model FLOPs utilization (MFU) is a fraction of.
    """

    def __init__(self, matmul_flops: float) -> None:
        self.matmul_flops = matmul_flops

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Writes the record if its kind is kept."""
        MetricsFile(trainer.folder.metrics_file)(record)

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Emits `step` when due, and `progress`."""
        state = trainer.state
        if trainer.intervals.log(state.step):
            loss, speed = state.take_logged_loss(), trainer.throughput.read()
            trainer.emit(
                "step",
                loss=loss,
                lr=result.lr,
                grad_norm=result.grad_norm,
                tokens=state.tokens,
                **speed,
                mfu=self.mfu(trainer, speed["tokens_per_second"]),
            )
        trainer.emit("progress", total=trainer.total_steps)

    def mfu(self, trainer: Trainer, tokens_per_second: float) -> float:
        """Returns the FLOP/s of the model, forward and backward, as a fraction of what the machines can do."""
        flops = tokens_per_second * sum(flops_per_token(trainer.config.model).values())
        return round(flops / (self.matmul_flops * runtime.world_size()), 4)
