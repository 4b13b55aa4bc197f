"""Training side by side: Mini-GPT and its peers, the same model on the same batches, in turns.

    python benchmarks/training.py                              about five minutes on two cores
    python benchmarks/training.py --only ours-bf16,nano --rounds 5
    python benchmarks/training.py --contestant nano            one of them, here, as a line of JSON

A round starts each contestant anew, one after another, and measures the machine's matrix products; the next round does
it all again, so that a machine that drifts hurts all alike. Ratios are formed inside a round. The model is preset
`seed` (8 x 512 tokens a step), the ids are random with the frequencies of words.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from measuring import (
    CONTESTANTS,
    OURS,
    OURS_FLOAT32,
    PEER,
    TINY,
    Failed,
    Workload,
    apart,
    describe,
    machine_facts,
    main_options,
    megabytes,
    new_figure,
    table,
    train,
    training_flops,
)
from peers import PEERS

SCRIPT = str(Path(__file__))
RIVALS = ("ours-bf16", "ours-f32", *PEERS)
PATIENCE = 600
"""Seconds that a contestant may take for a round; without native bfloat16, one that insists on it may need hours."""


def race(names: list[str], work: Workload, rounds: int, size: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Lets all run in turns.

    Returns:
        The rounds, each from a name to its result, with the machine's facts as "machine"; and from the name of each
        that failed to why.
    """
    results: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    for number in range(rounds):
        facts = apart(SCRIPT, "--machine", str(size), "--device", work.device)
        print(f"round {number + 1} of {rounds}: {describe(facts)}", flush=True)
        results.append({"machine": facts})
        for name in names:
            if name in failures:
                continue
            try:
                found = apart(SCRIPT, "--contestant", name, "--workload", work.to_json(), timeout=PATIENCE)
            except Failed as failure:
                failures[name] = str(failure)
                print(f"  {CONTESTANTS[name].title}: left out, {failure}", flush=True)
                continue
            results[-1][name] = found
            speed, peak = found["tokens_per_second"], megabytes(found["peak_memory"])
            print(f"  {CONTESTANTS[name].title}: {speed:,.0f} tokens/s, {peak} MB", flush=True)
    return results, failures


def spread(values: list[float]) -> dict[str, float]:
    """Returns median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def summarise(rounds: list[dict[str, Any]], work: Workload) -> dict[str, dict[str, Any]]:
    """Returns for each contestant that ran in every round: its speed, how many times as fast ours are, and its peak.

    `share` is the part of the time that the machine's bfloat16 matrix products alone would take, round by round.
    """
    flops = training_flops(work.shape)
    summary = {}
    for name in CONTESTANTS:
        if not all(name in found for found in rounds):
            continue
        speeds = [found[name]["tokens_per_second"] for found in rounds]
        peaks = [found[name]["peak_memory"] for found in rounds]
        limits = [found["machine"]["rates"]["bfloat16"] / flops for found in rounds]
        summary[name] = {
            "title": CONTESTANTS[name].title,
            "tokens_per_second": spread(speeds),
            "share": spread([speed / limit for speed, limit in zip(speeds, limits, strict=True)]),
            "peak_memory": None if None in peaks else max(peaks),
            "first": statistics.median(found[name]["first"] for found in rounds),
            "ratios": {
                ours: spread([found[ours]["tokens_per_second"] / found[name]["tokens_per_second"] for found in rounds])
                for ours in ("ours-bf16", "ours-f32")
                if ours != name and all(ours in found for found in rounds)
            },
        }
    return summary


def report(summary: dict[str, dict[str, Any]], failures: dict[str, str], rounds: list[dict[str, Any]]) -> str:
    """Returns table and conclusions as Markdown."""

    def between(values: dict[str, float] | None, form: str) -> str:
        return "" if values is None else "{median:{f}} ({least:{f}} - {most:{f}})".format(**values, f=form)

    heads = (
        "",
        "tokens/s",
        "Mini-GPT bfloat16 is",
        "Mini-GPT float32 is",
        "of the matrix limit",
        "peak MB",
        "first step s",
    )
    rows = [
        (
            row["title"],
            between(row["tokens_per_second"], ",.0f"),
            *(
                between(row["ratios"].get(ours), ".2f") + (" x" if ours in row["ratios"] else "")
                for ours in ("ours-bf16", "ours-f32")
            ),
            f"{row['share']['median']:.0%}",
            megabytes(row["peak_memory"]),
            f"{row['first']:.1f}",
        )
        for row in summary.values()
    ]
    lines = [describe(rounds[-1]["machine"]) + ".", "", table(heads, rows), ""]
    lines += conclusions(summary)
    lines += [f"{CONTESTANTS[name].title}: left out, {reason}" for name, reason in failures.items()]
    lines += ["", f"Median of {len(rounds)} rounds (least - most); speed of a round by its median step."]
    return "\n".join(lines) + "\n"


def conclusions(summary: dict[str, dict[str, Any]]) -> list[str]:
    """Returns what the table says of our fastest setting, in sentences."""

    def fastest(names: Iterable[str]) -> str | None:
        ran = [name for name in names if name in summary]
        return max(ran, key=lambda name: summary[name]["tokens_per_second"]["median"], default=None)

    name, rival = fastest(("ours-bf16", "ours-f32")), fastest(PEERS)
    if name is None:
        return []
    ours = summary[name]
    lines = [
        f"{ours['title']}: {ours['tokens_per_second']['median']:,.0f} tokens/s, {ours['share']['median']:.0%} of what "
        f"bfloat16 matrix products alone would allow, in {megabytes(ours['peak_memory'])} MB."
    ]
    if rival is not None:
        ratio = summary[rival]["ratios"][name]["median"]
        lines.append(f"Against the best peer ({summary[rival]['title']}): {ratio:.2f} times as fast.")
    return lines


def draw(summary: dict[str, dict[str, Any]], file: Path) -> None:
    """Draws speed and peak memory as bars, each with its value."""
    rows = list(summary.items())[::-1]  # bars stack upwards
    figure = new_figure(12, 1.2 + 0.45 * len(rows))
    speed, memory = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(rows))
    colours = [{"ours-bf16": OURS, "ours-f32": OURS_FLOAT32}.get(name, PEER) for name, _ in rows]
    speeds = [row["tokens_per_second"] for _, row in rows]
    medians = [value["median"] for value in speeds]
    reach = [[v["median"] - v["least"] for v in speeds], [v["most"] - v["median"] for v in speeds]]
    speed.barh(places, medians, color=colours, xerr=reach, error_kw={"ecolor": "#333333", "capsize": 3})
    for place, value in zip(places, speeds, strict=True):
        speed.annotate(
            f"{value['median']:,.0f}", (value["most"], place), (6, 0), textcoords="offset points", va="center"
        )
    peaks = [(row["peak_memory"] or 0) / 1e6 for _, row in rows]
    for place, bar in zip(places, memory.barh(places, peaks, color=colours), strict=True):
        memory.annotate(
            megabytes(rows[place][1]["peak_memory"]),
            (bar.get_width(), place),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    speed.set_yticks(places, [row["title"] for _, row in rows])
    speed.set_xlabel("tokens per second (median; whiskers: least and most)")
    memory.set_xlabel("peak memory of the process, MB")
    for axes, most in ((speed, max(value["most"] for value in speeds)), (memory, max(peaks))):
        axes.set_xlim(0, 1.2 * most or 1)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    figure.savefig(file)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line; measures, or is the process of one contestant."""
    parser = main_options(__doc__, "build/bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="counted in each round, after the first two")
    parser.add_argument("--only", default=",".join(RIVALS), help=f"of {', '.join(CONTESTANTS)}")
    parser.add_argument("--contestant", choices=CONTESTANTS, help="measure this one here, and print JSON")
    parser.add_argument("--workload", help="what --contestant trains, as JSON")
    parser.add_argument("--machine", type=int, help="measure matrix products of this size here, and print JSON")
    options = parser.parse_args(argv)
    work = Workload(steps=options.steps, device=options.device)
    if options.tiny:
        work = Workload(TINY, batch=2, steps=options.steps, device=options.device)
    if options.machine:
        print(json.dumps(machine_facts(options.device, options.machine)))
        return
    if options.contestant:
        work = Workload.from_json(options.workload) if options.workload else work
        print(json.dumps(train(CONTESTANTS[options.contestant], work)))
        return
    names = options.only.split(",")
    if unknown := [name for name in names if name not in CONTESTANTS]:
        parser.error(f"no such contestant: {', '.join(unknown)}; there are {', '.join(CONTESTANTS)}")

    rounds, failures = race(names, work, options.rounds, size=128 if options.tiny else 1024)
    summary = summarise(rounds, work)
    if not summary:
        parser.exit(1, "none of them ran\n")
    options.out.mkdir(parents=True, exist_ok=True)
    text = report(summary, failures, rounds)
    (options.out / "training.md").write_text(text, encoding="utf-8")
    values = {"summary": summary, "failures": failures, "rounds": rounds}
    (options.out / "training.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    draw(summary, options.out / "training.png")
    print(f"\n{text}\nTable, figures and picture: {options.out / 'training.md'}, training.json, training.png")


if __name__ == "__main__":
    main()
