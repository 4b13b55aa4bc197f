"""What a program runs on: device, number format, threads, and which of several processes it is.

Nothing is chosen at import: `detect_runtime` decides by what the machine has, and says why.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import psutil
import torch
import torch.distributed
from torch import Tensor

from minigpt.config import MachineConfig
from minigpt.errors import DeviceError
from minigpt.schema import Count

COMPILE_MODES = ("default", "reduce-overhead")
"""Modes of `torch.compile`; the second one records a GPU's launches once and replays them."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

INSTRUCTIONS = (
    *("avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx10_2", "amx_int8", "amx_bf16", "amx_fp16"),
    *("bf16", "i8mm", "sve", "sve2", "sme"),
)
"""Instruction sets that matrix products have special kernels for, by torch's names."""

KERNEL_VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("DNNL_DEFAULT_FPMATH_MODE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
)
"""Environment variables by which torch, oneDNN and MKL choose their kernels."""


@dataclass(frozen=True)
class Runtime:
    """What a program runs on.

    Attributes:
        device: where the tensors are.
        precision: number format of the matrix products, a key of `DTYPES`.
        device_reason, precision_reason: why these, for people.
        compiled: "off", or the mode of `torch.compile` when the model trains.
        compiled_reason: why.
    """

    device: torch.device
    precision: str
    device_reason: str
    precision_reason: str
    compiled: str = "off"
    compiled_reason: str = "not requested"

    @property
    def dtype(self) -> torch.dtype:
        """The precision as a torch type."""
        return DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns a context in which matrix products run in this precision, and sums in float32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def fork_random(self) -> AbstractContextManager[Any]:
        """Returns a context that leaves the random state, on the CPU and on a CUDA device, as it found it."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [], device_type="cuda")


def detect_runtime(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Runtime:
    """Decides what to run on, and sets the number of CPU threads: `threads`, or torch's default.

    Raises:
        DeviceError: if the device does not exist here or cannot compute.
    """
    torch.set_num_threads(threads or torch.get_num_threads())  # unless it is set, MKL may use fewer
    chosen, device_reason = _choose_device(device)
    if chosen.type == "cpu":
        _keep_freed_memory()
    if precision == "auto":
        return Runtime(chosen, *_fast_precision(chosen, device_reason))
    return Runtime(chosen, precision, device_reason, "as requested")


def restore_runtime(before: Mapping[str, Any], settings: MachineConfig) -> Runtime:
    """Decides what to resume a run on: what it ran on before if that is available, what is detected otherwise.

    Args:
        before: its `environment`.
        settings: its settings, which override both.
    """
    threads = before["threads"] if isinstance(before["threads"], int) else None
    if threads is not None and threads > (os.cpu_count() or 1):
        threads = None  # it was started on a larger machine
    machine = detect_runtime(settings.device, settings.precision, settings.threads or threads)
    if settings.compile != "off" and before.get("compiled", "off") in ("off", *COMPILE_MODES):
        machine = replace(machine, compiled=before.get("compiled", "off"), compiled_reason="as when the run started")
    kept = str(before["device"]).startswith(machine.device.type) and before["precision"] in DTYPES
    if settings.precision == "auto" and kept:
        return replace(machine, precision=before["precision"], precision_reason="as when the run started")
    return machine


def _keep_freed_memory() -> None:
    """Asks glibc, where it is the C library, to keep freed memory instead of returning it to the system.

    A training step allocates and frees the same tens of megabytes; the page faults would cost 4 to 14 % of a step
    (docs/log.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # names of malloc.h
        mallopt(trim_threshold, 1 << 30)
        mallopt(mmap_threshold, 1 << 30)


def _choose_device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"GPU found: {torch.cuda.get_device_name()}"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple GPU found"
        return torch.device("cpu"), "no GPU that this PyTorch can use"
    try:
        if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
            raise RuntimeError("Mini-GPT runs on cpu, cuda and mps")
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DeviceError(
            f"The device {name!r} is not available",
            got=reason,
            remedy="Use auto or cpu.",
        ) from None
    return device, "as requested"


def _fast_precision(device: torch.device, device_reason: str) -> tuple[str, str, str]:
    """Returns the precision, the device's reason unchanged, and the precision's reason."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        # From 8.0 on bfloat16 is native. A T4 (7.5) emulates it, slowly, though PyTorch calls it supported.
        for least, precision, why in (
            (8, "bfloat16", "native"),
            (7, "float16", "its tensor cores, with a loss scaler"),
        ):
            if major >= least:
                return precision, device_reason, f"{why} at compute capability {major}.{minor}"
        return "float32", device_reason, f"nothing faster at compute capability {major}.{minor}"
    if device.type == "cpu":
        # Measured in turns, so that a burst of another program does not hit only one of them.
        rates = [[measure_matmul_flops(device, dtype) for dtype in (torch.bfloat16, torch.float32)] for _ in range(3)]
        bfloat16, float32 = (max(column) for column in zip(*rates, strict=True))
        gain = bfloat16 / float32
        fast = gain > 1.3  # native bfloat16 gains 2 times and more; emulation loses
        return (
            "bfloat16" if fast else "float32",
            device_reason,
            f"matrix products are {gain:.1f} times as fast in bfloat16 as in float32",
        )
    return "float32", device_reason, "the safe choice on this kind of device"


def measure_matmul_flops(device: torch.device, dtype: torch.dtype, size: int = 512, seconds: float = 0.015) -> float:
    """Returns the measured speed of square matrix products in FLOP/s: the best of a few, after one to warm up.

    Args:
        device, dtype: of the matrices.
        size: their side; halved on a CPU while a product would take too long, as in float16 where that is emulated.
        seconds: how long to measure.
    """
    if device.type == "cpu" and size > 128:
        rough = measure_matmul_flops(device, dtype, 128, 0.001)
        while size > 128 and 2 * size**3 / rough > 4 * seconds:
            size //= 2
    a = torch.randn(size, size, device=device).to(dtype)
    best, deadline = float("inf"), 0.0
    while not deadline or time.perf_counter() < deadline:
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # reading a number waits for the device
        if deadline:
            best = min(best, time.perf_counter() - start)
        else:
            deadline = time.perf_counter() + seconds
    return 2 * size**3 / best if best < float("inf") else 2 * size**3 / seconds


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished, so that times are right."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or this machine has no memory left."""
    text = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and any(sign in text for sign in ("DefaultCPUAllocator", "not enough memory", "out of memory"))
    )


def peak_memory(device: torch.device) -> int | None:
    """Returns the peak memory of this process in bytes: resident on a CPU, allocated on a CUDA device.

    None where the system does not report it.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu":
        return None
    try:  # Linux: of this program alone; getrusage also counts what the process was before exec
        status = Path("/proc/self/status").read_text("ascii")
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])  # type: ignore[index]
    except (OSError, TypeError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0)) or None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def hash_seed(seed: int, step: int, part: int = 0) -> int:
    """Returns a 63-bit seed that looks unrelated for each argument: two rounds of splitmix64 (Steele et al. 2014)."""
    value = (seed * 0x9E3779B97F4A7C15 + step + part * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
    for _ in range(2):
        value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value >> 1


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Returns the number of this process among those that train together; 0 if it is alone."""
    return torch.distributed.get_rank() if _distributed() else 0


def world_size() -> int:
    """Returns how many processes train together."""
    return torch.distributed.get_world_size() if _distributed() else 1


def is_main() -> bool:
    """Whether this process writes files and shows progress."""
    return rank() == 0


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Returns the sum of a tensor over all processes; with one process, the tensor itself."""
    if world_size() > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Returns a tensor whole, where FSDP has spread it over several processes."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class DeviceMonitor:
    """Reads how much memory this process uses on the device, and how busy the device is."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first reading starts the clock of the next

    def read(self) -> dict[str, float]:
        """Returns `memory` in bytes (resident on a CPU, allocated on a GPU), and `device_util`, a fraction.

        `device_util` is missing where it is not known: on an Apple GPU, or without the `gpu` extra.
        """
        if self.device.type == "cpu":
            use = self._process.cpu_percent() / 100 / (torch.get_num_threads() or 1)
            return {"memory": float(self._process.memory_info().rss), "device_util": min(use, 1.0)}
        if self.device.type == "mps":
            return {"memory": float(torch.mps.current_allocated_memory())}
        reading = {"memory": float(torch.cuda.memory_allocated(self.device))}
        try:
            reading["device_util"] = torch.cuda.utilization(self.device) / 100
        except Exception:  # the driver's library may be missing, or may refuse
            return reading
        return reading


class Environment(TypedDict):
    """What other modules read of `environment`."""

    device: str
    precision: str
    threads: Count


def environment(machine: Runtime) -> dict[str, Any]:
    """Returns what a reader of the run should know of machine and versions; nothing that names a person."""
    from minigpt import __version__

    return {
        "minigpt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name(machine.device) if machine.device.type == "cuda" else None,
        "device": str(machine.device),
        "device_reason": machine.device_reason,
        "precision": machine.precision,
        "precision_reason": machine.precision_reason,
        "compiled": machine.compiled,
        "compiled_reason": machine.compiled_reason,
    }


def _instructions() -> str:
    """Returns what libraries choose their CPU kernels by: instruction sets, and environment variables.

    The processor's name does not say: different ones may all be called "AMD EPYC" in virtual machines.
    """
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    found = [name for name in INSTRUCTIONS if known.get(name)]
    variables = [f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if os.environ.get(name)]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *found, *variables])


def _processor_name() -> str:
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as lines:
                for line in lines:
                    if line.startswith("model name"):
                        return line.split(":", 1)[1].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()
