"""Everything about a GPU in one command: is it right, how fast is it, and what do others reach on it?

    python benchmarks/gpu.py --out build/gpu                     at most eight minutes
    python benchmarks/gpu.py --out build/gpu --data data/books   and preset seed, in the time that is left
    python benchmarks/gpu.py --only seed --minutes 30 --data data/books
    python benchmarks/gpu.py --device cpu --tiny                 to try it out

Each section runs in a process of its own: one that fails, hangs or breaks the card's context is named, and the next one
goes on. Table and JSON are written anew after every section, so that a run cut short leaves what it had. The checks are
in gpu_checks.py, the heads in gpu_heads.py.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import (
    CONTESTANTS,
    TINY,
    Failed,
    Workload,
    apart,
    describe,
    main_options,
    megabytes,
    table,
    training_flops,
)
from peers import Shape

SCRIPT = str(Path(__file__))
RACE = str(Path(__file__).with_name("training.py"))
SECTIONS = ("head-check", "model-check", "race", "heads", "large", "seed")
FIRST = ("ours-bf16", "ours-bf16-compiled", "nano-bf16-compiled", "ours-bf16-graphs", "nano-bf16", "nano", "ours-f32")
RACERS = (*FIRST, "encoder", "hf-bf16-compiled", "hf")
"""The most telling first, should the time run out."""

LARGE = ("ours-bf16", "ours-bf16-compiled", "nano-bf16-compiled")
LARGE_BATCH = 64
"""Sequences in a step of section `large`: the preset's 8 leave a large card idle between its kernels."""

MOST_SECONDS = 120
"""No process but `seed` may take longer: a compiler that hangs costs this much and no more."""

RESERVED = 150
"""Seconds kept for section `seed`, if there is data."""


@dataclass(frozen=True)
class Job:
    """One process to run: its section, its place in the results, and its command line."""

    section: str
    name: str
    words: tuple[str, ...]


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """Yields what is to be run, in this order."""
    common = ("--device", options.device, *(["--tiny"] if options.tiny else []))
    base = Workload(TINY, 2, 3, options.device) if options.tiny else Workload(Shape(), 8, 30, options.device)
    large = Workload(base.shape, 4 if options.tiny else LARGE_BATCH, base.steps, options.device)
    for section in options.only:
        if section in ("race", "large"):
            work, names = (base, options.racers) if section == "race" else (large, LARGE)
            for name in names:
                yield Job(section, name, (RACE, "--contestant", name, "--workload", work.to_json()))
        elif section != "seed":
            yield Job(section, section, (SCRIPT, "--section", section, *common))
        elif options.data:
            yield Job(section, section, (SCRIPT, "--section", section, "--data", str(options.data), *common))


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Runs every job in the time there is, saves after each, and returns the results by section and name."""
    deadline = time.monotonic() + 60 * options.minutes
    results: dict[str, Any] = {"machine": None, "sections": {}, "failures": {}}
    matrices = "128" if options.tiny else "4096"
    try:
        results["machine"] = apart(RACE, "--machine", matrices, "--device", options.device, timeout=MOST_SECONDS)
        print(describe(results["machine"]), flush=True)
    except Failed as failure:
        results["failures"]["machine"] = str(failure)
        print(f"the device does not answer: {failure}", flush=True)
    for job in jobs(options):
        last = job.section == "seed"
        left = deadline - time.monotonic() - (RESERVED if options.data and "seed" in options.only and not last else 0)
        print(f"[{options.minutes * 60 - (deadline - time.monotonic()):4.0f} s] {job.section} {job.name}", flush=True)
        try:
            if left < 10:
                raise Failed("no time left")
            extra = ("--minutes", f"{(left - 20) / 60:.3f}") if last else ()
            found = apart(*job.words, *extra, timeout=left if last else min(left, MOST_SECONDS))
            results["sections"].setdefault(job.section, {})[job.name] = found
            print(f"    {brief(found)}", flush=True)
        except Failed as failure:
            results["failures"][f"{job.section}: {job.name}"] = str(failure)
            print(f"    failed: {failure}", flush=True)
        save(results, options)
    return results


def brief(found: Any) -> str:
    """Returns a result in a few words, to be read as it comes."""
    if isinstance(found, list):
        return "\n    ".join(json.dumps(row) for row in found)
    kept = ("tokens_per_second", "first", "peak_memory", "steps", "val_loss", "seconds")
    return json.dumps({name: found[name] for name in kept if name in found and not isinstance(found[name], list)})


def save(results: dict[str, Any], options: argparse.Namespace) -> str:
    """Writes gpu.json and gpu.md, and returns the latter's text."""
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = report(results, TINY if options.tiny else Shape())
    (options.out / "gpu.md").write_text(text, encoding="utf-8")
    return text


def report(results: dict[str, Any], shape: Shape) -> str:
    """Returns all results as Markdown."""
    sections, machine = results["sections"], results["machine"]
    lines = [f"{describe(machine)}." if machine else "The device did not answer.", ""]
    rate = machine["rates"]["bfloat16"] if machine else None
    checks = [row for name in ("head-check", "model-check") for row in sections.get(name, {}).get(name, [])]
    if checks:
        heads = ("against float64 on the CPU", "loss off by", "gradient off by", "from eager", "verdict")
        keys = ("loss", "gradient", "from_eager")
        cells = [(row["title"], *(_tiny_share(row.get(key)) for key in keys), row["verdict"]) for row in checks]
        lines += [table(heads, cells), ""]
    for name, title in (("race", "preset seed, batch 8"), ("large", f"preset seed, batch {LARGE_BATCH}")):
        if name in sections:
            heads = (title, "tokens/s", "ms a step", "of bfloat16's matrix rate", "peak MB", "first step s")
            lines += [table(heads, [_racer(*pair, shape, rate) for pair in sections[name].items()]), ""]
    if "heads" in sections:
        heads = ("head alone, bfloat16", "ms", "peak MB", "gradient off by")
        lines += [table(heads, [_head(row) for row in sections["heads"]["heads"]]), ""]
    if "seed" in sections:
        found = sections["seed"]["seed"]
        loss = "no validation yet" if found["val_loss"] is None else f"validation loss {found['val_loss']:.4f}"
        lines.append(
            f"Preset seed: {found['steps']:,} of {found['total']:,} steps in {found['seconds']:.0f} s, "
            f"{found['tokens_per_second']:,.0f} tokens/s, {loss} ({found['precision']}, compiled: {found['compiled']})."
        )
    lines += [f"Failed: {name}: {reason}" for name, reason in results["failures"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _tiny_share(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _racer(name: str, found: dict[str, Any], shape: Shape, rate: float | None) -> tuple[str, ...]:
    speed = found["tokens_per_second"]
    middle = sorted(found["seconds"])[len(found["seconds"]) // 2]
    use = f"{speed * training_flops(shape) / rate:.1%}" if rate else "-"
    title, peak, first = CONTESTANTS[name].title, megabytes(found["peak_memory"]), f"{found['first']:.1f}"
    return title, f"{speed:,.0f}", f"{1000 * middle:.1f}", use, peak, first


def _head(row: dict[str, Any]) -> tuple[str, ...]:
    if "failed" in row:
        return f"{row['title']}: {row['failed']}", "-", "-", "-"
    return row["title"], f"{row['milliseconds']:.2f}", megabytes(row["peak_memory"]), _tiny_share(row["off"])


def train_seed(options: argparse.Namespace) -> dict[str, Any]:
    """Trains preset seed for ten epochs, or for the minutes there are."""
    import minigpt

    deadline = time.monotonic() + 60 * options.minutes
    records: list[dict[str, Any]] = []
    settings = {"machine.device": options.device, **({"train.steps": 3} if options.tiny else {})}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        outcome = minigpt.train(
            options.data,
            Path(folder) / "run",
            minigpt.resolve("seed", overrides=settings),
            callbacks=[records.append],
            should_stop=lambda: time.monotonic() > deadline,
        )
        environment = json.loads((Path(folder) / "run" / "environment.json").read_text("utf-8"))
    speeds = sorted(record["tokens_per_second"] for record in records if record["kind"] == "step")
    return {
        "steps": outcome.steps,
        "total": records[0]["total"],
        "seconds": outcome.seconds,
        "tokens_per_second": speeds[len(speeds) // 2],
        "val_loss": outcome.best_loss,
        "validations": [[r["step"], r["val_loss"]] for r in records if r["kind"] == "validation"],
        "precision": environment["precision"],
        "compiled": environment["compiled"],
    }


def run_section(options: argparse.Namespace) -> Any:
    """Runs one section in this process, and returns its result."""
    from gpu_checks import check_head, check_model
    from gpu_heads import time_heads

    if options.section == "seed":
        return train_seed(options)
    section = {"head-check": check_head, "model-check": check_model, "heads": time_heads}[options.section]
    return section(torch.device(options.device), options.tiny)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line; runs all, or is the process of one section."""
    parser = main_options(__doc__, "build/gpu")
    parser.set_defaults(device="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (8)")
    parser.add_argument("--data", type=Path, help="a folder that minigpt prepare made, for section seed")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--racers", default=",".join(RACERS), help=f"of {', '.join(CONTESTANTS)}")
    parser.add_argument("--section", choices=SECTIONS, help="run this one here, and print JSON")
    options = parser.parse_args(argv)
    if options.section:
        print(json.dumps(run_section(options)))
        return
    for name, known in (("only", SECTIONS), ("racers", CONTESTANTS)):
        setattr(options, name, getattr(options, name).split(","))
        if unknown := [word for word in getattr(options, name) if word not in known]:
            parser.error(f"--{name}: {', '.join(unknown)} is not among {', '.join(known)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("this PyTorch sees no GPU; --device cpu --tiny tries the script out")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the process at work is ended too
    text = save(run_all(options), options)
    print(f"\n{text}\nTable and figures: {options.out / 'gpu.md'}, gpu.json")
    if "TOO FAR OFF" in text:
        sys.exit("a check found something wrong")


if __name__ == "__main__":
    main()
