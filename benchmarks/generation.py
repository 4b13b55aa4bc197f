"""Generation speed: tokens per second of Mini-GPT and of transformers' `generate`, with the same weights, in one run.

    python benchmarks/generation.py --out results          preset seed, 1 and 16 prompts, 256 new tokens, top-k 50

The contestants take turns, so that a drifting machine affects all alike; medians, with minimum and maximum. For
comparison: what the machine's memory allows, that is, how often per second it can read all the weights that a token
needs. Before the clock starts, both must choose the same tokens at temperature 0.

transformers runs in float32, as people run it. Loading and packing the weights is not counted, reading the prompts is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt.config import GPTConfig, resolve, with_vocabulary
from minigpt.generation import Engine, SamplingParams, for_inference
from minigpt.generation.inference_weights import choose_dtype
from minigpt.generation.quantized_linear import DTYPES, SMALL
from minigpt.model import GPT
from minigpt.runtime import detect_runtime, environment

PEER = "transformers float32"
GPT2_VOCABULARY = 50_257


@dataclass
class Contestant:
    """A generator, and its speed in each round."""

    name: str
    generate: Callable[[list[list[int]], SamplingParams], list[list[int]]]
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Its median tokens per second, all prompts together."""
        return statistics.median(self.rates)


def main() -> None:
    """Parses the command line, measures, prints, saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="seed", help="a preset with GPT-2's parts, as transformers has no others")
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 16], help="numbers of prompts at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for generation.json and generation.png")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = GPT(with_vocabulary(resolve(options.preset), GPT2_VOCABULARY).model).eval()
    report: dict[str, Any] = {"environment": environment(detect_runtime("cpu", "float32")), "prompts": {}}
    limits = memory_limits(model)
    for count in options.prompts:
        found = measure(model, count, options.new_tokens, options.rounds)
        print_table(found, limits, count, options.new_tokens)
        print(f"auto takes {(choice := choose_dtype(model, rows=count)).dtype}; {choice.reason}\n")
        report["prompts"][count] = {each.name: each.rates for each in found} | {"auto": choice.dtype}
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "generation.json").write_text(json.dumps(report | {"limits": limits}, indent=1), "utf-8")
        draw(report, limits, options.out / "generation.png")


def measure(model: GPT, count: int, new_tokens: int, rounds: int) -> list[Contestant]:
    """Times all of them on `count` random prompts of 16 tokens, in turns, after a round to warm up."""
    prompts = torch.randint(model.config.vocab_size, (count, 16)).tolist()
    theirs = as_transformers(model)
    contestants = [Contestant(f"minigpt {dtype}", ours_with(for_inference(model, dtype))) for dtype in DTYPES]
    contestants.append(Contestant(PEER, lambda prompts, params: generate_theirs(theirs, prompts, params)))
    params = SamplingParams(temperature=0.8, top_k=50, max_new_tokens=new_tokens, stop_tokens=())
    greedy = [each.generate(prompts, replace(params, temperature=0)) for each in (contestants[0], contestants[-1])]
    assert greedy[0] == greedy[1], "minigpt and transformers choose different tokens"
    for each in contestants:
        each.generate(prompts[:1], params)
    for _ in range(rounds):
        for each in contestants:
            begun = time.perf_counter()
            written = each.generate(prompts, params)
            each.rates.append(sum(map(len, written)) / (time.perf_counter() - begun))
    return contestants


def ours_with(model: GPT) -> Callable[[list[list[int]], SamplingParams], list[list[int]]]:
    """Returns a function that generates with Mini-GPT's engine."""

    def generate(prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
        rows: list[list[int]] = [[] for _ in prompts]
        engine = Engine(model, max_batch_size=len(prompts), max_length=len(prompts[0]) + params.max_new_tokens)
        for seed, prompt in enumerate(prompts):
            engine.add(prompt, replace(params, seed=seed))
        while engine.has_unfinished:
            for output in engine.step():
                rows[output.request_id].append(output.token)
        return rows

    return generate


def generate_theirs(model: Any, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
    """Returns what transformers generates."""
    ids = torch.tensor(prompts)
    if params.is_greedy:
        drawn: dict[str, Any] = {"do_sample": False}
    else:
        drawn = {"do_sample": True, "temperature": params.temperature, "top_k": params.top_k}
    mask = torch.ones_like(ids)
    found = model.generate(ids, attention_mask=mask, max_new_tokens=params.max_new_tokens, pad_token_id=0, **drawn)
    return found[:, ids.size(1) :].tolist()


def as_transformers(model: GPT) -> Any:
    """Returns the same model in transformers."""
    config: GPTConfig = model.config
    shape = {name: getattr(config, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
    theirs = GPT2LMHeadModel(
        GPT2Config(**shape, n_inner=config.n_inner, n_positions=config.block_size, bos_token_id=0, eos_token_id=None)
    )
    ours = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            value = ours[name.removeprefix("transformer.")]
            parameter.copy_(
                value.T if ".c_" in name and name.endswith("weight") else value
            )  # they store them transposed
    return theirs.eval()


def memory_limits(model: GPT) -> dict[str, float]:
    """Returns the tokens per second that memory allows for one prompt: reading rate / bytes of a token."""
    matrices = [layer.weight.numel() for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    limits = {}
    for dtype, width in (("float32", 4), ("bfloat16", 2), ("int8", 1)):
        size = sum(numel * (width if numel >= SMALL else 4) for numel in matrices)
        limits[dtype] = reading_rate(size) / size
        print(f"{dtype}: {size / 1e6:.1f} MB per token, read at {reading_rate(size) / 1e9:.0f} GB/s")
    print(f"data much larger than the caches is read at {reading_rate(2**29) / 1e9:.0f} GB/s\n")
    return limits


def reading_rate(size: int) -> float:
    """Returns bytes per second when this many bytes are read repeatedly: the best of thirty sums."""
    memory, best = torch.ones(size // 4), float("inf")
    for _ in range(30):
        begun = time.perf_counter()
        memory.sum()
        best = min(best, time.perf_counter() - begun)
    return size / best


def print_table(contestants: list[Contestant], limits: dict[str, float], count: int, new_tokens: int) -> None:
    """Prints a table in Markdown."""
    peer = contestants[-1].median
    print(f"{count} prompt{'s' * (count > 1)}, {new_tokens} new tokens each, {torch.get_num_threads()} threads\n")
    print("| | tokens/s | min to max | times transformers | memory's limit, tokens/s |\n|---|---:|---:|---:|---:|")
    for each in contestants:
        limit = f"{count * limits[each.name.split()[1]]:,.0f}"
        spread = f"{min(each.rates):,.0f} to {max(each.rates):,.0f}"
        print(f"| {each.name} | {each.median:,.0f} | {spread} | {each.median / peer:.1f} | {limit} |")
    print()


def draw(report: dict[str, Any], limits: dict[str, float], file: Path) -> None:
    """Saves the rates as a bar chart, with a panel for each number of prompts."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    panels = report["prompts"]
    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 1 + 1.9 * len(panels)), squeeze=False, layout="constrained")
    for (count, rates), axis in zip(panels.items(), axes[:, 0], strict=True):
        names = [name for name in rates if name != "auto"][::-1]
        medians = [statistics.median(rates[name]) for name in names]
        spread = [[m - min(rates[n]), max(rates[n]) - m] for n, m in zip(names, medians, strict=True)]
        colours = ["#999999" if name == PEER else "#2a78b5" for name in names]
        bars = axis.barh(names, medians, xerr=list(zip(*spread, strict=True)), color=colours, ecolor="#333333")
        factors = [f"  {median:,.0f}  ({median / medians[0]:.1f} x)" for median in medians]
        axis.bar_label(bars, factors, label_type="edge")
        axis.set_title(f"{count} prompt{'s' if count > 1 else ''} at once", loc="left")
        axis.set_xlim(0, 1.3 * max(medians))
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("new tokens per second; bars: medians, lines: min to max")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
