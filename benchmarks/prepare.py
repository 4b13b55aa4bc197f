"""How fast `minigpt prepare` is, and how much memory it takes.

    python benchmarks/prepare.py                       # 2 GB of made text as JSON lines
    python benchmarks/prepare.py --megabytes 100 --as txt
    python benchmarks/prepare.py --file books.parquet

The made text is lines of the standard library's documentation drawn at random, so no two documents are equal. It is
prepared in a process of its own, whose resident memory and processor time are sampled every 20 ms.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from minigpt.data import DatasetCard
from minigpt.data.pylib import library_documentation

LINES_PER_DOCUMENT = 100  # about 4 kB


def write_text(path: Path, megabytes: int, seed: int) -> None:
    """Writes about that much text: a document a line if the name ends in .jsonl, else all in one document."""
    rng = random.Random(seed)
    lines = [line for _, page in library_documentation() for line in page.splitlines() if line]
    left = megabytes * 1_000_000
    with path.open("w", encoding="utf-8", newline="\n") as file:
        while left > 0:
            text = "\n".join(rng.choices(lines, k=LINES_PER_DOCUMENT)) + "\n"
            left -= len(text.encode())
            file.write(json.dumps({"text": text}) + "\n" if path.suffix == ".jsonl" else text)


def measure(source: str, out: Path, options: list[str]) -> tuple[float, float, int]:
    """Prepares a source in a new process.

    Returns:
        The seconds, the start of Python included; the seconds of processor time, which other programs do not change
        much; and the peak bytes of memory.
    """
    command = [sys.executable, "-m", "minigpt.cli.app", "prepare", source, "--out", str(out), *options]
    started, cpu, peak = time.perf_counter(), 0.0, 0
    child = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None:
        try:
            peak = max(peak, child.memory_info().rss)
            times = child.cpu_times()
            cpu = times.user + times.system
        except psutil.Error:  # it ended between the two calls
            break
        time.sleep(0.02)
    if child.wait() != 0:
        sys.exit(f"failed: {' '.join(command)}")
    return time.perf_counter() - started, cpu, peak


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000, help="how much text to make (default 2000)")
    parser.add_argument("--as", dest="suffix", choices=("jsonl", "txt"), default="jsonl", help="in which form")
    parser.add_argument("--file", help="prepare this source instead")
    parser.add_argument("--tokenizer", default="gpt2")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.file
        if source is None:
            path = Path(folder, f"made.{arguments.suffix}")
            write_text(path, arguments.megabytes, arguments.seed)
            source = str(path)
        out = Path(folder, "out")
        seconds, cpu, peak = measure(source, out, ["--tokenizer", arguments.tokenizer])
        card = DatasetCard.load(out)
    text = card.text_bytes / 1e6
    print(f"{text:,.0f} MB, {card.documents:,} documents, {card.tokens:,} tokens")
    print(
        f"{seconds:.1f} s ({text / seconds:.1f} MB/s), {cpu:.0f} s of processor time, peak memory {peak / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
