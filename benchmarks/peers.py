"""The peers of training.py: the same model as other people write it, holding all logits at once.

Each takes token ids and targets (batch, time) and returns the mean cross-entropy. Nothing of Mini-GPT is used here.
`PEERS` names the settings in which they are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """The size of the model: those of preset `seed`, unless a sweep asks for others."""

    vocab_size: int = 50257
    block_size: int = 512
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 128
    n_inner: int = 512
    dropout: float = 0.1


class Encoder(nn.Module):
    """torch's own `nn.TransformerEncoder` under a causal mask, with embeddings below and a linear head above."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocab_size, shape.n_embd)
        self.places = nn.Embedding(shape.block_size, shape.n_embd)
        layer = nn.TransformerEncoderLayer(
            shape.n_embd,
            shape.n_head,
            shape.n_inner,
            shape.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            layer, shape.n_layer, nn.LayerNorm(shape.n_embd), enable_nested_tensor=False
        )
        self.head = nn.Linear(shape.n_embd, shape.vocab_size, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy of the targets."""
        time = ids.size(1)
        mask = nn.Transformer.generate_square_subsequent_mask(time, device=ids.device)
        x = self.words(ids) + self.places(torch.arange(time, device=ids.device))
        logits = self.head(self.blocks(x, mask=mask, is_causal=True))  # (batch, time, vocab_size)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class NanoStyle(nn.Module):
    """A GPT-2 as small trainers write it: fused attention with dropout, one cross-entropy over all logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.n_embd
        self.shape = shape
        self.wte = nn.Embedding(shape.vocab_size, width)
        self.wpe = nn.Embedding(shape.block_size, width)
        self.drop = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ln_1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "proj": nn.Linear(width, width),
                    "ln_2": nn.LayerNorm(width),
                    "up": nn.Linear(width, shape.n_inner),
                    "down": nn.Linear(shape.n_inner, width),
                }
            )
            for _ in range(shape.n_layer)
        )
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, shape.vocab_size, bias=False)
        self.head.weight = self.wte.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = math.sqrt(2 * shape.n_layer) if name.endswith(("proj.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)

    def _attend(self, block: Any, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        heads = (batch, time, self.shape.n_head, width // self.shape.n_head)
        q, k, v = (part.view(heads).transpose(1, 2) for part in block["qkv"](x).split(width, dim=2))
        dropout = self.shape.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return block["proj"](y.transpose(1, 2).reshape(batch, time, width))

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy of the targets."""
        x = self.drop(self.wte(ids) + self.wpe(torch.arange(ids.size(1), device=ids.device)))
        for block in self.blocks:
            x = x + self.drop(self._attend(block, block["ln_1"](x)))
            x = x + self.drop(block["down"](F.gelu(block["up"](block["ln_2"](x)))))
        logits = self.head(self.ln_f(x))  # (batch, time, vocab_size)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class HuggingFace(nn.Module):
    """`GPT2LMHeadModel` of transformers; the loss from its logits, since its own would shift the targets once more."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=shape.vocab_size,
                n_positions=shape.block_size,
                n_layer=shape.n_layer,
                n_head=shape.n_head,
                n_embd=shape.n_embd,
                n_inner=shape.n_inner,
                attn_pdrop=shape.dropout,
                embd_pdrop=shape.dropout,
                resid_pdrop=shape.dropout,
            )
        )

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy of the targets."""
        logits = self.model(ids, use_cache=False).logits  # (batch, time, vocab_size)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@dataclass(frozen=True)
class Peer:
    """A peer in one setting.

    Attributes:
        title: for tables.
        build: makes its model.
        precision: "float32", or what autocast runs its matrix products in.
        compiled: whether `torch.compile` gets the model.
    """

    title: str
    build: Callable[[Shape], nn.Module]
    precision: str = "float32"
    compiled: bool = False


PEERS = {
    "encoder": Peer("nn.TransformerEncoder, float32", Encoder),
    "nano": Peer("nanoGPT style, float32", NanoStyle),
    "nano-bf16": Peer("nanoGPT style, bfloat16", NanoStyle, "bfloat16"),
    "nano-bf16-compiled": Peer("nanoGPT style, bfloat16, compiled", NanoStyle, "bfloat16", compiled=True),
    "hf": Peer("transformers GPT2LMHeadModel, float32", HuggingFace),
    "hf-bf16-compiled": Peer(
        "transformers GPT2LMHeadModel, bfloat16, compiled", HuggingFace, "bfloat16", compiled=True
    ),
}
