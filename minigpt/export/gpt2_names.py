"""The configuration and tensors of Hugging Face's GPT-2 in terms of Mini-GPT's model, and back.

Tensors have the same names but for a prefix. In GPT-2, projections are stored transposed (Conv1D), every linear layer
has a bias, and positions are a learned table. Our other variants are converted so that the logits are equal, or
refused. Nothing here reads or writes a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.errors import CheckpointError, ConfigError
from minigpt.export.safe_load import quote, refusal
from minigpt.model import GPT
from minigpt.state_dict import model_tensors

Named = TypeVar("Named")

PREFIX = "transformer."
"""Begins every name but `lm_head.weight`; files of the bare model (GPT2Model) lack it."""

TOKEN_EMBEDDING, OUTPUT_PROJECTION = "wte.weight", "lm_head.weight"

BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
"""Constants in older files: the causal mask, and a number used for minus infinity."""

ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2"}
"""The feed-forward layers that GPT-2 has, with the name of their activation there."""

TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
"""Names of GELU's tanh approximation. The exact `gelu` is another function."""

SUPPORTED_VARIANTS: dict[str, tuple[object, ...]] = {
    "position": ("learned", "sinusoidal", "none"),
    "norm": ("layernorm",),
    "mlp": tuple(ACTIVATIONS),
    "qk_norm": (False,),
}
"""The variants that GPT-2's architecture can express; a fixed or missing position encoding is written as a table."""

DEFAULTS: dict[str, Any] = {
    "vocab_size": 50_257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "eos_token_id": 50_256,
}
"""Settings that config.json omits."""

ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "activation_function": (*TANH_GELUS, "relu2"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True, False),
}
"""The supported values. `reorder_and_upcast_attn` is not checked: it changes only rounding."""

MUST_BE_EMPTY = ("auto_map", "quantization_config", "pruned_heads")
"""Settings that make a checkpoint differ from its architecture: custom code, quantised or pruned weights."""

MAX_SIZE = 2**24
"""Limit of every size in a model's shape, so that products of them stay manageable."""


def to_gpt2_config(config: GPTConfig, end_of_text: int) -> dict[str, Any]:
    """Returns the content of config.json for a model.

    Raises:
        ConfigError: naming every setting that GPT-2's architecture cannot express.
    """
    supported = {**SUPPORTED_VARIANTS, "n_kv_head": (config.n_head, None)}
    if wrong := [name for name, values in supported.items() if getattr(config, name) not in values]:
        options = (_option(name.replace("_", "-"), supported[name][0]) for name in wrong)
        raise ConfigError(
            "GPT-2's architecture cannot express this model",
            got=", ".join(f"model.{name} {getattr(config, name)}" for name in wrong),
            remedy=f"A run trained with {' '.join(options)} can be exported.",
        )
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.n_inner,
        "activation_function": ACTIVATIONS[config.mlp],
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
        "layer_norm_epsilon": DEFAULTS["layer_norm_epsilon"],
        "initializer_range": 0.02,
        "scale_attn_weights": True,
        "tie_word_embeddings": config.tie_word_embeddings,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text),
        "torch_dtype": "float32",
    }


def _option(name: str, value: object) -> str:
    return f"--model.no-{name}" if value is False else f"--model.{name} {value}"


def from_gpt2_config(found: Mapping[str, Any]) -> GPTConfig:
    """Returns the shape of the model that a config.json describes.

    Raises:
        CheckpointError: naming every unsupported setting, with its value.
    """
    settings = DEFAULTS | {ALIASES.get(name, name): value for name, value in found.items()}
    problems = list(_problems(found, settings))
    if problems:
        raise CheckpointError(
            "config.json describes a model that Mini-GPT does not support",
            got="; ".join(problem for problem, _ in problems),
            remedy=" ".join(dict.fromkeys(remedy for _, remedy in problems)),
        )
    return GPTConfig(
        vocab_size=settings["vocab_size"],
        block_size=settings["n_positions"],
        n_layer=settings["n_layer"],
        n_head=settings["n_head"],
        n_embd=settings["n_embd"],
        n_inner=4 * settings["n_embd"] if settings["n_inner"] is None else settings["n_inner"],
        dropout=float(settings["resid_pdrop"]),
        mlp="relu2" if settings["activation_function"] == "relu2" else "gelu",
        tie_word_embeddings=bool(settings["tie_word_embeddings"]),
    )


def _problems(found: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields each unsupported setting, with its value, and the remedy."""
    if settings.get("model_type") != "gpt2":
        yield _shown("model_type", settings.get("model_type")), "It must be gpt2."
    for name in MUST_BE_EMPTY:
        if settings.get(name):
            yield _shown(name, settings[name]), f"A checkpoint with {name} is not a plain GPT-2."
    for alias, name in ALIASES.items():
        if alias in found and found.get(name, found[alias]) != found[alias]:
            yield f"{_shown(name, found[name])}, {_shown(alias, found[alias])}", "Both name the same setting."
    for name, values in SUPPORTED.items():
        if settings[name] not in values:
            yield _shown(name, settings[name]), f"{name} can be {', '.join(map(str, values))}."
    sizes = {name: settings[name] for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
    if settings["n_inner"] is not None:
        sizes["n_inner"] = settings["n_inner"]
    for name, size in sizes.items():
        if type(size) is not int or not 0 < size <= MAX_SIZE:
            yield _shown(name, size), f"Sizes are whole numbers from 1 to {MAX_SIZE:,}."
    width, heads = sizes["n_embd"], sizes["n_head"]
    if type(width) is int and type(heads) is int and heads and width % heads:
        yield f"n_embd {width}, n_head {heads}", "n_head must divide n_embd."
    dropout = settings["resid_pdrop"]
    if type(dropout) not in (int, float) or not 0 <= dropout <= 0.99:
        yield _shown("resid_pdrop", dropout), "It must be from 0 to 0.99."


def _shown(name: str, value: object) -> str:
    return f"{name} {quote(value)}"


def gpt2_shapes(config: GPTConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the name, without prefix, and the shape of each tensor of GPT-2, in the order of the computation.

    Lazily, so that a comparison with a file stops at the first missing tensor, however large n_layer is.
    """
    width, hidden = config.n_embd, config.n_inner
    norm: dict[str, tuple[int, ...]] = {"weight": (width,), "bias": (width,)}
    parts: dict[str, dict[str, tuple[int, ...]]] = {
        "ln_1": norm,
        "attn.c_attn": {"weight": (width, 3 * width), "bias": (3 * width,)},
        "attn.c_proj": {"weight": (width, width), "bias": (width,)},
        "ln_2": norm,
        "mlp.c_fc": {"weight": (width, hidden), "bias": (hidden,)},
        "mlp.c_proj": {"weight": (hidden, width), "bias": (width,)},
    }
    yield TOKEN_EMBEDDING, (config.vocab_size, width)
    yield "wpe.weight", (config.block_size, width)
    for layer in range(config.n_layer):
        for part, tensors in parts.items():
            for name, shape in tensors.items():
                yield f"h.{layer}.{part}.{name}", shape
    for name, shape in norm.items():
        yield f"ln_f.{name}", shape
    if not config.tie_word_embeddings:
        yield OUTPUT_PROJECTION, (config.vocab_size, width)


def bare_names(found: Mapping[str, Named]) -> dict[str, Named]:
    """Returns the tensors of a file by their names without prefix, and without the buffers of older files.

    Raises:
        CheckpointError: if a tensor occurs twice, with and without the prefix.
    """
    bare: dict[str, Named] = {}
    for name, tensor in found.items():
        short = name.removeprefix(PREFIX)
        if short in bare:
            raise refusal("A tensor occurs twice, with and without the prefix", quote(name))
        if not BUFFER.fullmatch(short):
            bare[short] = tensor
    return bare


def to_gpt2_tensors(model: GPT) -> dict[str, Tensor]:
    """Returns a model's weights under GPT-2's names; missing biases become 0."""
    own = model_tensors(model) | {"wpe.weight": _position_vectors(model)}
    return {
        name if name == OUTPUT_PROJECTION else PREFIX + name: _transposed(name, own[name])
        if name in own
        else torch.zeros(shape)
        for name, shape in gpt2_shapes(model.config)
    }


def from_gpt2_tensors(config: GPTConfig, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Returns the model's weights by name.

    Args:
        config: the model's shape, as `from_gpt2_config` returns it.
        read: returns the tensor with a name of GPT-2's, without prefix.
    """
    return {name: _transposed(name, read(name)) for name, _ in gpt2_shapes(config)}


def _transposed(name: str, tensor: Tensor) -> Tensor:
    """Returns a projection's weight transposed, (out, in) to (in, out) or back; any other tensor unchanged."""
    return tensor.t().contiguous() if ".c_" in name and name.endswith("weight") else tensor


def _position_vectors(model: GPT) -> Tensor:
    """Returns the vector added to the embedding at each position: (block_size, n_embd)."""
    if model.wpe is None:
        return torch.zeros(model.config.block_size, model.config.n_embd)
    with torch.no_grad():
        return model.wpe(torch.arange(model.config.block_size))
