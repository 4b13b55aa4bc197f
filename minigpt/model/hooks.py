"""Named points of the computation: places where a tensor can be read or replaced from outside, by PyTorch's own hooks.

A `Point` passes its input on. It is a module, so that `model.get_submodule("h.0.attn.pattern")` finds it and
`register_forward_hook` listens there; what a hook returns takes the tensor's place. `hooked` does both for a `with`
block. A point that nobody watches costs half a microsecond. Where a fast kernel would never form what is watched
(attention scores and pattern, all logits), the model takes the plain path, which does.

    embed                                 token and position embedding, (batch, time, n_embd)
    h.N.resid_pre, resid_mid, resid_post  the residual stream before, between and after block N's two layers
    h.N.attn.q, .k, .v                    (batch, heads or kv heads, time, head_dim), positions already applied
    h.N.attn.scores, .pattern             before and after the softmax, (batch, heads, queries, keys)
    h.N.attn.z                            each head's output before `c_proj`, (batch, heads, time, head_dim)
    h.N.attn_out, h.N.mlp_out             what each layer adds to the stream, (batch, time, n_embd)
    h.N.mlp.hidden                        the feed-forward layer's hidden units, (batch, time, n_inner)
    final                                 the normalised stream that the head reads, (batch, time, n_embd)
    logits                                (batch, time, vocab_size)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from torch import Tensor, nn

Watcher: TypeAlias = Callable[[Tensor], Tensor | None]
"""Is given the tensor at a point; what it returns takes the tensor's place, unless that is None."""


class Point(nn.Identity):
    """A named place in the computation."""

    @property
    def watched(self) -> bool:
        """Whether anybody listens here."""
        return bool(self._forward_hooks)


def points(model: nn.Module) -> dict[str, Point]:
    """Returns the points of a model by their names, in the order in which they are made."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Point)}


@contextmanager
def hooked(model: nn.Module, watchers: Mapping[str, Watcher]) -> Iterator[None]:
    """Lets watchers see the tensors at the points they name, until the block ends.

    Args:
        model: the model.
        watchers: what is called at each point, by the point's name.

    Raises:
        KeyError: if the model has no such point.
    """
    places = points(model)
    with ExitStack() as stack:
        for name, watcher in watchers.items():
            stack.enter_context(places[name].register_forward_hook(_as_hook(watcher)))
        yield


def _as_hook(watcher: Watcher) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
    return lambda module, inputs, output: watcher(output)
