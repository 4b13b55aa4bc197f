"""GPT-2 as Hugging Face writes it, and ours: the settings and the tensors of one in terms of the other.

The names of the tensors are the same but for a prefix. The projections are stored transposed (GPT-2 calls them
Conv1D), every linear layer has a bias, and positions are a learned table: what our model can do beside that is written
so that the numbers come out equal, or refused by name. Nothing here reads or writes a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.errors import CheckpointError, ConfigError
from minigpt.export.safe_load import refused, shown_name
from minigpt.model import GPT
from minigpt.state_dict import model_tensors

Named = TypeVar("Named")

PREFIX = "transformer."
"""Stands before every name but `lm_head.weight`; files of the bare model (GPT2Model) lack it."""

WORDS, HEAD = "wte.weight", "lm_head.weight"
"""The two tensors with a row for each word."""

BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
"""Constants that older files hold beside the weights: the causal mask, and what stands for minus infinity."""

ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2"}
"""Our feed-forward layers that GPT-2 has, by the name of their activation there."""

TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
"""Names of one formula, GELU's approximation by a hyperbolic tangent. The plain `gelu` is another function."""

EXPRESSIBLE: dict[str, tuple[str, ...]] = {
    "position": ("learned", "sinusoidal", "none"),
    "norm": ("layernorm",),
    "mlp": tuple(ACTIVATIONS),
    "qk_norm": ("False",),
}
"""The variants that GPT-2's architecture can express: a fixed or an absent position is a table of numbers, too."""

NEEDED = {
    "rope": "turns queries and keys by their position",
    "rmsnorm": "has RMSNorm",
    "swiglu": "has a gated feed-forward layer",
    "n_kv_head": "shares keys and values between heads",
    "qk_norm": "normalises queries and keys",
}
"""What an architecture would have to do for the variants that GPT-2 lacks."""

LLAMA = ("rope", "rmsnorm", "swiglu", "n_kv_head")
"""Those that Llama's does."""

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
"""What a setting is that config.json leaves out."""

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
"""The values that our model can follow. `reorder_and_upcast_attn` is not among them: it changes rounding alone."""

MUST_BE_EMPTY = ("auto_map", "quantization_config", "pruned_heads")
"""Settings that make a checkpoint something else than its architecture says: code of its own, other numbers."""

LARGEST = 2**24
"""No size of a model's shape is larger; so that products of them stay numbers that a computer can count to."""


def to_gpt2_config(config: GPTConfig, end_of_text: int) -> dict[str, Any]:
    """Returns the content of config.json for a model of ours.

    Raises:
        ConfigError: naming every setting that GPT-2's architecture cannot express, and what would be needed.
    """
    wrong = {name: getattr(config, name) for name in EXPRESSIBLE if str(getattr(config, name)) not in EXPRESSIBLE[name]}
    if config.kv_heads != config.n_head:
        wrong["n_kv_head"] = config.n_kv_head
    if wrong:
        lacking = [value if value in NEEDED else name for name, value in wrong.items()]
        needed = " and ".join(NEEDED[key] for key in lacking)
        needed += ", as Llama's does" if set(lacking) <= set(LLAMA) else ""
        choices = {**EXPRESSIBLE, "n_kv_head": (str(config.n_head),)}
        can = " and ".join(f"--model.{name.replace('_', '-')} {_either(choices[name])}" for name in wrong)
        raise ConfigError(
            "GPT-2's architecture cannot express this model",
            got=", ".join(f"model.{name} {value}" for name, value in wrong.items()),
            remedy=f"It would need one that {needed}. A run trained with {can} can be exported.",
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


def _either(values: Sequence[str]) -> str:
    """Returns "a, b or c"."""
    return " or ".join(filter(None, (", ".join(values[:-1]), values[-1])))


def from_gpt2_config(found: Mapping[str, Any]) -> GPTConfig:
    """Returns the shape of our model that computes what a config.json describes.

    Raises:
        CheckpointError: naming every setting that our model cannot follow, with its value.
    """
    settings = DEFAULTS | {ALIASES.get(name, name): value for name, value in found.items()}
    problems = list(_problems(found, settings))
    if problems:
        raise CheckpointError(
            "config.json describes a model that Mini-GPT cannot import",
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
    """Yields each setting that cannot be followed, with its value, and the remedy."""
    if settings.get("model_type") != "gpt2":
        yield _said("model_type", settings.get("model_type")), "It must be gpt2; others are not read."
    for name in MUST_BE_EMPTY:
        if settings.get(name):
            yield _said(name, settings[name]), f"A checkpoint with {name} is not plain GPT-2."
    for alias, name in ALIASES.items():
        if alias in found and found.get(name, found[alias]) != found[alias]:
            yield f"{_said(name, found[name])}, {_said(alias, found[alias])}", "These two mean the same."
    for name, values in SUPPORTED.items():
        if settings[name] not in values:
            yield _said(name, settings[name]), f"{name} can be {', '.join(map(str, values))}."
    sizes = {name: settings[name] for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
    if settings["n_inner"] is not None:
        sizes["n_inner"] = settings["n_inner"]
    for name, size in sizes.items():
        if type(size) is not int or not 0 < size <= LARGEST:
            yield _said(name, size), f"Sizes are whole numbers from 1 to {LARGEST:,}."
    width, heads = sizes["n_embd"], sizes["n_head"]
    if type(width) is int and type(heads) is int and heads and width % heads:
        yield f"n_embd {width}, n_head {heads}", "n_head must divide n_embd."
    share = settings["resid_pdrop"]
    if type(share) not in (int, float) or not 0 <= share <= 0.99:
        yield _said("resid_pdrop", share), "It is a share from 0 to 0.99."


def _said(name: str, value: object) -> str:
    return f"{name} {shown_name(value)}"


def gpt2_shapes(config: GPTConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the name, without prefix, and the shape of each tensor of GPT-2, in the order in which a token meets them.

    Lazily, so that whoever compares them with a file stops at the first that is missing, whatever n_layer claims.
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
    yield WORDS, (config.vocab_size, width)
    yield "wpe.weight", (config.block_size, width)
    for layer in range(config.n_layer):
        for part, tensors in parts.items():
            for name, shape in tensors.items():
                yield f"h.{layer}.{part}.{name}", shape
    for name, shape in norm.items():
        yield f"ln_f.{name}", shape
    if not config.tie_word_embeddings:
        yield HEAD, (config.vocab_size, width)


def bare_names(found: Mapping[str, Named]) -> dict[str, Named]:
    """Returns the tensors of a file by GPT-2's names without prefix, buffers left out.

    Raises:
        CheckpointError: if two have the same name then.
    """
    bare: dict[str, Named] = {}
    for name, tensor in found.items():
        short = name.removeprefix(PREFIX)
        if short in bare:
            raise refused("A tensor is there twice, with and without prefix", shown_name(name))
        if not BUFFER.fullmatch(short):
            bare[short] = tensor
    return bare


def to_gpt2_tensors(model: GPT) -> dict[str, Tensor]:
    """Returns a model's weights under GPT-2's names; a bias that ours lacks is 0 there."""
    own = model_tensors(model) | {"wpe.weight": _position_vectors(model)}
    return {
        name if name == HEAD else PREFIX + name: _transposed(name, own[name]) if name in own else torch.zeros(shape)
        for name, shape in gpt2_shapes(model.config)
    }


def from_gpt2_tensors(config: GPTConfig, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Returns our model's weights by name.

    Args:
        config: our model's shape, as `from_gpt2_config` returns it.
        read: gives the tensor of a name of GPT-2's, without prefix.
    """
    return {name: _transposed(name, read(name)) for name, _ in gpt2_shapes(config)}


def _transposed(name: str, tensor: Tensor) -> Tensor:
    """Returns a projection's weight (out, in) as (in, out), or back; any other tensor as it is."""
    return tensor.t().contiguous() if ".c_" in name and name.endswith("weight") else tensor


def _position_vectors(model: GPT) -> Tensor:
    """Returns what the model adds to the embedding at each position: (block_size, n_embd)."""
    if model.wpe is None:
        return torch.zeros(model.config.block_size, model.config.n_embd)
    with torch.no_grad():
        return model.wpe(torch.arange(model.config.block_size))
