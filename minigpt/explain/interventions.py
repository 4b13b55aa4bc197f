"""What changes if a part is switched off or replaced: cause, where a picture of attention shows correlation only.

    ablate, ablate_each_head   logits without some heads: their output set to zero, to its mean, or to another text's
    ablate_heads_of_layer      the same for one layer and position, faster
    heads_replaced             the same for whatever else is computed, such as a trace
    patch                      logits of one text with some tensors of another (Meng et al. 2022)
    recovered                  how far a patch brings a result back: 0 for nothing, 1 for all

A head that looks at a token need not use it, so show the effect of removing it beside its attention. Zero takes a head
further from what later layers expect than its mean does, so the two can disagree: show both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from minigpt.explain.trace import Trace
from minigpt.model import GPT
from minigpt.model.eval_mode import eval_mode
from minigpt.model.hooks import hooked

Head = tuple[int, int]
"""A layer and a head in it."""


def ablate(
    model: GPT, ids: Tensor, heads: Iterable[Head], replacement: Tensor | None = None, keep: int | None = None
) -> Tensor:
    """Returns the logits (time, vocab_size) of a text when the outputs of some heads are replaced.

    Args:
        model: the model.
        ids: token ids, (time).
        heads: which ones.
        replacement: as in `heads_replaced`.
        keep: the number of last positions to compute logits for; None for all.
    """
    with eval_mode(model), heads_replaced(model, heads, replacement):
        logits: Tensor = model(ids[None], logits_to_keep=keep)
    return logits[0]


def ablate_each_head(model: GPT, ids: Tensor, replacement: Tensor | None = None, keep: int | None = None) -> Tensor:
    """Returns the logits without each head in turn, (n_layer, heads, time, vocab_size), from one batch.

    Arguments as in `ablate`. With a large vocabulary, keep few positions.
    """
    layers, heads = model.config.n_layer, model.config.n_head
    masks = torch.eye(layers * heads, dtype=torch.bool, device=ids.device).view(-1, layers, heads)
    with eval_mode(model), _masks_replaced(model, masks, replacement):
        logits: Tensor = model(ids.expand(len(masks), -1), logits_to_keep=keep)
    return logits.unflatten(0, (layers, heads))


def ablate_heads_of_layer(
    model: GPT, trace: Trace, layer: int, position: int, replacement: Tensor | None = None
) -> Tensor:
    """Returns the logits at one position without each head of a layer in turn, (heads, vocab_size).

    The same as `ablate_each_head`, but for one position, and faster: it starts from the layer's input in the trace.

    Args:
        model: the model.
        trace: of the text.
        layer: whose heads are replaced.
        position: the position whose next token is predicted.
        replacement: as in `heads_replaced`.
    """
    heads = model.config.n_head
    masks = torch.zeros(heads, model.config.n_layer, heads, dtype=torch.bool, device=trace.ids.device)
    masks[:, layer] = torch.eye(heads, dtype=torch.bool)
    x = trace[f"h.{layer}.resid_pre"][: position + 1].expand(heads, -1, -1)
    positions = torch.arange(position + 1, device=trace.ids.device)
    with eval_mode(model), _masks_replaced(model, masks, replacement):
        for block in model.h[layer:]:
            x = block(x, positions)
        logits: Tensor = model.lm_head(model.ln_f(x[:, -1]))
    return logits


@contextmanager
def heads_replaced(model: GPT, heads: Iterable[Head], replacement: Tensor | None = None) -> Iterator[None]:
    """Replaces the outputs of some heads, in all that the model computes, until the block ends.

    Args:
        model: the model.
        heads: which ones.
        replacement: outputs to put in their place, (n_layer, heads, 1 or time, head_dim), as `mean_outputs` or
            `head_outputs` of another text returns; None for zeros.
    """
    masks = torch.zeros(1, model.config.n_layer, model.config.n_head, dtype=torch.bool, device=model.wte.weight.device)
    for layer, head in heads:
        masks[0, layer, head] = True
    with _masks_replaced(model, masks, replacement):
        yield


@contextmanager
def _masks_replaced(model: GPT, masks: Tensor, replacement: Tensor | None) -> Iterator[None]:
    """Replaces the heads that masks (1 or batch, n_layer, heads) select in each row of a batch."""

    def replace(layer: int) -> Callable[[Tensor], Tensor]:
        other = torch.zeros(()) if replacement is None else replacement[layer]

        def watch(z: Tensor) -> Tensor:  # (batch, heads, time, head_dim)
            return torch.where(masks[:, layer, :, None, None], other.to(z), z)

        return watch

    with hooked(
        model, {f"h.{layer}.attn.z": replace(layer) for layer in range(model.config.n_layer) if masks[:, layer].any()}
    ):
        yield


def head_outputs(trace: Trace) -> Tensor:
    """Returns the outputs of all heads for a text, (n_layer, heads, time, head_dim)."""
    return torch.stack([tensor for name, tensor in trace.tensors.items() if name.endswith(".attn.z")])


def mean_outputs(traces: Iterable[Trace]) -> Tensor:
    """Returns the mean output of each head over all positions of some texts, (n_layer, heads, 1, head_dim)."""
    outputs = torch.cat([head_outputs(trace) for trace in traces], dim=2)
    return outputs.mean(dim=2, keepdim=True)


def patch(
    model: GPT, ids: Tensor, replacements: Mapping[str, Tensor], positions: Iterable[int] | None = None
) -> Tensor:
    """Returns the logits (time, vocab_size) of a text when named tensors are replaced by those of another.

    Args:
        model: the model.
        ids: token ids, (time).
        replacements: tensors by name, as in a trace of a text of the same length; those of the residual stream,
            attn_out, mlp_out, z, q, k and v, whose next-to-last dimension is time.
        positions: the positions to replace; None for all.
    """
    chosen = torch.zeros(len(ids), 1, dtype=torch.bool, device=ids.device)
    chosen[list(range(len(ids)) if positions is None else positions)] = True

    def replace(other: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda tensor: torch.where(chosen, other[None], tensor)

    with eval_mode(model), hooked(model, {name: replace(other) for name, other in replacements.items()}):
        logits: Tensor = model(ids[None])
    return logits[0]


def recovered(patched: float, corrupt: float, clean: float) -> float:
    """Returns (patched - corrupt) / (clean - corrupt): the share of a difference that a patch brings back."""
    return (patched - corrupt) / (clean - corrupt)
