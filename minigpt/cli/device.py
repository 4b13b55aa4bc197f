"""`minigpt device`."""

from __future__ import annotations

from minigpt.cli.console import Console


def device_command() -> None:
    """Show what this machine offers, what Mini-GPT would use of it, and why.

    Most of a model's work is matrix products, so their measured speed tells how fast training can be.
    """
    import torch

    from minigpt.runtime import DTYPES, DeviceMonitor, detect_runtime, environment, measure_matmul_flops

    machine = detect_runtime()
    facts = environment(machine)
    used = DeviceMonitor(machine.device).read()["memory"]
    cuda, mps = ("yes" if there else "no" for there in (torch.cuda.is_available(), torch.backends.mps.is_available()))
    rows = {
        "device": f"{machine.device} ({machine.device_reason})",
        "precision": f"{machine.precision} ({machine.precision_reason})",
        "processor": f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads used",
        "memory": f"{facts['memory_bytes'] / 1e9:.1f} GB, {used / 1e9:.2f} GB of it used by this process",
        "GPU": facts["gpu"] or f"none (CUDA {cuda}, MPS {mps})",
        "versions": f"minigpt {facts['minigpt']}, torch {facts['torch']}, Python {facts['python']}, {facts['system']}",
    }
    for name, dtype in DTYPES.items():
        rate = measure_matmul_flops(machine.device, dtype, 1024 if machine.device.type == "cpu" else 4096, 0.2)
        rows[f"{name} speed"] = f"{rate / 1e9:,.0f} GFLOP/s in matrix products"
    console = Console()
    for name, value in rows.items():
        console.print(f"{name:14} {value}")
