"""What the clock and the memory tell: whether the run waits for data, for kernel launches, or for memory.

Each check is a pure function from the evidence to a finding, or None. Short runs are not judged: their first steps
allocate memory, compile, and share the machine with whatever else has just started.
"""

from __future__ import annotations

import re
from statistics import median

from minigpt.doctor.evidence import Evidence
from minigpt.doctor.finding import Finding, hint
from minigpt.model.accounting import flops_per_token
from minigpt.records import Record
from minigpt.text_utils import pluralize

MIN_SECONDS = 60.0
"""Shorter runs are not judged."""

WAITING = 0.2
"""Share of the time spent waiting for data; real runs wait for 0.1 to 1 % of theirs."""

IDLE, BUSY = 0.6, 0.9
"""Shares of the time for which a GPU is at work: below the first, it waits for the next launch."""

LOW_FLOPS = 0.1
"""Of the machine's rate in matrix products; presets reach half of it on a CPU."""


def _lines(evidence: Evidence) -> list[Record]:
    """Returns the step records to judge by: none of a short run, and not the first ones."""
    lines = [line for line in evidence.steps if line.get("tokens_per_second")]
    return lines[2:] if lines and lines[-1]["seconds"] >= MIN_SECONDS and len(lines) > 7 else []


def data_bound(evidence: Evidence) -> Finding | None:
    """Training that waits for the disk."""
    waited = median([line["data_wait_ratio"] for line in _lines(evidence) if "data_wait_ratio" in line] or [0.0])
    if waited < WAITING:
        return None
    return hint(
        "data-bound",
        f"{waited:.0%} of the time was spent waiting for data.",
        "The tokens come from a slow disk or over a network; the device could train faster by that much.",
        "Copy the data set to a local disk; minigpt resume takes the copy's folder as --data.",
    )


def launch_bound(evidence: Evidence) -> Finding | None:
    """A GPU that has finished before the next kernel is launched."""
    use = [line["device_util"] for line in _lines(evidence) if "device_util" in line]
    if not evidence.on_gpu or not use or median(use) >= IDLE or data_bound(evidence):
        return None
    train, compiled = evidence.config.train, evidence.config.machine.compile != "off"  # auto has measured that
    larger = ("--train.batch-size", str(4 * train.batch_size), "--train.lr", f"{2 * train.lr:g}")
    return hint(
        "launch-bound",
        f"The GPU was at work for {median(use):.0%} of the time, and was not waiting for data.",
        "Its kernels are so small that launching them takes longer than running them.",
        f"Use a larger batch, with a higher rate: {evidence.train_again('larger-batch', *larger)}"
        if compiled
        else f"Compiling joins them: {evidence.train_again('compiled', '--machine.compile', 'on')}",
    )


def memory_bound(evidence: Evidence) -> Finding | None:
    """A GPU that is busy, yet does few matrix products: it moves numbers."""
    lines = [line for line in _lines(evidence) if line.get("device_util", 0.0) >= BUSY]
    rate = (evidence.plan or {}).get("matmul_flops")
    if not evidence.on_gpu or not lines or not rate:
        return None
    speed = median(line["tokens_per_second"] for line in lines)
    share = speed * sum(flops_per_token(evidence.config.model).values()) / rate
    if share >= LOW_FLOPS:
        return None
    compiled = evidence.config.machine.compile != "off"
    larger = ("--train.batch-size", str(4 * evidence.config.train.batch_size))
    return hint(
        "memory-bound",
        f"The GPU was busy, but reached {share:.1%} of the {rate / 1e12:.3g} TFLOP/s that it does in matrix products.",
        "Its time goes into moving numbers: norms, activations, the optimizer, and matrices too small to fill it.",
        f"A larger batch fills it: {evidence.train_again('larger-batch', *larger)}"
        if compiled
        else f"Compiling joins what only moves numbers: {evidence.train_again('compiled', '--machine.compile', 'on')}",
    )


def out_of_memory(evidence: Evidence) -> Finding | None:
    """Memory that ran out in the middle of a run, which then went on in smaller parts."""
    notes = [note for note in evidence.notes if note["text"].startswith("out of memory")]
    if not notes:
        return None
    batch = evidence.config.train.batch_size
    sizes = [int(found[1]) for note in notes if (found := re.search(r"micro-batches of (\d+)", note["text"]))]
    recomputed = any("recomputed" in note["text"] for note in notes)
    rows = 1 if recomputed or not sizes else max(1, sizes[-1])
    parts = next(n for n in range(-(-batch // rows), batch + 1) if not batch % n)
    again = evidence.train_again("accumulated", "--train.grad-accum-steps", str(parts))
    observation = f"Memory ran out at step {notes[0]['step'] + 1:,}; since then the batch has been computed "
    observation += f"{pluralize(rows, 'sequence')} at a time"
    if recomputed:
        return hint(
            "out of memory",
            f"{observation}, with activations computed twice.",
            "The result is the same, but a single sequence hardly fits, and computing twice takes a third longer.",
            f"A smaller model or a shorter context would fit. To start this one faster: {again}",
            notes[0],
        )
    return hint(
        "out of memory",
        f"{observation}, {batch} in all.",
        "The result is the same: the parts together are the same batch. Trying and failing costs a little time.",
        f"Next time start with: {again}",
        notes[0],
    )
