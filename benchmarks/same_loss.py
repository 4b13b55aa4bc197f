"""Is the fast training the same training? Ours in its quick precision against the plain float32 model of peers.py.

    python benchmarks/same_loss.py --data data/books --steps 300
    python benchmarks/same_loss.py --data data/pylib --steps 120 --seeds 8

Three runs take the same batches from the same weights: ours, the plain model, and the plain model with other dropout.
What ours differs from the plain one should be no more than what the two plain ones differ. After it, the loss that
ours reports is compared with the plain model's for the same weights, without dropout.

One curve says little: where dropout has led it, it stays for hundreds of steps. So --seeds trains ours so many times in
each of two precisions, from the same weights with other dropout, and gives the mean difference with its standard error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from peers import NanoStyle, Shape
from torch import Tensor, nn

from minigpt import runtime
from minigpt.config import Config, resolve, with_model
from minigpt.data import BatchLoader, Dataset
from minigpt.model import GPT
from minigpt.training.optimizers import make_optimizers

WINDOW = 25
"""Losses are compared as means over so many steps."""


def as_plain(model: GPT) -> NanoStyle:
    """Returns the plain model with the same weights."""
    shape = model.config
    plain = NanoStyle(
        Shape(
            shape.vocab_size, shape.block_size, shape.n_layer, shape.n_head, shape.n_embd, shape.n_inner, shape.dropout
        )
    )
    names = {"attn.c_attn": "qkv", "attn.c_proj": "proj", "mlp.c_fc": "up", "mlp.c_proj": "down"}
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("h.", "blocks.", 1) if name.startswith("h.") else name
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[{"lm_head.weight": "head.weight"}.get(name, name)] = tensor.clone()
    plain.load_state_dict(state)
    return plain


def curve(
    model: nn.Module, config: Config, batches: BatchLoader, steps: int, machine: runtime.Runtime, seed: int
) -> list[float]:
    """Trains with the settings of the configuration, and returns the loss of each step."""
    optimizers = make_optimizers(model, config.train.lr, config.optimizer)
    model.train()
    losses, began = [], time.perf_counter()
    for step in range(steps):
        torch.manual_seed(runtime.hash_seed(seed, step))
        ids, targets = (torch.from_numpy(part) for part in batches.batch(step))
        loss = mean_loss(model, ids, targets, machine)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.train.grad_clip)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 10 == 9:
            print(f"  step {step + 1}: {losses[-1]:.4f}, {time.perf_counter() - began:.0f} s", flush=True)
    return losses


def mean_loss(model: nn.Module, ids: Tensor, targets: Tensor, machine: runtime.Runtime) -> Tensor:
    """Returns the mean loss of a batch, ours in the machine's precision, the plain model's in float32."""
    if isinstance(model, GPT):
        with machine.autocast():
            return model(ids, targets) / targets.numel()
    return model(ids, targets)


def windows_of(losses: list[float]) -> list[float]:
    """Returns the means of each `WINDOW` steps."""
    return [statistics.fmean(losses[i : i + WINDOW]) for i in range(0, len(losses), WINDOW)]


def precisions(
    config: Config, batches: BatchLoader, steps: int, machine: runtime.Runtime, seeds: int
) -> dict[str, object]:
    """Trains ours with several seeds of dropout, quick and in float32, and prints what the precision changes."""
    found: dict[str, list[list[float]]] = {}
    for chosen in (machine, runtime.detect_runtime("cpu", "float32")):
        for seed in range(1, seeds + 1):
            print(f"{chosen.precision}, dropout {seed}", flush=True)
            torch.manual_seed(config.train.seed)
            losses = curve(GPT(config.model), config, batches, steps, chosen, seed)
            found.setdefault(chosen.precision, []).append(windows_of(losses))
    print(f"\nmean loss of {WINDOW} steps | {' | '.join(found)} | difference | its standard error")
    for window, values in enumerate(zip(*(zip(*curves, strict=True) for curves in found.values()), strict=True)):
        quick, exact = (statistics.fmean(v) for v in values)
        error = sum(statistics.variance(v) / len(v) for v in values) ** 0.5
        until = min((window + 1) * WINDOW, steps)
        print(f"  until step {until}: {quick:.4f} | {exact:.4f} | {quick - exact:+.4f} | {error:.4f}")
    return dict(found)


def main() -> None:
    """Runs them, and prints and saves what they differ by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder that minigpt prepare made")
    parser.add_argument("--preset", default="seed", help="of GPT-2's kind: learned positions, layernorm, gelu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seeds", type=int, default=0, help="compare precisions over so many seeds, 2 at least")
    parser.add_argument("--dropout", type=float, help="instead of the preset's")
    parser.add_argument("--out", type=Path, default=Path("build/same_loss.json"))
    arguments = parser.parse_args()

    dataset = Dataset.open(arguments.data)
    config = resolve(arguments.preset, overrides={"model.vocab_size": dataset.tokenizer.vocab_size})
    if arguments.dropout is not None:
        config = with_model(config, dropout=arguments.dropout)
    machine = runtime.detect_runtime("cpu", arguments.precision)
    batches = BatchLoader(dataset.train, config.model.block_size, config.train.batch_size, config.train.seed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.seeds:
        if arguments.seeds < 2 or machine.precision == "float32":
            parser.error("--seeds wants 2 at least, and a --precision to compare with float32: bfloat16")
        found = precisions(config, batches, arguments.steps, machine, arguments.seeds)
        arguments.out.write_text(json.dumps(found, indent=1))
        return
    torch.manual_seed(config.train.seed)
    ours = GPT(config.model)
    plain, other = as_plain(ours), as_plain(ours)
    curves = {}
    for title, model, seed in (("ours", ours, 1), ("plain", plain, 2), ("plain, other dropout", other, 3)):
        print(title, flush=True)
        curves[title] = curve(model, config, batches, arguments.steps, machine, seed)

    windows = {title: windows_of(losses) for title, losses in curves.items()}
    print(f"\nmean loss of {WINDOW} steps | ours ({machine.precision}) | plain float32 | plain, other dropout")
    for i, row in enumerate(zip(*windows.values(), strict=True)):
        print(f"  until step {min((i + 1) * WINDOW, arguments.steps)}: " + " | ".join(f"{loss:.4f}" for loss in row))

    def rms(one: str, two: str) -> float:
        return statistics.fmean((a - b) ** 2 for a, b in zip(windows[one], windows[two], strict=True)) ** 0.5

    result = {
        "ours against plain": rms("ours", "plain"),
        "ours against plain, other dropout": rms("ours", "plain, other dropout"),
        "plain against plain, other dropout": rms("plain", "plain, other dropout"),
    }
    with torch.no_grad():
        ids, targets = (torch.from_numpy(part) for part in batches.batch(arguments.steps))
        ours.eval()
        exact = as_plain(ours).eval()
        result["reported loss"] = mean_loss(ours, ids, targets, machine).item()
        result["plain float32 loss of the same weights"] = exact(ids, targets).item()
    for title, value in result.items():
        print(f"{title}: {value:.6f}")
    arguments.out.write_text(json.dumps({"curves": curves, **result}, indent=1))


if __name__ == "__main__":
    main()
