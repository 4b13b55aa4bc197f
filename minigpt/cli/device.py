"""`minigpt device`."""

from __future__ import annotations

from minigpt.cli.console import Console


def device_command() -> None:
    """Show what this machine offers, what Mini-GPT would use of it, and why.

    Matrix products are most of a model's work, so their measured rate tells how fast training can be.
    """
    import torch

    from minigpt.runtime import DTYPES, DeviceMonitor, detect_runtime, environment, measure_matmul_flops

    machine = detect_runtime()
    facts = environment(machine)
    use = DeviceMonitor(machine.device).read()
    console = Console()
    rows = {
        "device": f"{machine.device} ({machine.device_reason})",
        "precision": f"{machine.precision} ({machine.precision_reason})",
        "processor": f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads used",
        "memory": f"{facts['memory_bytes'] / 1e9:.1f} GB in all, {use['memory'] / 1e9:.2f} GB used by this process",
        "GPU": facts["gpu"]
        or f"none (CUDA {_yes(torch.cuda.is_available())}, MPS {_yes(torch.backends.mps.is_available())})",
        "versions": f"minigpt {facts['minigpt']}, torch {facts['torch']}, Python {facts['python']}, {facts['system']}",
    }
    for name, dtype in DTYPES.items():
        rate = measure_matmul_flops(machine.device, dtype, 1024 if machine.device.type == "cpu" else 4096, 0.2)
        rows[f"{name} rate"] = f"{rate / 1e9:,.0f} GFLOP/s in matrix products"
    for name, value in rows.items():
        console.print(f"{name:14} {value}")


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
