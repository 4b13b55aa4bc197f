"""The feed-forward layer: works on each token's vector alone, where attention mixes between tokens.

Each variant widens the vector to `n_hidden`, bends it, and projects it back onto the residual stream through
`c_proj`. A new variant is a class and a line in `MLPS`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import GPTConfig


class GELU(nn.Module):
    """Two linear layers around a Gaussian error linear unit (Hendrycks and Gimpel 2016), as in GPT-2."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.n_hidden, bias=config.bias)
        self.act = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(config.n_hidden, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's contribution to the residual stream, (batch, time, n_embd)."""
        return self.c_proj(self.act(self.c_fc(x)))


class ReLU2(nn.Module):
    """Two linear layers around a squared ReLU (So et al. 2021): cheaper than GELU, and many units are exactly 0."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.n_hidden, bias=config.bias)
        self.c_proj = nn.Linear(config.n_hidden, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's contribution to the residual stream, (batch, time, n_embd)."""
        return self.c_proj(F.relu(self.c_fc(x)).square())


class SwiGLU(nn.Module):
    """A linear layer gated by another (Shazeer 2020), as in Llama; three matrices instead of two."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_gate = nn.Linear(config.n_embd, config.n_hidden, bias=config.bias)
        self.c_fc = nn.Linear(config.n_embd, config.n_hidden, bias=config.bias)
        self.act = nn.SiLU()
        self.c_proj = nn.Linear(config.n_hidden, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's contribution to the residual stream, (batch, time, n_embd)."""
        return self.c_proj(self.act(self.c_gate(x)) * self.c_fc(x))


MLPS = {
    "gelu": GELU,
    "relu2": ReLU2,
    "swiglu": SwiGLU,
}
