"""The gradient of one batch, in parts that fit into memory.

`GradientAccumulator` adds up the parts' gradients so that each token of the batch has the same weight, in whichever
part it
stands. When memory runs out it makes the parts smaller, and the batch stays what it was. Whether the model's code is
compiled is decided in compiling.py; what is done with a gradient, in trainer.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.config import IGNORE_INDEX
from minigpt.data import Batch
from minigpt.model import GPT
from minigpt.runtime import Runtime, hash_seed, is_out_of_memory


class GradientAccumulator:
    """Adds gradients to a model's parameters.

    Attributes:
        rows: sequences at once.
        recompute: whether activations are computed a second time rather than kept (Chen et al. 2016).
    """

    def __init__(
        self,
        model: GPT,
        machine: Runtime,
        scaler: torch.amp.GradScaler,
        rows: int,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.machine, self.scaler = model, machine, scaler
        self.rows, self.recompute, self.note = rows, False, note
        self.forward = model if machine.compiled == "off" else torch.compile(model, mode=machine.compiled)

    def add(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, int]:
        """Adds the gradient of the batch's mean loss, multiplied by the scaler's scale.

        Args:
            batch: ids and targets, each (sequences, time).
            seed, step: what dropout is a function of.

        Returns:
            The summed loss in nats, and the number of targets it is over.

        Raises:
            RuntimeError, MemoryError: if not even one sequence, its activations recomputed, fits into memory.
        """
        while True:
            try:
                return self._add(batch, hash_seed(seed, step))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self._take_less(len(batch.x), step):
                    raise
            # Out here the error is gone, and with it what its traceback held in memory.
            self.model.zero_grad(set_to_none=True)
            if self.machine.device.type == "cuda":
                torch.cuda.empty_cache()

    def _add(self, batch: Batch, seed: int) -> tuple[Tensor, int]:
        torch.manual_seed(seed)
        self.model.train()
        tokens = max(1, int((batch.y != IGNORE_INDEX).sum()))
        loss_sum = torch.zeros((), device=self.machine.device)
        for first in range(0, len(batch.x), self.rows):
            ids, targets = (self._on_device(array[first : first + self.rows]) for array in batch)
            with self.machine.autocast():
                part_sum = self.forward(ids, targets)
            self.scaler.scale(part_sum / tokens).backward()
            loss_sum += part_sum.detach()
        return loss_sum, tokens

    def _on_device(self, array: np.ndarray[Any, Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.machine.device.type == "cuda":
            return tensor.pin_memory().to(self.machine.device, non_blocking=True)  # it need not wait for the copy
        return tensor.to(self.machine.device)

    def _take_less(self, sequences: int, step: int) -> bool:
        """Goes one step down: half the rows; at one row, activations are recomputed. False if nothing is left to do."""
        self.rows = min(self.rows, sequences)
        if self.rows > 1:
            self.rows = (self.rows + 1) // 2
            self.note(
                f"out of memory in step {step + 1}: sequences at once {self.rows} from here on. The batch, and what "
                "is learned of it, stay the same"
            )
        elif not self.recompute:
            from torch.utils.checkpoint import checkpoint as recomputing

            self.recompute = True
            for block in self.model.h:
                block.forward = functools.partial(recomputing, block.forward, use_reentrant=False)
            self.note("out of memory with one sequence: activations are recomputed from here on, which takes longer")
        else:
            return False
        return True
