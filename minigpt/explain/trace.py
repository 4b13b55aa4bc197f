"""The forward pass, recorded: every named tensor of a model for one text.

    trace = record_trace(model, ids)
    trace["h.0.attn.pattern"]  # (heads, queries, keys)

A trace is computed without fused kernels, which never form scores and patterns; it equals `model(ids)` up to rounding.
`minigpt/model/hooks.py` lists the names. Everything else in this package reads traces, or runs the model again with
some of their tensors replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from minigpt.model import GPT
from minigpt.model.eval_mode import eval_mode
from minigpt.model.hooks import hooked, points


@dataclass(frozen=True)
class Trace:
    """All named tensors of one text, without the batch dimension.

    Attributes:
        ids: the token ids, (time).
        tensors: the tensors by name.
    """

    ids: Tensor
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        """Returns a tensor by its name, such as "h.0.attn.pattern"."""
        return self.tensors[name]

    @property
    def logits(self) -> Tensor:
        """The logits of each next token, (time, vocab_size)."""
        return self["logits"]

    @property
    def residual_stream(self) -> dict[str, Tensor]:
        """The residual stream after each addition to it, by name, in order; each (time, n_embd)."""
        after = ("embed", "resid_mid", "resid_post")
        return {name: tensor for name, tensor in self.tensors.items() if name.rpartition(".")[2] in after}


def record_trace(model: GPT, ids: Tensor) -> Trace:
    """Runs the model on one text, and returns all its named tensors.

    Args:
        model: the model; its number format is that of the trace.
        ids: token ids, (time), at most block_size.

    Raises:
        ConfigError: if there are more tokens than the model's context.
    """
    tensors: dict[str, Tensor] = {}

    def store(name: str) -> Callable[[Tensor], None]:
        def watch(tensor: Tensor) -> None:
            tensors[name] = tensor[0]

        return watch

    with eval_mode(model), hooked(model, {name: store(name) for name in points(model)}):
        model(ids[None])
    return Trace(ids, tensors)
