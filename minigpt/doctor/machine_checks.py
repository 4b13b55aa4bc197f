"""What the clock tells: whether the run waits for data, for launches, for memory, or for other programs.

Each check is a pure function from the evidence to a finding, or None. Short runs are not judged: their first steps take
memory, compile, and share the machine with whatever else has just begun.
"""

from __future__ import annotations

import re
from statistics import median

from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding
from minigpt.model.accounting import flops_per_token
from minigpt.records import OTHER_ENVIRONMENT, Record
from minigpt.text_utils import pluralize

LEAST_SECONDS = 60.0
"""Shorter runs are not judged."""

WAITING = 0.2
"""Share of the time spent waiting for data; real runs wait for 0.1 to 1 % of theirs."""

IDLE = 0.6
"""A GPU that is at work for less of the time waits to be told what to do."""

BUSY = 0.9

FEW_FLOPS = 0.1
"""Of the machine's rate in matrix products; presets reach half of it on a CPU."""

SLOW = 2.5
"""Times as long as planned; plans were met within 15 % on machines that did nothing else."""


def _lines(evidence: Evidence) -> list[Record]:
    """Returns the lines of metrics to judge by: none of a short run, and not those of its beginning."""
    lines = [line for line in evidence.steps if line.get("tokens_per_second")]
    return lines[2:] if lines and lines[-1]["seconds"] >= LEAST_SECONDS and len(lines) > 7 else []


def data_bound(evidence: Evidence) -> Finding | None:
    """Training that waits for the disk."""
    waited = median([line["data_wait_ratio"] for line in _lines(evidence) if "data_wait_ratio" in line] or [0.0])
    if waited < WAITING:
        return None
    return Finding(
        "data-bound",
        "hint",
        f"{waited:.0%} of the time went into waiting for data.",
        "The tokens come from a slow disk or over a network; the device could train that much faster.",
        "Copy the data set to a disk of this machine; minigpt resume takes the copy's folder as --data.",
    )


def launch_bound(evidence: Evidence) -> Finding | None:
    """A GPU that is done before it is told what comes next."""
    lines = [line for line in _lines(evidence) if "device_util" in line]
    on_gpu = str(evidence.environment.get("device", "")).startswith("cuda")
    if not on_gpu or not lines or median(line["device_util"] for line in lines) >= IDLE or data_bound(evidence):
        return None
    use = median(line["device_util"] for line in lines)
    batch = evidence.config.train.batch_size
    larger = evidence.again(
        "wider", "--train.batch-size", str(4 * batch), "--train.lr", f"{2 * evidence.config.train.lr:g}"
    )
    options = ("--machine.compile", "on")
    return Finding(
        "launch-bound",
        "hint",
        f"The GPU was at work for {use:.0%} of the time, and did not wait for data.",
        "Its work comes in pieces so small that starting them takes longer than doing them.",
        (
            f"A larger batch, with a higher rate: `{larger}`"
            if evidence.config.machine.compile != "off"  # auto has measured that it does not pay
            else f"Compiling joins them: `{evidence.again('compiled', *options)}`"
        ),
    )


def memory_bound(evidence: Evidence) -> Finding | None:
    """A GPU that is busy, yet multiplies little: it moves numbers."""
    lines = [line for line in _lines(evidence) if line.get("device_util", 0.0) >= BUSY]
    rate = (evidence.plan or {}).get("matmul_flops")
    on_gpu = str(evidence.environment.get("device", "")).startswith("cuda")
    if not on_gpu or not lines or not rate:
        return None
    share = (
        median(line["tokens_per_second"] for line in lines)
        * sum(flops_per_token(evidence.config.model).values())
        / rate
    )
    if share >= FEW_FLOPS:
        return None
    settled = evidence.config.machine.compile != "off"
    batch = 4 * evidence.config.train.batch_size
    options = ("--train.batch-size", str(batch)) if settled else ("--machine.compile", "on")
    return Finding(
        "memory-bound",
        "hint",
        f"The GPU was busy, but did {share:.1%} of the {rate / 1e12:.3g} TFLOP/s that its matrix products reach.",
        "Its time goes into moving numbers: norms, activations, optimizer, and matrices too small to fill it.",
        ("A larger batch fills it: " if settled else "Compiling joins what only moves numbers: ")
        + f"`{evidence.again('fuller', *options)}`",
    )


def out_of_memory(evidence: Evidence) -> Finding | None:
    """Memory that ran out in the middle of a run, which then went on in smaller parts."""
    notes = [note for note in evidence.notes if note["text"].startswith("out of memory")]
    if not notes:
        return None
    settings = evidence.config.train
    sizes = [int(found[1]) for note in notes if (found := re.search(r"micro-batches of (\d+)", note["text"]))]
    recomputed = any("recomputed" in note["text"] for note in notes)
    rows = 1 if recomputed or not sizes else max(1, sizes[-1])
    parts = next(
        n for n in range(-(-settings.batch_size // rows), settings.batch_size + 1) if not settings.batch_size % n
    )
    again = f"`{evidence.again('parts', '--train.grad-accum-steps', str(parts))}`"
    return Finding(
        "out of memory",
        "hint",
        f"Memory ran out at step {notes[0]['step'] + 1:,}; since then the batch is taken {pluralize(rows, 'sequence')} "
        "at a time" + (", and activations are computed twice." if recomputed else f", {settings.batch_size} in all."),
        "Nothing is lost: the parts together are the same batch. "
        + (
            "But a single sequence hardly fits, and computing twice takes about a third longer."
            if recomputed
            else "Trying and failing costs a little at each start."
        ),
        f"A smaller model or a shorter context would fit. This one begins sooner so: {again}"
        if recomputed
        else f"Next time begin so: {again}",
        step=notes[0]["step"],
        epoch=notes[0]["epoch"],
    )


def slow(evidence: Evidence) -> Finding | None:
    """Steps that take far longer than the plan's trial steps on the same machine did."""
    lines, plan = _lines(evidence), evidence.plan
    if not lines or not plan or not plan.get("step_seconds"):
        return None
    moved = any(note["text"].startswith(OTHER_ENVIRONMENT) for note in evidence.notes)
    if moved or not str(plan.get("how")).startswith("measured"):
        return None
    batch = evidence.config.train.batch_size * evidence.config.model.block_size
    planned = batch / plan["step_seconds"]
    now = median(line["tokens_per_second"] for line in lines)
    if planned < SLOW * now:
        return None
    return Finding(
        "slow",
        "hint",
        f"Training runs at {now:,.0f} tokens/s; before the run {planned:,.0f} were measured on this machine.",
        "Other programs, a full memory or a hot processor slow it down.",
        "See what else runs here. What the machine gives now is measured by: `minigpt device`",
    )
