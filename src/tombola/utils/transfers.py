"""Copies from the CPU to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, of the CPU, on `device`. The CPU does not wait for earlier work of a GPU, as it does when it copies
    from memory that is not pinned."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
