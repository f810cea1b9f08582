"""The order of a tensor's elements in memory: kernels that treat elements alike go through them in that order."""

from __future__ import annotations

import torch
from torch import Tensor


def same_order(a: Tensor, b: Tensor) -> bool:
    """Whether the elements of two tensors of one shape have the same order."""
    return _strides(a) == _strides(b)


def in_order_of(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` with its elements in the order of `like`, which is dense; itself if they already are."""
    if same_order(tensor, like):
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _strides(tensor: Tensor) -> list[tuple[int, int]]:
    """With the sizes, of the axes that have a meaning: along an axis of size 1 nothing moves."""
    return [(stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
