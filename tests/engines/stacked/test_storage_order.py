from __future__ import annotations

import torch

from tombola.engines.stacked.storage_order import in_order_of, same_order


def test_order() -> None:
    tensor = torch.arange(24.0).view(2, 3, 4)
    assert not same_order(tensor, tensor.mT.contiguous().mT)
    assert same_order(torch.ones(1, 4), torch.ones(4, 1).mT)  # nothing moves along an axis of size 1


def test_a_tensor_in_the_order_of_another() -> None:
    like = torch.zeros(2, 3, 4).mT.contiguous().mT
    tensor = torch.arange(24).view(2, 3, 4)
    ordered = in_order_of(tensor, like)
    assert torch.equal(ordered, tensor)
    assert ordered.dtype == torch.int64
    assert ordered.stride() == like.stride()
    assert in_order_of(ordered, like) is ordered
