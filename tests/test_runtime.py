"""What is chosen to run on, and why: on this machine, and on machines that are only pretended."""

from __future__ import annotations

import pytest
import torch

from minigpt import runtime
from minigpt.config import MachineConfig
from minigpt.errors import DeviceError


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")],
)
def test_a_gpu_gets_what_its_generation_really_has(monkeypatch, capability, precision):
    """A T4 is 7.5: PyTorch calls bfloat16 supported there, but it is emulated."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    machine = runtime.detect_runtime()
    assert machine.device.type == "cuda"
    assert machine.precision == precision
    assert "a card" in machine.device_reason
    assert f"{capability[0]}.{capability[1]}" in machine.precision_reason


@pytest.mark.parametrize(("gain", "precision"), [(0.1, "float32"), (1.1, "float32"), (2.0, "bfloat16")])
def test_a_cpu_gets_bfloat16_only_where_it_is_fast(monkeypatch, gain, precision):
    rates = {torch.float32: 100.0, torch.bfloat16: 100.0 * gain}
    monkeypatch.setattr(runtime, "measure_matmul_flops", lambda where, dtype: rates[dtype])
    machine = runtime.detect_runtime("cpu")
    assert machine.precision == precision
    assert f"{gain:.1f} times" in machine.precision_reason


def test_an_apple_gpu_stays_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    machine = runtime.detect_runtime()
    assert (machine.device.type, machine.precision) == ("mps", "float32")


@pytest.mark.parametrize("name", ["warp", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(DeviceError, match=name):
        runtime.detect_runtime(name)


def test_what_is_asked_for_is_what_is_taken():
    machine = runtime.detect_runtime("cpu", "float16")
    assert (machine.dtype, machine.precision_reason) == (torch.float16, "as requested")


def test_a_resumed_run_keeps_its_precision_and_threads():
    before = {"device": "cpu", "precision": "bfloat16", "threads": torch.get_num_threads()}
    machine = runtime.restore_runtime(before, MachineConfig(device="cpu"))
    assert machine.precision == "bfloat16"
    assert runtime.restore_runtime(before, MachineConfig(device="cpu", precision="float32")).precision == "float32"


def test_the_use_of_the_device_is_read():
    use = runtime.DeviceMonitor(torch.device("cpu")).read()
    assert use["memory"] > 50e6
    assert 0 <= use["device_util"] <= 1


def test_the_environment_names_versions_and_reasons_and_no_person():
    facts = runtime.environment(runtime.detect_runtime("cpu", "float32"))
    assert facts["torch"] == torch.__version__
    assert facts["precision_reason"] == "as requested"
    import getpass
    import socket

    text = str(facts)
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    assert f"/{getpass.getuser()}/" not in text


def test_the_environment_tells_by_what_kernels_are_chosen(monkeypatch):
    machine = runtime.detect_runtime("cpu", "float32")
    before = runtime.environment(machine)["instructions"]
    assert before.startswith(torch.backends.cpu.get_cpu_capability())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert runtime.environment(machine)["instructions"] != before


def test_step_seeds_are_all_different():
    seeds = {runtime.hash_seed(seed, step) for seed in range(30) for step in range(300)}
    assert len(seeds) == 9000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_rate_is_measured():
    assert runtime.measure_matmul_flops(torch.device("cpu"), torch.float32, size=64, seconds=0.001) > 1e6


def test_a_slow_format_is_measured_on_small_matrices(monkeypatch):
    sizes, real = [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, **where: sizes.append(shape[0]) or real(*shape, **where))
    runtime.measure_matmul_flops(
        torch.device("cpu"), torch.float32, size=4096, seconds=1e-9
    )  # any is slow by that measure
    assert max(sizes) <= 128


def test_the_peak_of_memory_holds_what_was_held():
    cpu = torch.device("cpu")
    before = runtime.peak_memory(cpu)
    if before is None:  # a system that does not tell
        return
    block = torch.ones(40_000_000)
    del block
    assert runtime.peak_memory(cpu) >= before
    assert runtime.peak_memory(cpu) > 160_000_000


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_what_says_that_memory_is_out_is_known(error):
    assert runtime.is_out_of_memory(error)
    assert not runtime.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
