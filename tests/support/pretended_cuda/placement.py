"""Placement: on which device each storage is, and how many bytes are on each device."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")
ANYWHERE = None
"""Of a tensor that torch makes for itself, such as a number in an operation: it mixes with those of every device."""


def tensors_in(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def storage_of(tensor: Tensor) -> torch.UntypedStorage | None:
    """None of a tensor without one, such as a sparse tensor; within `vmap` and `grad` that of the wrapped tensor."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    try:
        return torch._C.TensorBase.untyped_storage(tensor)
    except (RuntimeError, NotImplementedError):
        return None


class Placement:
    """Storages are on the CPU unless they were put elsewhere."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        """Bytes on each device, at most; None does not limit them."""
        self.allocated: Counter[torch.device] = Counter()
        self.most_allocated: Counter[torch.device] = Counter()
        self._devices: dict[int, torch.device | None] = {}
        self._pinned: set[int] = set()

    def device_of(self, tensor: Tensor) -> torch.device | None:
        storage = storage_of(tensor)
        return CPU if storage is None else self._devices.get(storage._cdata, CPU)

    def devices_of(self, tensors: Iterable[Tensor]) -> list[torch.device | None]:
        return [self.device_of(tensor) for tensor in tensors]

    def put(self, tensor: Tensor, device: torch.device | None) -> Tensor:
        """Mark the tensor's storage as being there. Raises `torch.cuda.OutOfMemoryError` beyond the limit."""
        storage = storage_of(tensor)
        if storage is None or self._devices.get(storage._cdata, CPU) == device:
            return tensor
        key, size = storage._cdata, storage.nbytes()
        if device is not None and device.type == "cuda":
            if self.limit is not None and self.allocated[device] + size > self.limit:
                raise torch.cuda.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes on {device}.")
            self.allocated[device] += size
            self.most_allocated[device] = max(self.most_allocated[device], self.allocated[device])
        if key in self._devices:
            self._free(key, size)
        else:
            weakref.finalize(storage, self._free, key, size).atexit = False
        self._devices[key] = device
        return tensor

    def _free(self, key: int, size: int) -> None:
        device = self._devices.pop(key)
        if device is not None:
            self.allocated[device] -= size

    def pin(self, tensor: Tensor) -> Tensor:
        storage = storage_of(tensor)
        assert storage is not None
        self._pinned.add(storage._cdata)
        weakref.finalize(storage, self._pinned.discard, storage._cdata).atexit = False
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        storage = storage_of(tensor)
        return storage is not None and storage._cdata in self._pinned
