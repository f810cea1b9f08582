"""Nested tensors, which `nn.TransformerEncoder` makes of padded batches for its fast path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def on_padded(function: Callable[[Tensor, Tensor], Tensor], nested: Tensor) -> Tensor:
    """`function` of a nested tensor [N, (T), D], called with a padded one [N, T, D] and where that is padding [N, T].

    The result is nested again; what `function` returns for padding is dropped.
    """
    padded = nested.to_padded_tensor(0.0)
    lengths = nested._nested_tensor_size()[:, 0].to(padded.device)
    padding = torch.arange(padded.shape[1], device=padded.device) >= lengths[:, None]
    return torch._nested_tensor_from_mask(function(padded, padding), ~padding, mask_check=False)
