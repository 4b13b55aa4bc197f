"""The checks of gpu.py: loss and gradients on a device against float64 on the CPU, for the head and for a whole model.

Each check returns rows: what was compared, how far loss and gradient are off as shares of their size, and a verdict.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from measuring import TINY, our_config, zipf_ids
from peers import Shape
from torch import Tensor
from torch.nn import functional as F

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

LIMITS = {"float32": (1e-6, 1e-5), "bfloat16": (2e-4, 1e-2), "float16": (2e-4, 2e-3)}
"""How far loss and gradient may be off in each precision."""

WAYS = [*(("off", precision) for precision in TYPES), *(("default", precision) for precision in TYPES)]
WAYS += [("reduce-overhead", "bfloat16")]
"""How `check_model` has the model's code made, and in which precision it runs."""


def check_head(device: torch.device, tiny: bool) -> list[dict[str, Any]]:
    """Compares the chunked head with the plain one, in each precision; a seventh of the targets is padding."""
    from minigpt.config import IGNORE_INDEX
    from minigpt.model.kernels.cross_entropy import cross_entropy_sum

    tokens, width, words = (70, 16, 300) if tiny else (3000, 128, 50_257)
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, width), 0.1 * torch.randn(words, width)
    targets = torch.from_numpy(zipf_ids(words, tokens, seed=0))
    targets[::7] = IGNORE_INDEX
    h, w = (x.double().requires_grad_() for x in (hidden, weight))
    exact = F.cross_entropy(h @ w.T, targets, ignore_index=IGNORE_INDEX, reduction="sum")
    exact.backward()
    rows = []
    for precision, dtype in TYPES.items():
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        a, b = (x.to(device, copy=True).requires_grad_() for x in (hidden, weight))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = cross_entropy_sum(a, b, targets.to(device))
        scaler.scale(loss / tokens).backward()
        scale = scaler.get_scale() / tokens
        off = max(distance(a.grad / scale, h.grad), distance(b.grad / scale, w.grad))
        rows.append(row(f"head, {precision}", precision, distance(loss, exact), off))
    return rows


def check_model(device: torch.device, tiny: bool) -> list[dict[str, Any]]:
    """Compares a whole model without dropout, eager and compiled, and the compiled with the eager one."""
    from minigpt.data import Batch
    from minigpt.model import GPT
    from minigpt.runtime import Runtime
    from minigpt.training.accumulate import GradientAccumulator

    shape = replace(TINY if tiny else Shape(vocab_size=5_000, block_size=256), dropout=0.0)
    config = our_config(shape).model
    ids = zipf_ids(shape.vocab_size, 2 * (shape.block_size + 1), seed=0).reshape(2, -1)  # (batch, time + 1)
    batch = Batch(np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:]))
    torch.manual_seed(0)
    exact = GPT(config).double()
    exact_loss = F.cross_entropy(exact(torch.from_numpy(batch.x)).flatten(0, 1), torch.from_numpy(batch.y).flatten())
    exact_loss.backward()
    exact_gradient = gradient_of(exact)
    rows, eager = [], {}
    for compiled, precision in WAYS:
        title = f"model, {precision}" + ("" if compiled == "off" else f", compiled ({compiled})")
        try:
            model = GPT(config).to(device)
            model.load_state_dict(exact.state_dict())
            scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
            gradients = GradientAccumulator(
                model, Runtime(device, precision, "", "", compiled), scaler, rows=1
            )  # in two parts
            loss_sum, tokens = gradients.add(batch, 0, 0)
            found = gradient_of(model) / scaler.get_scale()
        except Exception as error:  # a compiler may raise anything; the other ways are still worth a look
            rows.append({"title": title, "verdict": f"failed: {type(error).__name__}: {error}"[:200]})
            continue
        off_loss = distance(loss_sum / tokens, exact_loss)
        rows.append(row(title, precision, off_loss, distance(found, exact_gradient)))
        if compiled == "off":
            eager[precision] = found
        elif precision in eager:
            rows[-1]["from_eager"] = distance(found, eager[precision])
    return rows


def gradient_of(model: torch.nn.Module) -> Tensor:
    """Returns all gradients of a model in a row, in float64 on the CPU."""
    return torch.cat([p.grad.detach().double().cpu().flatten() for p in model.parameters() if p.grad is not None])


def distance(found: Tensor, exact: Tensor) -> float:
    """Returns how far a tensor is from another, as a share of the other's size."""
    exact = exact.detach().double().cpu()
    return float((found.detach().double().cpu() - exact).norm() / exact.norm())


def row(title: str, precision: str, loss: float, gradient: float) -> dict[str, Any]:
    """Returns a comparison with its verdict: "ok", or what is too far off."""
    most_loss, most_gradient = LIMITS[precision]
    wrong = [] if loss <= most_loss else ["loss"]  # so that NaN, which is within no limit, is wrong too
    wrong += [] if gradient <= most_gradient else ["gradient"]
    verdict = "ok" if not wrong else "TOO FAR OFF: " + ", ".join(wrong)
    return {"title": title, "loss": loss, "gradient": gradient, "verdict": verdict}
