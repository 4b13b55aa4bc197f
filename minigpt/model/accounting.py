"""What a model costs, from its configuration alone: parameters, arithmetic and memory, part by part.

Time is not here: it depends on the machine, and training/plan.py measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from minigpt.config import GPTConfig
from minigpt.model.kernels.attention import BLOCK
from minigpt.model.kernels.cross_entropy import chunk_size, tile_size


def parameter_table(config: GPTConfig) -> dict[str, int]:
    """Returns the number of trained parameters of each part, in the order in which a token meets them.

    The output projection counts nothing when it is tied: it is the token embedding's own matrix.
    """
    width, hidden, layers, bias = config.n_embd, config.n_inner, config.n_layer, int(config.bias)
    norm = width * (2 if config.norm == "layernorm" and config.bias else 1)
    linear = {
        "attention: queries, keys, values": (width, _qkv_width(config)),
        "attention: projection": (width, width),
        "feed-forward: in": (width, hidden * (2 if config.mlp == "swiglu" else 1)),
        "feed-forward: out": (hidden, width),
    }
    return {
        "token embedding": config.vocab_size * width,
        "position embedding": config.block_size * width if config.position == "learned" else 0,
        **{f"{part}, {layers} x": layers * (n_in + bias) * n_out for part, (n_in, n_out) in linear.items()},
        **({f"norms of queries and keys, {2 * layers} x": 2 * layers * config.head_dim} if config.qk_norm else {}),
        f"norms, {2 * layers + 1} x": (2 * layers + 1) * norm,
        "output projection" + (" (tied)" if config.tie_word_embeddings else ""): 0
        if config.tie_word_embeddings
        else config.vocab_size * width,
    }


def parameter_count(config: GPTConfig) -> int:
    """Returns the number of trained parameters."""
    return sum(parameter_table(config).values())


def flops_per_token(config: GPTConfig) -> dict[str, int]:
    """Returns the floating-point operations of a training step for each token, by part.

    Matrix products only, a multiplication and an addition for each pair of numbers, three times: forward, and
    backward for both factors (Kaplan et al. 2020, section 2.1). Attention looks at half a context on average.
    """
    width, layers = config.n_embd, config.n_layer
    feed_forward = width * config.n_inner * (3 if config.mlp == "swiglu" else 2)
    return {
        "attention: projections": 6 * layers * width * (_qkv_width(config) + width),
        "attention: scores and sums": 6 * layers * config.block_size * width,
        "feed-forward": 6 * layers * feed_forward,
        "vocabulary head": 6 * config.vocab_size * width,
    }


@dataclass(frozen=True)
class TrainingMemory:
    """The bytes that a training step holds at its peak, beside the program itself.

    Attributes:
        weights, optimizer: as long as the run lasts.
        activations: what the forward pass keeps for the backward one.
        logits: the head's chunk of logits, and its copy of the words.
        gradients: of all weights, and of the words once more while they are added up.
        working: what is only there for a moment, and the kernels' own room.
    """

    weights: int
    optimizer: int
    activations: int
    logits: int
    gradients: int
    working: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.optimizer + self.activations + self.logits + self.gradients + self.working


def training_memory(
    config: GPTConfig, *, rows: int, dtype: torch.dtype, optimizer: str, kind: str = "cpu"
) -> TrainingMemory:
    """Returns the memory of a training step.

    Args:
        config: the model.
        rows: sequences at once.
        dtype: of the matrix products; what is kept of them is of this type.
        optimizer: its name. Adam and AdamW keep two numbers for each weight, Muon one for the matrices it takes.
        kind: the device's type.
    """
    count, words = parameter_count(config), config.vocab_size * config.n_embd
    tokens, size = rows * config.block_size, dtype.itemsize
    outputs = _qkv_width(config) + config.n_embd + _hidden_width(config) + config.n_inner
    matrices = config.n_layer * config.n_embd * outputs
    chunk = min(chunk_size(kind, dtype), tokens)
    blockwise = bool(config.dropout) and kind == "cpu"
    # Room for kernels as measured on a CPU (docs/log.md): bfloat16's reorder what they read, float32's do not.
    moments = tokens * size * (4 * config.n_head * BLOCK * blockwise + 3 * config.n_inner)
    return TrainingMemory(
        weights=4 * count,
        optimizer=8 * count - (4 * matrices if optimizer == "muon" else 0),
        activations=tokens * _activations_per_token(config, dtype, blockwise),
        logits=size * (chunk * config.vocab_size + words) + 4 * chunk * tile_size(kind, config.vocab_size),
        gradients=4 * (count + words),
        working=50_000_000 if size == 4 else 60_000_000 + moments,
    )


def _qkv_width(config: GPTConfig) -> int:
    return (config.n_head + 2 * config.kv_heads) * config.head_dim


def _hidden_width(config: GPTConfig) -> int:
    return config.n_inner * (2 if config.mlp == "swiglu" else 1)


def _activations_per_token(config: GPTConfig, dtype: torch.dtype, blockwise: bool) -> int:
    """Returns the bytes that a token's way through the model leaves for the backward pass.

    The residual stream and what norms read of it are float32; what matrix products read and write is of `dtype`.
    """
    width, size = config.n_embd, dtype.itemsize
    copies = 0 if dtype == torch.float32 else size  # the norms' output, converted for the product
    drop = size if config.dropout else 0  # which numbers were kept
    norm = (4 + (4 if dtype == torch.float32 else copies)) * width
    attention = (5 * size + drop) * width  # queries, keys, values, result, and it again with the heads side by side
    if blockwise:  # the attention weights are kept, of half the context on average
        attention += config.n_head * (config.block_size + BLOCK) // 2 * size
    inner = {"gelu": 2, "relu2": 3, "swiglu": 4}[config.mlp] * config.n_inner * size
    layer = 2 * norm + attention + inner + drop * width
    ends = (4 + 4 * bool(config.dropout) + 3 * 4) * width + norm  # embedding, the head's float32, last norm
    return config.n_layer * layer + ends
