"""A step of the trainer on two processes, its model sharded by FSDP2, is the step on one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from minigpt import runtime
from minigpt.data import Dataset
from minigpt.runs.folder import RunFolder
from minigpt.training.optimizers import make_optimizers
from minigpt.training.saving import save
from minigpt.training.trainer import Trainer
from tests.conftest import tiny

rank, store, data = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dataset = Dataset.open(data)
config = tiny(model__vocab_size=dataset.tokenizer.vocab_size, train__grad_accum_steps=2, optimizer__name="adamw")

def trainer():
    return Trainer(config, dataset, runtime.detect_runtime("cpu", "float32", 1), RunFolder("nowhere"))

alone = trainer()
expected = [alone.step(alone.batches.batch(step), 0.01) for step in range(2)]

dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
assert (runtime.rank(), runtime.world_size(), runtime.is_main()) == (rank, 2, rank == 0)
shared, mesh = trainer(), init_device_mesh("cpu", (2,))
for block in shared.model.h:
    fully_shard(block, mesh=mesh)
fully_shard(shared.model, mesh=mesh)
shared.optimizers = make_optimizers(shared.model, config.train.lr, config.optimizer)
batch = shared.batches.batch(0)
assert len(batch.x) == 2 and (batch.x == alone.batches.batch(0).x[2 * rank : 2 * rank + 2]).all()
for step, one in enumerate(expected):
    found = shared.step(shared.batches.batch(step), 0.01)
    assert found.tokens == one.tokens and found.problem is None
    assert abs(found.loss_sum - one.loss_sum) < 1e-5 * one.loss_sum, (found, one)
    assert abs(found.grad_norm - one.grad_norm) < 1e-4 * one.grad_norm, (found, one)
for (name, parameter), whole in zip(shared.model.named_parameters(), alone.model.parameters()):
    torch.testing.assert_close(parameter.full_tensor(), whole, rtol=1e-3, atol=1e-4, msg=name)
if rank:
    save(shared)  # only the main process writes
dist.destroy_process_group()
print("equal")
"""


@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == "win32", reason="torch has no gloo here")
def test_a_step_on_two_processes_is_the_step_on_one(data_folder, tmp_path):
    """With dropout, and two micro-batches: one per process."""
    command = [sys.executable, "-c", SCRIPT]
    arguments = [str(tmp_path / "store"), str(data_folder)]
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [*command, str(rank), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
        )
        for rank in range(2)
    ]
    for process in processes:
        out, errors = process.communicate(timeout=120)
        assert (out, process.returncode) == ("equal\n", 0), errors
