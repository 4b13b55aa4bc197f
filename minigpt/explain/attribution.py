"""Where a logit comes from: the residual stream is a sum, and a logit is linear in it once its norm is fixed.

components              what each layer and head added to the stream
logit_attribution       their shares of one logit, which add up to it (Elhage et al. 2021, "logit attribution")
logit_lens              the logits that the model would give if it ended after a layer (nostalgebraist 2020)
head_by_source          a head's contribution, by the token that it was read from
"""

from __future__ import annotations

import torch
from torch import Tensor

from minigpt.explain.trace import Trace
from minigpt.model import GPT
from minigpt.model.eval_mode import eval_mode
from minigpt.model.layers import EPSILON, LayerNorm, Linear


def logit_lens(model: GPT, trace: Trace) -> dict[str, Tensor]:
    """Returns the logits (time, vocab_size) of every state of the residual stream, by its name.

    Each state passes through the last norm, with statistics of its own, and the vocabulary head. The last are those of
    the model.
    """
    with eval_mode(model):
        return {name: model.lm_head(model.ln_f(stream)) for name, stream in trace.residual_stream.items()}


def components(model: GPT, trace: Trace) -> dict[str, Tensor]:
    """Returns all that was added to the residual stream, by name, each (time, n_embd). The sum is its last state.

    Names are "token embedding", "position embedding" (if there is one), "head 0.3" (layer 0, head 3),
    "attention bias 0" (if there are biases) and "feed-forward 0".
    """
    with eval_mode(model):
        parts = {"token embedding": model.wte(trace.ids)}
        if (embed := model.wpe) is not None:
            parts["position embedding"] = embed(torch.arange(len(trace.ids), device=trace.ids.device))
        for layer in range(model.config.n_layer):
            z = trace[f"h.{layer}.attn.z"]  # (heads, time, head_dim)
            outputs = torch.einsum("htd,hdn->htn", z, output_weights(model, layer))
            parts |= {f"head {layer}.{head}": output for head, output in enumerate(outputs)}
            if (bias := _projection(model, layer).bias) is not None:
                parts[f"attention bias {layer}"] = bias.detach().expand(len(trace.ids), -1)
            parts[f"feed-forward {layer}"] = trace[f"h.{layer}.mlp_out"]
    return parts


def output_weights(model: GPT, layer: int) -> Tensor:
    """Returns the part of a layer's output projection that each head writes with, (heads, head_dim, n_embd)."""
    weight = _projection(model, layer).weight  # (n_embd, heads * head_dim)
    return weight.detach().T.reshape(model.config.n_head, model.config.head_dim, -1)


def _projection(model: GPT, layer: int) -> Linear:
    module = model.get_submodule(f"h.{layer}.attn.c_proj")
    assert isinstance(module, Linear)
    return module


def logit_attribution(
    model: GPT, trace: Trace, position: int, token: int, versus: int | None = None
) -> dict[str, float]:
    """Returns the contribution of each component to one logit, or to the difference of two. They sum to it.

    The scale of the last norm is that of the final stream, for all components alike; LayerNorm's bias is a contribution
    by itself ("final bias").

    Args:
        model: the model.
        trace: of the text.
        position: the position whose next token is meant.
        token: the token whose logit is explained.
        versus: a token whose logit is subtracted; None for none.
    """
    norm, rows = model.ln_f, model.lm_head.weight.detach()
    row = rows[token] if versus is None else rows[token] - rows[versus]
    final = trace[f"h.{model.config.n_layer - 1}.resid_post"][position]
    centred = isinstance(norm, LayerNorm)
    scale = torch.rsqrt((final.var(correction=0) if centred else final.square().mean()) + EPSILON)
    direction = norm.weight.detach() * row * scale  # (n_embd)
    found = {}
    for name, part in components(model, trace).items():
        vector = part[position] - part[position].mean() if centred else part[position]
        found[name] = float(vector @ direction)
    bias = getattr(norm, "bias", None)
    if bias is not None:
        found["final bias"] = float(bias.detach() @ row)
    return found


def head_by_source(model: GPT, trace: Trace, layer: int, position: int) -> Tensor:
    """Returns what each head of a layer adds to the stream at one position, by source token: (heads, sources, n_embd).

    Summed over the sources, it is the head's whole output: pattern[position, s] * v[s] @ W_O.
    """
    heads = model.config.n_head
    pattern = trace[f"h.{layer}.attn.pattern"][:, position, : position + 1]  # (heads, sources)
    values = trace[f"h.{layer}.attn.v"][:, : position + 1]  # (kv heads, sources, head_dim)
    values = values.repeat_interleave(heads // values.size(0), dim=0)
    return torch.einsum("hs,hsd,hdn->hsn", pattern, values, output_weights(model, layer))
