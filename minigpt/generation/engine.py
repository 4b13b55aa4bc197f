"""Generation: a prompt in, words out, one token at a time.

The prompt goes through the model once (prefill); then each new token goes through alone, against the keys and values
kept of all before it (decode). When the context is full, the last half of it is run through again as a new beginning:
learned positions cannot slide, and so each token still sees at least half a context of text before it.
"""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Iterator, Sequence

import torch

from minigpt.errors import ConfigError
from minigpt.generation.samplers import Sampling
from minigpt.model import GPT, KVCache
from minigpt.tokenizers import Tokenizer


@torch.inference_mode()
def stream_ids(
    model: GPT,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    stop: int | None = None,
) -> Iterator[int]:
    """Yields new token ids as they are chosen.

    Args:
        model: the model, in evaluation mode.
        prompt: at least one token id; of more than block_size, the last ones count.
        max_new_tokens: how many at the most.
        sampling: how each is chosen.
        seed: the same seed gives the same tokens.
        stop: a token id that ends the text; it is not yielded.
    """
    device = model.lm_head.weight.device
    context = model.config.block_size
    generator = torch.Generator().manual_seed(seed)
    cache = KVCache(model.config, 1, device=device, dtype=model.lm_head.weight.dtype)
    ids = list(prompt)
    fresh = ids[-context:]
    for _ in range(max_new_tokens):
        if cache.length + len(fresh) > context:
            cache.clear()
            fresh = ids[-max(1, context // 2) :]
        hidden = model.hidden(torch.tensor([fresh], device=device), cache)[:, -1]  # (1, n_embd)
        token = int(sampling.pick(model.lm_head(hidden).float().cpu(), generator))
        if token == stop:
            return
        yield token
        ids.append(token)
        fresh = [token]


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int | None = None,
) -> Iterator[str]:
    """Yields the continuation of a prompt piece by piece, never half a character.

    Args:
        model, tokenizer: as `minigpt.load` returns them.
        prompt: the text to continue; an empty one begins a new document.
        max_new_tokens: how many tokens at the most; the model may end the document before.
        temperature: 0 takes the most likely token each time; 1 draws from the model's distribution.
        top_k: choose among the k most likely tokens only.
        top_p: choose among the most likely tokens that together have this probability.
        seed: the same seed gives the same text; None draws one.

    Raises:
        ConfigError: if a setting cannot work.
    """
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    sampling.check()
    if max_new_tokens < 0:
        raise ConfigError("max-new-tokens cannot be negative", seen=max_new_tokens, remedy="Give 0 or more.")
    if seed is not None and not 0 <= seed < 2**63:
        raise ConfigError("The seed is out of range", seen=seed, remedy="Give a number from 0 to 2^63 - 1.")
    return _decoded(model, tokenizer, prompt, max_new_tokens, sampling, secrets.randbits(48) if seed is None else seed)


def _decoded(
    model: GPT, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, sampling: Sampling, seed: int
) -> Iterator[str]:
    ids = [int(i) for i in tokenizer.encode(prompt)] or [tokenizer.end_of_text]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in stream_ids(model, ids, max_new_tokens, sampling, seed, stop=tokenizer.end_of_text):
        if text := decoder.decode(tokenizer.token_bytes(token)):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int | None = None,
) -> str:
    """Returns the continuation of a prompt, without the prompt. Arguments and errors as `stream`."""
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
    return "".join(pieces)
