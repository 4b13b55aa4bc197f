"""START HERE: the GPT, from token ids to logits and loss, written plainly and to be read from top to bottom.

`CausalSelfAttention` and `MLP` are the two layers of a `Block`; `GPT` stacks blocks between the token embedding and the
vocabulary head. This is the code that runs. Variants of a layer are in layers.py; kernels/ has faster forms of the two
expensive lines (attention and loss), which tests compare with the plain forms below. A `Point` names a tensor: it
returns its input, and lets other code read or replace it (hooks.py).

Training, saving and exporting act on the model from outside.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from minigpt.config import IGNORE_INDEX, GPTConfig
from minigpt.errors import ConfigError
from minigpt.model import kernels, layers
from minigpt.model.hooks import Point
from minigpt.model.kernels import Dropout
from minigpt.model.kv_cache import KVCache
from minigpt.model.layers import Embedding, Linear, OutputProjection


class CausalSelfAttention(nn.Module):
    """Lets each token gather information from itself and the tokens before it (Vaswani et al. 2017, section 3.2).

    In each head, the token's query is compared with the keys of these tokens; the better they match, the more their
    values count in the weighted mean. A key/value head can serve several query heads (Ainslie et al. 2023).
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.dropout = layer, config.head_dim, config.dropout
        self.n_heads = (config.n_head, config.kv_heads, config.kv_heads)  # of queries, keys, values
        self.c_attn = Linear(config.n_embd, sum(self.n_heads) * config.head_dim, bias=config.bias)
        self.c_proj = Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.q_norm = layers.RMSNorm(config.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = layers.RMSNorm(config.head_dim) if config.qk_norm else nn.Identity()
        self.rotary = layers.ROTARY[config.position](config) if config.position in layers.ROTARY else None
        self.q, self.k, self.v, self.scores, self.pattern, self.z = (Point() for _ in range(6))

    def forward(self, x: Tensor, positions: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns what attention adds to the residual stream, (batch, time, n_embd).

        Args:
            x: the normalized residual stream, (batch, time, n_embd).
            positions: position of each token in its text, (time), or (batch, time) with a cache.
            cache: keys and values of earlier tokens, which is extended; None to attend within x only.
        """
        batch, time, n_embd = x.shape
        qkv = self.c_attn(x).view(batch, time, -1, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split(self.n_heads, dim=1)  # each (batch, heads, time, head_dim)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary:
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        q, k, v = self.q(q), self.k(k), self.v(v)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v, positions)  # of all tokens so far
        dropout = self.dropout if self.training else 0.0
        if self.scores.watched or self.pattern.watched:
            z = self.attend(q, k, v, positions, dropout)
        else:
            z = kernels.causal_attention(q, k, v, positions if cache is not None else None, dropout)
        z = self.z(z)  # (batch, heads, time, head_dim)
        return self.c_proj(z.transpose(1, 2).reshape(batch, time, n_embd))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, dropout: float = 0.0) -> Tensor:
        """Returns softmax(q k^T / sqrt(head_dim)) v, where each query sees the keys up to its own position."""
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))  # a key/value head for each head
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)  # (batch, heads, queries, keys)
        visible = torch.arange(k.size(2), device=q.device) <= positions[..., :, None]  # (1 or batch, queries, keys)
        scores = self.scores(scores.masked_fill(~visible.unsqueeze(-3), -math.inf))
        pattern = self.pattern(scores.softmax(dim=-1))  # rows sum to 1
        return F.dropout(pattern, dropout) @ v


class MLP(nn.Module):
    """The feed-forward layer of GPT-2. It transforms each token's vector by itself; attention mixes between tokens.

    It projects the vector to n_inner units, applies a GELU (Hendrycks and Gimpel 2016), and projects back.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.n_inner, bias=config.bias)
        self.act = nn.GELU(approximate="tanh")
        self.c_proj = Linear(config.n_inner, config.n_embd, bias=config.bias)
        self.hidden = Point()

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the layer adds to the residual stream, (batch, time, n_embd)."""
        return self.c_proj(self.hidden(self.act(self.c_fc(x))))


MLPS = {"gelu": MLP, **layers.MLPS}


class Block(nn.Module):
    """One transformer block: attention, then the feed-forward layer.

    Each reads a normalized copy of the residual stream and adds its result to the stream (pre-norm, as in GPT-2).
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        norm = layers.NORMS[config.norm]
        self.ln_1 = norm(config.n_embd, config.bias)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = norm(config.n_embd, config.bias)
        self.mlp = MLPS[config.mlp](config)
        self.drop = Dropout(config.dropout)
        self.resid_pre, self.attn_out, self.resid_mid, self.mlp_out, self.resid_post = (Point() for _ in range(5))

    def forward(self, x: Tensor, positions: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the residual stream (batch, time, n_embd) after this block; arguments as in attention."""
        x = self.resid_pre(x)
        x = self.resid_mid(x + self.attn_out(self.drop(self.attn(self.ln_1(x), positions, cache))))
        return self.resid_post(x + self.mlp_out(self.drop(self.mlp(self.ln_2(x)))))


class GPT(nn.Module):
    """A decoder-only transformer language model (Radford et al. 2019).

    Args:
        config: its shape. Weights are drawn from torch's global random state, distributed as in GPT-2.

    Raises:
        ConfigError: if the shape is invalid.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        mistakes = list(config.problems()) if config.vocab_size else ["give model.vocab_size, the number of token ids"]
        if mistakes:
            raise ConfigError("Invalid model shape", remedy="; ".join(mistakes))
        self.config = config
        self.wte = Embedding(config.vocab_size, config.n_embd)
        embeds_positions = config.position in layers.POSITION_EMBEDDINGS
        self.wpe: nn.Module | None = layers.POSITION_EMBEDDINGS[config.position](config) if embeds_positions else None
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = layers.NORMS[config.norm](config.n_embd, config.bias)
        self.lm_head = OutputProjection(config.n_embd, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.wte.weight
        self.embed, self.final, self.logits = Point(), Point(), Point()
        self.gradient_checkpointing = False
        self.initialise()

    def initialise(self) -> None:
        """Draws matrices and embeddings from N(0, 0.02), except for smaller matrices that write to the residual stream.

        The stream sums 2 x n_layer contributions; dividing their scale by the square root of that number keeps its
        variance independent of depth (GPT-2, section 2.3). Biases start at 0 and gains at 1.
        """
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        kinds = layers.parameter_kinds(self)
        for name, parameter in self.named_parameters():
            if kinds[name] in ("matrix", "embedding"):
                nn.init.normal_(parameter, std=residual if name.endswith("c_proj.weight") else 0.02)
            else:
                nn.init.constant_(parameter, 1.0 if kinds[name] == "gain" else 0.0)

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        cache: KVCache | None = None,
        logits_to_keep: int | Tensor | None = None,
    ) -> Tensor:
        """Returns the logits of each next token or, with targets, the loss.

        Args:
            ids: token ids, (batch, time); with a cache, those that continue its rows.
            targets: the token that follows each, or `IGNORE_INDEX` where none counts, (batch, time).
            cache: keys and values of earlier tokens, which is extended.
            logits_to_keep: compute logits only for this many last tokens, or where this boolean mask (batch, time) is
                true; None for all tokens.

        Returns:
            Logits (batch, time, vocab_size), or (tokens, vocab_size) for a mask; with targets, the cross-entropy
            summed over them, a float32 scalar in nats.

        Raises:
            ConfigError: if the tokens, including those in the cache, exceed block_size.
        """
        time, earlier = ids.size(1), max(cache.lengths) if cache is not None else 0
        if earlier + time > self.config.block_size:
            raise ConfigError(
                f"The model's context is {self.config.block_size} tokens",
                got=earlier + time,
                remedy="Use fewer tokens, or train with a larger model.block_size.",
            )
        positions = torch.arange(time, device=ids.device) if cache is None else cache.positions(time)
        x = self.wte(ids)  # (batch, time, n_embd)
        if self.wpe is not None:
            x = x + self.wpe(positions)
        x = self.drop(self.embed(x))
        for block in self.h:
            if self.gradient_checkpointing and self.training:  # recompute activations later (Chen 2016)
                x = checkpoint(block, x, positions, cache, use_reentrant=False)
            else:
                x = block(x, positions, cache)
        if cache is not None:
            cache.advance(time)
        x = self.final(self.ln_f(x))
        if targets is not None:
            return self.loss(x, targets)
        if isinstance(logits_to_keep, int):
            x = x[:, time - logits_to_keep :]
        elif logits_to_keep is not None:
            x = x[logits_to_keep]
        return self.logits(self.lm_head(x))

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy of the targets, summed, in nats: how surprised the model is by them.

        A token's loss is log(sum(exp(logits))) minus its own logit (Bridle 1990). The fast form holds the logits of a
        few hundred tokens at a time; this plain one holds all of them.
        """
        if self.logits.watched:
            logits = self.logits(self.lm_head(x)).float()
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
        return kernels.cross_entropy_sum(x.flatten(0, 1), self.lm_head.weight, targets.flatten())
