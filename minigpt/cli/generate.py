"""`minigpt generate`."""

from __future__ import annotations

import sys
from pathlib import Path


def generate_command(
    run: Path,
    /,
    *,
    prompt: str = "",
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int | None = None,
    checkpoint: str = "best",
    device: str = "auto",
) -> None:
    """Continue a prompt in a trained model's words.

    The text streams as it is chosen, token by token, until the model ends the document or max-new-tokens are there.

    Examples:

    `minigpt generate runs/books --prompt "It was" --max-new-tokens 200`

    `minigpt generate runs/books --prompt "It was" --temperature 0` (always the most likely token)

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    prompt
        The text to continue; without one, a new document begins. One that begins with a dash: --prompt="- like this".
    max_new_tokens
        The most tokens to add.
    temperature
        0 takes the most likely token; below 1 plays safe, above 1 takes risks.
    top_k
        Choose among the k most likely tokens only; none chooses among all.
    top_p
        Choose among the most likely tokens that together have this probability.
    seed
        The same seed gives the same text; without one it differs each time.
    checkpoint
        best (lowest validation loss), latest, or a step number.
    device
        auto, cpu, cuda, mps.
    """
    from minigpt.device import choose
    from minigpt.generation import Sampling, stream
    from minigpt.run import load

    Sampling(temperature=temperature, top_k=top_k, top_p=top_p).check()
    chosen = choose(device, "float32").device
    model, tokenizer = load(run, checkpoint, chosen)
    pieces = stream(
        model,
        tokenizer,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    write = visible if sys.stdout.isatty() else str
    print(write(prompt), end="", flush=True)
    for piece in pieces:
        print(write(piece), end="", flush=True)
    print()


def visible(text: str) -> str:
    """Returns the text with control characters shown as their picture, so that no terminal obeys a model."""
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
    return text.translate(pictures | dict.fromkeys(range(0x80, 0xA0), 0xFFFD))
