"""Bitmask: sets the pruned entries of tensors to zero, without waiting for a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Bitmask:
    """Integers of the width, device and memory layout of the last tensor that it was used with: all bits set where a
    weight is kept, else 0. Of a sharded tensor it covers this process's part."""

    def __init__(self, kept: Tensor) -> None:
        self._kept = kept
        self._bits: Tensor | None = None
        self._key: object = None

    @torch.no_grad()
    def zero(self, tensor: Tensor) -> None:
        """Set the pruned entries of a parameter, or of its gradient, to zero, including infinity and NaN."""
        if tensor.is_sparse:  # the gradient of `nn.Embedding(sparse=True)`, which has some of the rows
            rows = self._kept.to(tensor.device)[tuple(tensor._indices())]
            tensor._values().masked_fill_(~rows, 0)
            return
        local, bits = self._local(tensor)
        # A product would keep NaN, and masked_fill_ takes ten times as long on a CPU.
        local.view(bits.dtype).bitwise_and_(bits)

    @torch.no_grad()
    def count_revived(self, tensor: Tensor) -> int:
        """How many pruned entries are not zero."""
        local, bits = self._local(tensor)
        return int(local[bits == 0].count_nonzero())

    def _local(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        shard: Any = tensor if hasattr(tensor, "to_local") else None
        local: Tensor = tensor if shard is None else shard.to_local()
        key = (tensor.device, tensor.dtype, shard is not None and (shard.device_mesh, shard.placements))
        if self._bits is None or self._key != key:
            self._bits, self._key = self._bits_like(local, shard), key
        return local, self._bits

    def _bits_like(self, local: Tensor, shard: Any) -> Tensor:
        bits = -self._kept.to(_INTEGERS[local.element_size()]).to(local.device)
        if shard is not None:  # every process has the whole mask and takes its part, without communication
            whole = type(shard).from_local(bits, shard.device_mesh, run_check=False)
            bits = whole.redistribute(shard.device_mesh, shard.placements).to_local()
        return torch.empty_like(local, dtype=bits.dtype, requires_grad=False).copy_(bits)
