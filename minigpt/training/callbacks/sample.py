"""Samples: how the model continues a few fixed prompts at the end of each epoch, kept in samples.jsonl."""

from __future__ import annotations

from minigpt.generation.fixed_prompts import fixed_prompts
from minigpt.generation.sample_log import extend_sample_log
from minigpt.runtime import is_main
from minigpt.training.train_state import StepResult
from minigpt.training.trainer import Trainer
from minigpt.training.trainer_callback import TrainerCallback


class SampleCallback(TrainerCallback):
    """Emits `samples`."""

    failure = "no samples of this epoch"

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Samples at the end of an epoch."""
        if not trainer.stopped:
            self.sample(trainer)

    def on_restore(self, trainer: Trainer) -> None:
        """Samples if the checkpoint was saved at the end of an epoch, just before that."""
        self.sample(trainer)

    def sample(self, trainer: Trainer) -> None:
        """Continues those prompts that samples.jsonl does not have for this step yet."""
        prompts = trainer.config.train.sample_prompts
        if not (prompts and trainer.intervals.epoch_ends(trainer.state.step) and is_main()):
            return
        samples = extend_sample_log(
            trainer.folder,
            lambda: trainer.model,
            trainer.dataset.tokenizer,
            fixed_prompts(trainer.dataset, prompts),
            step=trainer.state.step,
            epoch=trainer.epoch(),
            source="fixed",
            note=trainer.note,
        )
        if samples:
            trainer.emit("samples", samples=samples)
