"""Products of large matrices on a CPU: one door to the quickest kernel that torch has for them.

torch gives float32 products to MKL, which on processors of other makers runs at less than half their rate; oneDNN,
which comes with torch too, does not (docs/log.md). bfloat16 products go to oneDNN anyway.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Returns a @ b, of shapes (m, k) and (k, n); in `out` where the kernel can write there.

    Which kernel it is depends on device and type alone, never on a clock, so that a run can be repeated bit by bit.
    """
    if a.dtype == torch.float32 and a.device.type == "cpu" and _onednn_multiplies():
        return torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return torch.mm(a, b, out=out)


@lru_cache
def _onednn_multiplies() -> bool:
    """Whether torch lets us at oneDNN's product, and it is right."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        a = torch.arange(12.0).view(3, 4)
        return torch.equal(torch.ops.mkldnn._linear_pointwise(a, torch.eye(4), None, "none", [], ""), a)
    except (AttributeError, RuntimeError, TypeError):
        return False
