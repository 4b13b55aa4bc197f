"""What a choice costs: milliseconds of each sampler for 1 and 16 rows of logits, beside the model's own step.

    python benchmarks/samplers.py --run runs/books         on its validation text

Each row stands somewhere in the text. Samplers and steps alternate; medians of `--repeats` turns. Samplers that look
back see half a context.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import minigpt
from minigpt.data.token_file import TokenFile
from minigpt.generation import Sampling, for_inference
from minigpt.generation.decoder import Decoder
from minigpt.model import GPT
from minigpt.runs.folder import RunFolder

SAMPLERS = {
    "top-k 50 (the default)": Sampling(),
    "greedy": Sampling(temperature=0),
    "top-k 50, top-p 0.9": Sampling(top_p=0.9),
    "top-k 50, min-p 0.05": Sampling(min_p=0.05),
    "top-k 50, typical 0.9": Sampling(typical_p=0.9),
    "repetition, presence, frequency": Sampling(repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.1),
    "no repeated trigram": Sampling(no_repeat_ngram=3),
    "bias and bans": Sampling(logit_bias={5: 1.0, 6: -1.0}, banned=(7, 8)),
    "of all: temperature alone": Sampling(top_k=None),
    "of all: top-p 0.95": Sampling(top_k=None, top_p=0.95),
    "of all: min-p 0.05": Sampling(top_k=None, min_p=0.05),
    "of all: typical 0.95": Sampling(top_k=None, typical_p=0.95),
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
    forms = {f"model's step, {kind} weights": for_inference(model, kind) for kind in ("float32", "bfloat16")}
    one, sixteen = (measure(forms, text, rows, options.repeats) for rows in (1, 16))
    print(f"{options.run}, {model.config.vocab_size:,} tokens, {torch.get_num_threads()} threads")
    print(f"{'ms':32}{'1 row':>10}{'16 rows':>10}")
    for name in one:
        print(f"{name:32}{one[name]:10.3f}{sixteen[name]:10.3f}")


def measure(forms: dict[str, GPT], text: TokenFile, rows: int, repeats: int) -> dict[str, float]:
    """Returns the median milliseconds of a step of each form of the model, and of each sampler's choice."""
    size = next(iter(forms.values())).config.block_size // 2
    places = torch.randint(text.n_tokens - 2 * size, (rows,)).tolist()
    texts = [text.read(place, place + size).tolist() for place in places]
    decoders = {name: Decoder(model, rows) for name, model in forms.items()}
    for decoder in decoders.values():
        for each in texts:
            decoder.add(each)
    chance = torch.rand(rows, dtype=torch.float64)
    seconds: dict[str, list[float]] = {name: [] for name in (*forms, *SAMPLERS)}
    for turn in range(repeats):
        for name, decoder in decoders.items():
            begun = time.perf_counter()
            logits = decoder.next_logits()
            seconds[name].append(time.perf_counter() - begun)
            decoder.append([int(text.read(place + size + turn, place + size + turn + 1)[0]) for place in places])
        for name, sampling in SAMPLERS.items():
            begun = time.perf_counter()
            sampling.pick(logits, texts, chance)
            seconds[name].append(time.perf_counter() - begun)
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
