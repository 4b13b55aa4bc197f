"""What a model costs, from its configuration alone: parameters, arithmetic and memory, part by part.

Time depends on the machine; training/estimate.py measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from minigpt.config import GPTConfig
from minigpt.model.kernels.attention import BLOCK
from minigpt.model.kernels.cross_entropy import chunk_size, tile_size


def parameter_table(config: GPTConfig) -> dict[str, int]:
    """Returns the number of parameters of each part, in the order of the forward pass.

    A tied output projection counts as 0: it is the token embedding's matrix.
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
    """Returns the number of parameters."""
    return sum(parameter_table(config).values())


def flops_per_token(config: GPTConfig) -> dict[str, int]:
    """Returns the floating-point operations of a training step per token, by part.

    Matrix products only: a multiplication and an addition per pair of numbers, three times (forward, and backward for
    both factors; Kaplan et al. 2020, section 2.1). Attention sees half a context on average.
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
    """Peak memory of a training step in bytes, without the program itself.

    Attributes:
        weights, optimizer: held for the whole run.
        activations: what the forward pass keeps for the backward pass.
        logits: a chunk of logits, and the head's copy of the output projection.
        gradients: of all weights, and of the output projection once more while it accumulates.
        working: temporaries, and buffers of kernels.
    """

    weights: int
    optimizer: int
    activations: int
    logits: int
    gradients: int
    working: int

    @property
    def total(self) -> int:
        """The sum of all."""
        return self.weights + self.optimizer + self.activations + self.logits + self.gradients + self.working


def training_memory(
    config: GPTConfig, *, rows: int, dtype: torch.dtype, optimizer: str, kind: str = "cpu"
) -> TrainingMemory:
    """Returns the peak memory of a training step.

    Args:
        config: the model.
        rows: sequences per micro-batch.
        dtype: number format of matrix products and their activations.
        optimizer: its name. Adam and AdamW keep two numbers per weight, Muon one for its matrices.
        kind: type of the device.
    """
    count, embedding = parameter_count(config), config.vocab_size * config.n_embd
    tokens, size = rows * config.block_size, dtype.itemsize
    outputs = _qkv_width(config) + config.n_embd + _hidden_width(config) + config.n_inner
    matrices = config.n_layer * config.n_embd * outputs
    chunk = min(chunk_size(kind, dtype), tokens)
    blockwise = bool(config.dropout) and kind == "cpu"
    # Buffers of kernels as measured on a CPU (docs/log.md): those of bfloat16 reorder their inputs.
    moments = tokens * size * (4 * config.n_head * BLOCK * blockwise + 3 * config.n_inner)
    return TrainingMemory(
        weights=4 * count,
        optimizer=8 * count - (4 * matrices if optimizer == "muon" else 0),
        activations=tokens * _activations_per_token(config, dtype, blockwise),
        logits=size * (chunk * config.vocab_size + embedding) + 4 * chunk * tile_size(kind, config.vocab_size),
        gradients=4 * (count + embedding),
        working=50_000_000 if size == 4 else 60_000_000 + moments,
    )


def _qkv_width(config: GPTConfig) -> int:
    return (config.n_head + 2 * config.kv_heads) * config.head_dim


def _hidden_width(config: GPTConfig) -> int:
    return config.n_inner * (2 if config.mlp == "swiglu" else 1)


def _activations_per_token(config: GPTConfig, dtype: torch.dtype, blockwise: bool) -> int:
    """Returns the bytes of activations per token that the backward pass needs.

    The residual stream and the inputs of norms are float32; inputs and outputs of matrix products are of `dtype`.
    """
    width, size = config.n_embd, dtype.itemsize
    copies = 0 if dtype == torch.float32 else size  # the norm's output, converted for the product
    drop = size if config.dropout else 0  # the dropout mask
    norm = (4 + (4 if dtype == torch.float32 else copies)) * width
    attention = (5 * size + drop) * width  # queries, keys, values, result, and the result with its heads merged
    if blockwise:  # attention weights over half the context on average
        attention += config.n_head * (config.block_size + BLOCK) // 2 * size
    inner = {"gelu": 2, "relu2": 3, "swiglu": 4}[config.mlp] * config.n_inner * size
    layer = 2 * norm + attention + inner + drop * width
    ends = (4 + 4 * bool(config.dropout) + 3 * 4) * width + norm  # embedding, the head's float32 copies, last norm
    return config.n_layer * layer + ends
