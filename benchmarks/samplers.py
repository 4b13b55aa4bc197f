"""What sampling costs: milliseconds of each sampler for 1 and 16 rows of logits, next to the model's own step.

    python benchmarks/samplers.py --run runs/books         on its validation text

Each row is at a random place of the text, with half a context of history. Samplers and steps alternate; medians of
`--repeats` turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import minigpt
from minigpt.data.token_file import TokenFile
from minigpt.generation import SamplingParams, for_inference
from minigpt.generation.cached_batch import CachedBatch
from minigpt.generation.samplers import sample_tokens
from minigpt.model import GPT
from minigpt.runs.folder import RunFolder

SAMPLERS = {
    "top-k 50 (the default)": SamplingParams(),
    "greedy": SamplingParams(temperature=0),
    "top-k 50, top-p 0.9": SamplingParams(top_p=0.9),
    "top-k 50, min-p 0.05": SamplingParams(min_p=0.05),
    "top-k 50, typical 0.9": SamplingParams(typical_p=0.9),
    "repetition, presence, frequency": SamplingParams(
        repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.1
    ),
    "no repeated trigram": SamplingParams(no_repeat_ngram=3),
    "bias and bans": SamplingParams(logit_bias={5: 1.0, 6: -1.0}, banned_tokens=(7, 8)),
    "no top-k: temperature alone": SamplingParams(top_k=None),
    "no top-k: top-p 0.95": SamplingParams(top_k=None, top_p=0.95),
    "no top-k: min-p 0.05": SamplingParams(top_k=None, min_p=0.05),
    "no top-k: typical 0.95": SamplingParams(top_k=None, typical_p=0.95),
}


@torch.inference_mode()
def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", help="its data set, if it has moved")
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    torch.manual_seed(1)
    model, _ = minigpt.load(options.run)
    text = RunFolder.open(options.run).open_data(options.data).val
    models = {f"model's step, {dtype} weights": for_inference(model, dtype) for dtype in ("float32", "bfloat16")}
    one, sixteen = (measure(models, text, rows, options.repeats) for rows in (1, 16))
    print(f"{options.run}, {model.config.vocab_size:,} tokens, {torch.get_num_threads()} threads")
    print(f"{'ms':32}{'1 row':>10}{'16 rows':>10}")
    for name in one:
        print(f"{name:32}{one[name]:10.3f}{sixteen[name]:10.3f}")


def measure(models: dict[str, GPT], text: TokenFile, rows: int, repeats: int) -> dict[str, float]:
    """Returns the median milliseconds of a step with each data type, and of each sampler."""
    size = next(iter(models.values())).config.block_size // 2
    places = torch.randint(text.n_tokens - 2 * size, (rows,)).tolist()
    texts = [text.read(place, place + size).tolist() for place in places]
    batches = {name: CachedBatch(model, rows) for name, model in models.items()}
    for batch in batches.values():
        for each in texts:
            batch.add(each)
    uniforms = torch.rand(rows, dtype=torch.float64)
    seconds: dict[str, list[float]] = {name: [] for name in (*models, *SAMPLERS)}
    for turn in range(repeats):
        for name, batch in batches.items():
            begun = time.perf_counter()
            logits = batch.next_logits()
            seconds[name].append(time.perf_counter() - begun)
            batch.append([int(text.read(place + size + turn, place + size + turn + 1)[0]) for place in places])
        for name, params in SAMPLERS.items():
            begun = time.perf_counter()
            sample_tokens(logits, texts, params, uniforms)
            seconds[name].append(time.perf_counter() - begun)
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
