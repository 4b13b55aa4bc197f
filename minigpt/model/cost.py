"""What a model costs, from its configuration alone: parameters, part by part."""

from __future__ import annotations

from minigpt.config import GPTConfig


def parameter_table(config: GPTConfig) -> dict[str, int]:
    """Returns the number of trained parameters of each part, in the order in which a token meets them.

    The output projection counts nothing when it is tied: it is the token embedding's own matrix.
    """
    width, hidden, layers, bias = config.n_embd, config.n_hidden, config.n_layer, int(config.bias)
    norm = width * (2 if config.norm == "layernorm" and config.bias else 1)
    linear = {
        "attention: queries, keys, values": (width, 3 * width),
        "attention: projection": (width, width),
        "feed-forward: in": (width, hidden * (2 if config.mlp == "swiglu" else 1)),
        "feed-forward: out": (hidden, width),
    }
    return {
        "token embedding": config.vocab_size * width,
        "position embedding": config.block_size * width if config.position == "learned" else 0,
        **{f"{part}, {layers} x": layers * (n_in + bias) * n_out for part, (n_in, n_out) in linear.items()},
        f"norms, {2 * layers + 1} x": (2 * layers + 1) * norm,
        "output projection" + (" (tied)" if config.tied else ""): 0 if config.tied else config.vocab_size * width,
    }


def parameter_count(config: GPTConfig) -> int:
    """Returns the number of trained parameters."""
    return sum(parameter_table(config).values())
