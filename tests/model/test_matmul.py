"""The door to the quick kernels, against torch's own product."""

from __future__ import annotations

import pytest
import torch

from minigpt.model.kernels import matmul as door
from minigpt.model.kernels.matmul import matmul


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_it_is_the_product_whatever_the_layout(monkeypatch, onednn, dtype, turned):
    if not onednn:
        monkeypatch.setattr(door, "_onednn_multiplies", lambda: False)
    torch.manual_seed(0)
    shapes = [(37, 19), (19, 53)]
    a, b = (torch.randn(n, m).t() if turn else torch.randn(m, n) for (m, n), turn in zip(shapes, turned, strict=True))
    a, b = a.to(dtype), b.to(dtype)
    expected = (a.double() @ b.double()).to(dtype)
    torch.testing.assert_close(matmul(a, b), expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_out_is_used_where_the_kernel_can_write_there():
    a, b = torch.ones(3, 4, dtype=torch.bfloat16), torch.ones(4, 5, dtype=torch.bfloat16)
    out = torch.empty(3, 5, dtype=torch.bfloat16)
    assert matmul(a, b, out) is out
    assert (out == 4).all()


def test_the_same_call_gives_the_same_bits():
    torch.manual_seed(1)
    a, b = torch.randn(300, 128), torch.randn(128, 700)
    assert torch.equal(matmul(a, b), matmul(a, b))
