"""START HERE: the GPT, from token ids to logits. The mathematics and nothing else.

Read downwards: `Block` is one layer, `GPT` stacks them between the embedding and the vocabulary head. The parts they
are made of stand beside this file: attention.py, mlps.py, norms.py, positions.py, head.py. How it is trained, sped up
or exported is decided elsewhere, from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from minigpt.config import GPTConfig
from minigpt.errors import ConfigError
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.cache import KVCache
from minigpt.model.dropout import Dropout
from minigpt.model.head import cross_entropy_sum
from minigpt.model.mlps import MLPS
from minigpt.model.norms import NORMS
from minigpt.model.positions import POSITIONS, Positions


class Block(nn.Module):
    """One transformer layer: attention gathers from other tokens, the MLP works on each token alone.

    Both read a normalised copy of the residual stream and add their result to it (pre-norm, as in GPT-2).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = NORMS[config.norm](config)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = NORMS[config.norm](config)
        self.mlp = MLPS[config.mlp](config)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: Tensor, encoding: Positions, positions: Tensor, layer: int, cache: KVCache | None = None
    ) -> Tensor:
        """Returns the residual stream (batch, time, n_embd) after this layer; arguments as in attention."""
        x = x + self.drop(self.attn(self.ln_1(x), encoding, positions, layer, cache))
        return x + self.drop(self.mlp(self.ln_2(x)))


class GPT(nn.Module):
    """A decoder-only transformer language model (Radford et al. 2019).

    Args:
        config: its shape. The weights are drawn from torch's global random state, as GPT-2 draws them.

    Raises:
        ConfigError: if the shape cannot work.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if mistakes := list(config.problems()):
            raise ConfigError("The model's shape cannot work", remedy="; ".join(mistakes))
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe: Positions = POSITIONS[config.position](config)
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = NORMS[config.norm](config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.wte.weight
        self._initialise()

    def _initialise(self) -> None:
        """Draws matrices from N(0, 0.02), and those that write to the residual stream smaller.

        The stream sums 2 x n_layer contributions; dividing their scale by the root of that keeps its variance at the
        output what it would be with one (GPT-2, section 2.3). Biases begin at 0 and norms at 1.
        """
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=residual if name.endswith("c_proj.weight") else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the normalised residual stream above the last block.

        Args:
            ids: token ids, (batch, time); with a cache, the tokens that follow those in each of its rows.
            cache: keys and values of earlier tokens; extended by these.

        Returns:
            (batch, time, n_embd)

        Raises:
            ConfigError: if the tokens, with those in the cache, are more than block_size.
        """
        end = ids.size(1) + (max(cache.lengths) if cache is not None else 0)
        if end > self.config.block_size:
            raise ConfigError(
                f"The model reads at most {self.config.block_size} tokens at once",
                seen=end,
                remedy="Give it fewer, or train with a larger model.block_size.",
            )
        positions = torch.arange(end, device=ids.device) if cache is None else cache.positions(ids.size(1))
        x = self.drop(self.wpe.add(self.wte(ids), positions))  # (batch, time, n_embd)
        for layer, block in enumerate(self.h):
            x = block(x, self.wpe, positions, layer, cache)
        if cache is not None:
            cache.advance(ids.size(1))
        return self.ln_f(x)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the logits of the token that follows each: (batch, time, vocab_size). Arguments as `hidden`."""
        return self.lm_head(self.hidden(ids, cache))

    def loss_sum(self, ids: Tensor, targets: Tensor, hidden: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Returns the cross-entropy summed over the targets, in nats, without ever holding all logits.

        Args:
            ids: (batch, time).
            targets: (batch, time), the token that follows each, or `head.IGNORE`.
            hidden: a compiled form of `hidden`, where there is one.
        """
        x = (hidden or self.hidden)(ids).flatten(0, 1)  # (batch * time, n_embd)
        return cross_entropy_sum(x, self.lm_head.weight, targets.flatten())
