"""How the cost of training grows: tokens/s and peak memory against each size, one process for each point.

    python benchmarks/scaling.py                          about five minutes on two cores
    python benchmarks/scaling.py --only width,corpus --quick

All but the swept size is that of preset `seed`: 8 sequences of 512, 2 layers, 128 wide, 50,257 words. Longer sequences
come in smaller batches (4,096 tokens a step), and wider models have more heads of the same 32. The corpus is swept
with the real training loop on token files of random ids.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import (
    COMPILED,
    OURS,
    TINY,
    WARM_UP,
    Failed,
    Ours,
    Workload,
    apart,
    describe,
    main_options,
    megabytes,
    new_figure,
    our_config,
    table,
    train,
    training_flops,
    zipf_ids,
)
from peers import Shape

SCRIPT = str(Path(__file__))
TOKENS = 4096
"""In each step of the sweep of sequence lengths."""

SWEEPS: dict[str, tuple[str, tuple[int, ...]]] = {
    "batch": ("sequences in a batch", (1, 2, 4, 8, 16, 32)),
    "length": ("tokens in a sequence", (128, 256, 512, 1024, 2048)),
    "layers": ("layers", (2, 4, 6, 8)),
    "width": ("width", (128, 256, 384, 512)),
    "vocabulary": ("words in the vocabulary", (256, 1024, 4096, 16_384, 50_257, 100_000)),
    "corpus": ("tokens in the corpus", (1_000_000, 10_000_000, 100_000_000)),
}
"""From the name of a sweep to what it means, and its sizes."""

TINY_SWEEPS = {
    "batch": (1, 2),
    "length": (16, 32),
    "layers": (1, 2),
    "width": (32, 64),
    "vocabulary": (100, 1000),
    "corpus": (10_000, 100_000),
}


def workload(sweep: str, size: int, base: Workload) -> Workload:
    """Returns the work of a point. The corpus changes none of it."""
    shape, batch = base.shape, base.batch
    if sweep == "batch":
        batch = size
    elif sweep == "length":
        shape, batch = replace(shape, block_size=size), max(1, min(TOKENS, base.tokens) // size)
    elif sweep == "layers":
        shape = replace(shape, n_layer=size)
    elif sweep == "width":
        shape = replace(shape, n_embd=size, n_inner=4 * size, n_head=max(1, size // 32))
    elif sweep == "vocabulary":
        shape = replace(shape, vocab_size=size)
    return replace(base, shape=shape, batch=batch)


def measure_corpus(work: Workload, tokens: int, precision: str) -> dict[str, Any]:
    """Trains with the real loop, from a token file of this length, as many steps as `train` takes in all."""
    import minigpt
    from minigpt import runtime
    from minigpt.data.dataset import TRAIN_FILE
    from minigpt.tokenizers import load_tokenizer

    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # Windows keeps what is mapped
        folder = Path(name)
        tokenizer = "byte" if work.shape.vocab_size < Shape.vocab_size else "gpt2"
        (folder / "text.txt").write_text("A little text to validate on. " * 200, encoding="utf-8")
        minigpt.prepare([str(folder / "text.txt")], folder / "data", tokenizer=tokenizer)
        write_tokens(folder / "data" / TRAIN_FILE, tokens, load_tokenizer(folder / "data"))
        config = our_config(work.shape)
        settings = replace(config.train, batch_size=work.batch, steps=WARM_UP + work.steps, log_every=1)
        machine = replace(config.machine, device=work.device, precision=precision)
        config = replace(config, train=settings, machine=machine)
        minigpt.train(folder / "data", folder / "run", config, callbacks=[records.append])
    speeds = [record["tokens_per_second"] for record in records if record["kind"] == "step"]
    peak = runtime.peak_memory(torch.device(work.device))
    return {"tokens_per_second": statistics.median(speeds[WARM_UP:]), "peak_memory": peak}


def write_tokens(path: Path, tokens: int, tokenizer: Any) -> None:
    """Puts random ids in the place of a token file: the same 100,000 again and again."""
    from minigpt.data import TokenFileWriter

    piece = zipf_ids(tokenizer.vocab_size, min(100_000, tokens), seed=2)
    path.unlink()
    with TokenFileWriter(path, tokenizer.vocab_size, tokenizer.identity) as writer:
        for start in range(0, tokens, len(piece)):
            writer.append(piece[: tokens - start], n_bytes=4 * len(piece), n_documents=1)


def measure_point(sweep: str, size: int, precision: str, work: Workload) -> dict[str, Any]:
    """Returns tokens per second and peak memory of one point, measured in this process."""
    if sweep == "corpus":
        return measure_corpus(work, size, precision)
    found = train(Ours("", precision), work)
    return {name: found[name] for name in ("tokens_per_second", "peak_memory")}


def measure_all(
    sweeps: dict[str, tuple[int, ...]], base: Workload, precision: str
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Measures each point in its own process, one that stands in two sweeps only once; returns points and failures."""
    known: dict[str, dict[str, Any]] = {}
    points: dict[str, list[dict[str, Any]]] = {}
    failures = []
    for sweep, sizes in sweeps.items():
        points[sweep] = []
        for size in sizes:
            work = workload(sweep, size, base)
            key = work.to_json() if sweep != "corpus" else f"corpus {size}"
            try:
                if key not in known:
                    known[key] = apart(SCRIPT, "--point", sweep, str(size), precision, "--workload", work.to_json())
            except Failed as failure:
                failures.append(f"{SWEEPS[sweep][0]} {size:,}: {failure}")
                print(f"  {failures[-1]}", flush=True)
                continue
            found = {"size": size, **known[key], "flops_per_token": training_flops(work.shape)}
            points[sweep].append(found)
            speed, peak = found["tokens_per_second"], megabytes(found["peak_memory"])
            print(f"  {SWEEPS[sweep][0]} {size:,}: {speed:,.0f} tokens/s, {peak} MB", flush=True)
    return points, failures


def report(points: dict[str, list[dict[str, Any]]], failures: list[str], facts: dict[str, Any]) -> str:
    """Returns the points as a Markdown table."""
    heads = ("", "size", "tokens/s", "peak MB", "MFLOP a token", "GFLOP/s")
    rows = [
        (
            SWEEPS[sweep][0] if point is found[0] else "",
            f"{point['size']:,}",
            f"{point['tokens_per_second']:,.0f}",
            megabytes(point["peak_memory"]),
            f"{point['flops_per_token'] / 1e6:,.1f}",
            f"{point['flops_per_token'] * point['tokens_per_second'] / 1e9:,.0f}",
        )
        for sweep, found in points.items()
        for point in found
    ]
    return "\n".join([describe(facts) + ".", "", table(heads, rows), "", *failures]).rstrip() + "\n"


def draw(points: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Draws a panel for each sweep: speed on the left axis, memory on the right one."""
    figure = new_figure(14, 8)
    panels = np.atleast_2d(figure.subplots(2, 3)).ravel()
    for panel in panels[len(points) :]:
        panel.set_axis_off()
    for axes, (sweep, found) in zip(panels, points.items(), strict=False):
        sizes = [point["size"] for point in found]
        speeds = [point["tokens_per_second"] for point in found]
        peaks = [(point["peak_memory"] or 0) / 1e6 for point in found]
        memory = axes.twinx()
        (speed_line,) = axes.plot(sizes, speeds, "o-", color=OURS)
        (memory_line,) = memory.plot(sizes, peaks, "s--", color=COMPILED)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [_short(size) for size in sizes], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel(SWEEPS[sweep][0])
        axes.set_ylabel("tokens per second", color=OURS)
        memory.set_ylabel("peak memory of the process, MB", color=COMPILED)
        for side, values in ((axes, speeds), (memory, peaks)):
            if max(values, default=0) > 8 * min(values, default=0) > 0:
                side.set_yscale("log")
            else:
                side.set_ylim(0, 1.15 * max(values, default=0) or 1)
            side.yaxis.set_major_formatter("{x:,.0f}")
            side.yaxis.set_minor_formatter("{x:,.0f}")
            side.spines["top"].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend([speed_line, memory_line], ["tokens/s (left)", "memory (right)"], frameon=False, loc="lower left")
    figure.savefig(file)


def _short(size: int) -> str:
    if size >= 1_000_000:
        return f"{size / 1e6:.0f} M"
    return f"{size / 1e3:.0f} k" if size >= 10_000 else f"{size:,}"


def main(argv: list[str] | None = None) -> None:
    """Parses the command line; measures all, or is the process of one point."""
    parser = main_options(__doc__, "build/bench")
    parser.add_argument("--only", default=",".join(SWEEPS), help=f"of {', '.join(SWEEPS)}")
    parser.add_argument("--quick", action="store_true", help="only the least and the largest of each sweep")
    parser.add_argument("--steps", type=int, default=3, help="counted at each point, after the first two")
    parser.add_argument(
        "--point", nargs=3, metavar=("SWEEP", "SIZE", "PRECISION"), help="measure it here, and print JSON"
    )
    parser.add_argument("--workload", help="what --point trains, as JSON")
    options = parser.parse_args(argv)
    if options.point:
        sweep, size, precision = options.point
        print(json.dumps(measure_point(sweep, int(size), precision, Workload.from_json(options.workload))))
        return
    names = options.only.split(",")
    if unknown := [name for name in names if name not in SWEEPS]:
        parser.error(f"no such sweep: {', '.join(unknown)}; there are {', '.join(SWEEPS)}")

    base = Workload(TINY if options.tiny else Shape(), 2 if options.tiny else 8, options.steps, options.device)
    sweeps = {name: TINY_SWEEPS[name] if options.tiny else SWEEPS[name][1] for name in names}
    if options.quick:
        sweeps = {name: (sizes[0], sizes[-1]) for name, sizes in sweeps.items()}
    racing = str(Path(SCRIPT).with_name("training.py"))
    facts = apart(racing, "--machine", "128" if options.tiny else "1024", "--device", options.device)
    print(describe(facts), flush=True)
    points, failures = measure_all(sweeps, base, facts["environment"]["precision"])
    text = report(points, failures, facts)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scaling.md").write_text(text, encoding="utf-8")
    values = {"machine": facts, "points": points, "failures": failures}
    (options.out / "scaling.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    draw(points, options.out / "scaling.png")
    print(f"\n{text}\nTable, figures and picture: {options.out / 'scaling.md'}, scaling.json, scaling.png")


if __name__ == "__main__":
    main()
