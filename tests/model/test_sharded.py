"""One step on two processes with FSDP2 is the step on one: training goes through the model's own `forward`."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.distributed

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from minigpt.config import GPTConfig
from minigpt.model import GPT

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
config = GPTConfig(vocab_size=50, block_size=12, n_embd=16, n_head=2, n_inner=24, dropout=0.0)
ids = torch.randint(50, (4, 13), generator=torch.Generator().manual_seed(1))

def gradients(model, rows):
    loss = model(ids[rows, :-1], ids[rows, 1:])
    (loss / ids[:, 1:].numel()).backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}

torch.manual_seed(0)
expected_loss, expected = gradients(GPT(config), slice(None))
torch.manual_seed(0)
model, mesh = GPT(config), init_device_mesh("cpu", (2,))
for block in model.h:
    fully_shard(block, mesh=mesh)
fully_shard(model, mesh=mesh)
loss, found = gradients(model, slice(2 * rank, 2 * rank + 2))
dist.all_reduce(loss)
torch.testing.assert_close(loss, expected_loss)
for name, gradient in found.items():
    assert isinstance(gradient, DTensor)
    torch.testing.assert_close(2 * gradient.full_tensor(), expected[name])  # FSDP means over ranks; a loss is summed
dist.destroy_process_group()
print("equal")
"""


@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == "win32", reason="torch has no gloo here")
def test_a_step_on_two_processes_is_the_step_on_one(tmp_path):
    command = [sys.executable, "-c", SCRIPT]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for process in processes:
        out, errors = process.communicate(timeout=120)
        assert (out, process.returncode) == ("equal\n", 0), errors
