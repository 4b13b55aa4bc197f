"""Products of large matrices on a CPU, with the fastest kernel that torch contains.

torch gives float32 products to MKL, which reaches less than half the speed of processors that are not Intel's; oneDNN,
which torch contains too, reaches all of it (docs/log.md). bfloat16 products go to oneDNN anyway.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Returns a @ b, of shapes (m, k) and (k, n), in `out` if the kernel can write there.

    The choice of the kernel depends on device and dtype only, never on timing, so runs are repeatable bit for bit.
    """
    if a.dtype == torch.float32 and a.device.type == "cpu" and _onednn_multiplies():
        return torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return torch.mm(a, b, out=out)


@lru_cache
def _onednn_multiplies() -> bool:
    """Whether oneDNN's product is accessible in this torch, and correct."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        a = torch.arange(12.0).view(3, 4)
        return torch.equal(torch.ops.mkldnn._linear_pointwise(a, torch.eye(4), None, "none", [], ""), a)
    except (AttributeError, RuntimeError, TypeError):
        return False
