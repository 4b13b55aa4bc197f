"""The gradient of one batch, in micro-batches that fit into memory.

`GradientAccumulator` adds up the gradients of the micro-batches so that each token of the batch has the same weight,
also when several processes share it. When memory runs out, micro-batches get smaller, and the batch stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt import runtime
from minigpt.config import IGNORE_INDEX
from minigpt.data import Batch
from minigpt.model import GPT
from minigpt.text_utils import pluralize


class GradientAccumulator:
    """Adds gradients to a model's parameters.

    Attributes:
        rows: sequences per micro-batch.
    """

    def __init__(
        self,
        model: GPT,
        machine: runtime.Runtime,
        scaler: torch.amp.GradScaler,
        rows: int,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.machine, self.scaler, self.rows, self.note = model, machine, scaler, rows, note
        self.forward: Callable[..., Tensor] = model
        if machine.compiled != "off":
            # The loss is a loop that must run as it is written. Decorating it where it is defined would import the
            # compiler, 74 MB and 0.8 s, into every process.
            model.loss = torch.compiler.disable(model.loss)  # type: ignore[method-assign]
            self.forward = torch.compile(model, mode=machine.compiled)

    def add(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, int]:
        """Adds the gradient of the batch's mean loss, multiplied by the scaler's scale.

        Args:
            batch: ids and targets, each (sequences, time): this process's share of the batch.
            seed, step: what dropout depends on.

        Returns:
            The summed loss in nats, and the number of targets it is over, in the whole batch.

        Raises:
            RuntimeError, MemoryError: if not even one sequence fits into memory with its activations recomputed.
        """
        while True:
            try:
                return self._add(batch, seed, step)
            except (RuntimeError, MemoryError) as error:
                if not runtime.is_out_of_memory(error) or not self._reduce_memory(len(batch.x), step):
                    raise
            # Out here the error is gone, and with it what its traceback held in memory.
            self.model.zero_grad(set_to_none=True)
            if self.machine.device.type == "cuda":
                torch.cuda.empty_cache()

    def _add(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, int]:
        self.model.train()
        sequences, processes = len(batch.x), runtime.world_size()
        rows = min(self.rows, sequences)
        tokens = max(1, int(runtime.sum_over_processes(torch.tensor(int((batch.y != IGNORE_INDEX).sum())))))
        loss_sum = torch.zeros((), device=self.machine.device)
        for first in range(0, sequences, rows):
            # The number of the micro-batch in the whole batch decides its dropout, whichever process computes it.
            torch.manual_seed(runtime.hash_seed(seed, step, (runtime.rank() * sequences + first) // rows))
            ids, targets = (self._on_device(array[first : first + rows]) for array in batch)
            with self.machine.autocast():
                loss = self.forward(ids, targets)
            # Processes average their gradients (FSDP and DDP do), so each contributes its sum times their number.
            self.scaler.scale(loss * processes / tokens).backward()
            loss_sum += loss.detach()
        return runtime.sum_over_processes(loss_sum), tokens

    def _on_device(self, array: np.ndarray[Any, Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.machine.device.type == "cuda":
            return tensor.pin_memory().to(self.machine.device, non_blocking=True)  # it need not wait for the copy
        return tensor.to(self.machine.device)

    def _reduce_memory(self, sequences: int, step: int) -> bool:
        """Halves the micro-batches; at one sequence, turns gradient checkpointing on. False if both are done."""
        self.rows = min(self.rows, sequences)
        if self.rows > 1:
            self.rows = (self.rows + 1) // 2
            self.note(
                f"out of memory in step {step + 1}: micro-batches of {pluralize(self.rows, 'sequence')} from here on; "
                "the batch, and what is learned from it, stay the same"
            )
        elif not self.model.gradient_checkpointing:
            self.model.gradient_checkpointing = True
            self.note(
                f"out of memory in step {step + 1} with one sequence: activations are recomputed from here on, "
                "which takes longer"
            )
        else:
            return False
        return True
