"""Named points of the computation, where a tensor can be read or replaced from outside with PyTorch's own hooks.

A `Point` returns its input. It is a module, so `model.get_submodule("h.0.attn.pattern")` finds it and
`register_forward_hook` attaches to it; what a hook returns replaces the tensor. `hooked` does both for a `with` block.
An unwatched point costs half a microsecond. Attention scores, patterns and all logits at once never exist in the fast
kernels; while one of them is watched, the model takes the plain path.

    embed                                 token and position embedding, (batch, time, n_embd)
    h.N.resid_pre, resid_mid, resid_post  the residual stream before, between and after block N's two layers
    h.N.attn.q, .k, .v                    (batch, heads or kv heads, time, head_dim), with positions applied
    h.N.attn.scores, .pattern             before and after the softmax, (batch, heads, queries, keys)
    h.N.attn.z                            each head's output, before `c_proj`, (batch, heads, time, head_dim)
    h.N.attn_out, h.N.mlp_out             the contribution of each layer to the stream, (batch, time, n_embd)
    h.N.mlp.hidden                        hidden units of the feed-forward layer, (batch, time, n_inner)
    final                                 the normalized stream, input of the head, (batch, time, n_embd)
    logits                                (batch, time, vocab_size)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from torch import Tensor, nn

Watcher: TypeAlias = Callable[[Tensor], Tensor | None]
"""Gets the tensor at a point; what it returns, unless None, replaces the tensor."""


class Point(nn.Identity):
    """A named point of the computation."""

    @property
    def watched(self) -> bool:
        """Whether a hook is attached."""
        return bool(self._forward_hooks)


def points(model: nn.Module) -> dict[str, Point]:
    """Returns the points of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Point)}


@contextmanager
def hooked(model: nn.Module, watchers: Mapping[str, Watcher]) -> Iterator[None]:
    """Attaches watchers to points of the model until the block ends.

    Args:
        model: the model.
        watchers: functions by the name of their point.

    Raises:
        KeyError: if the model has no point of that name.
    """
    places = points(model)
    with ExitStack() as stack:
        for name, watcher in watchers.items():
            stack.enter_context(places[name].register_forward_hook(_as_hook(watcher)))
        yield


def _as_hook(watcher: Watcher) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
    return lambda module, inputs, output: watcher(output)
