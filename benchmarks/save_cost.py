"""What a checkpoint costs: milliseconds and bytes of a save, and the share of training time by the default policy.

    python benchmarks/save_cost.py --data data/books                  preset seed, 7 saves
    python benchmarks/save_cost.py --data data/pylib --preset laptop

Saves and steps alternate, so that a drifting machine hurts both alike; medians, with the least and the most.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from minigpt import resolve
from minigpt.training.api import start
from minigpt.training.saving import save


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset", default="seed")
    parser.add_argument("--saves", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path(options.data).parent) as folder:  # the disk that training would use
        config = resolve(options.preset)
        training = start(options.data, Path(folder) / "run", config)
        saves, steps = [], []
        for step in range(options.saves + 2):  # the first two warm up
            batch = training.batches.batch(step)
            begun = time.perf_counter()
            result = training.step(batch, config.train.lr)
            stepped = time.perf_counter()
            training.state.count(result.loss_sum, result.tokens)
            save(training)
            saves.append(time.perf_counter() - stepped)
            steps.append(stepped - begun)
        saves, steps = saves[2:], steps[2:]
        newest = training.folder.find_checkpoint("latest")
        size = sum(file.stat().st_size for file in newest.iterdir())
    save_time, step = statistics.median(saves), statistics.median(steps)
    every = 60 * config.train.save_minutes
    epoch = step * training.batches.steps_per_epoch
    share = save_time / every + save_time / epoch  # one every ten minutes, and one before each epoch's validation
    print(f"preset {options.preset} on {options.data}, medians of {len(saves)} (least, most)")
    print(f"a save    {1000 * save_time:.0f} ms ({1000 * min(saves):.0f}, {1000 * max(saves):.0f}), {size:,} bytes")
    print(f"a step    {1000 * step:.0f} ms ({1000 * min(steps):.0f}, {1000 * max(steps):.0f})")
    print(f"an epoch  {epoch:.0f} s")
    print(f"share of training time that the default policy takes: {share:.3%}")


if __name__ == "__main__":
    main()
