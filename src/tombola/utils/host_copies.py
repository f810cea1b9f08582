"""Copies of tensors in the memory of the host."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def host_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CPU copies, which share no memory with `tensors`. From a device each is copied once, and not on the device."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
