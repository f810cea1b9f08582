"""Transfers: copies of tensors between the host and devices, and what the host reads of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.pretended_cuda.placement import CPU
from tests.support.pretended_cuda.state import State

_plain = torch._C.TensorBase


class Transfers:
    """Stand for methods of `torch.Tensor`."""

    def __init__(self, state: State) -> None:
        self.state = state

    def device_of(self, tensor: Tensor) -> torch.device:
        if _plain.is_meta.__get__(tensor):
            return _plain.device.__get__(tensor)
        return self.state.placement.device_of(tensor) or CPU

    def to(self, tensor: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        here = self.device_of(tensor)
        device, dtype, non_blocking, copy, layout = self._destination(*arguments, **keywords)
        device, dtype = device or here, dtype or tensor.dtype
        if "meta" in (here.type, device.type):
            return _plain.to(tensor, device=device, dtype=dtype)
        if device == here:
            return _plain.to(tensor, dtype=dtype, copy=copy, memory_format=layout)
        if self.state.waits.capturing:
            raise RuntimeError(f"a copy from {here} to {device} is not captured by the pretended device")
        # PyTorch pins the result of a non-blocking copy to the host by itself.
        if CPU in (here, device) and not (non_blocking and (device == CPU or self.state.placement.is_pinned(tensor))):
            self.state.waits.note(f"copy from {here} to {device}")
        with self.state.graphs.quiet():
            copied = self.state.placement.put(_plain.to(tensor, dtype=dtype, copy=True, memory_format=layout), device)
            if device == CPU and non_blocking:
                with torch.no_grad():
                    self.state.waits.arrive_later(self.state.placement.pin(copied), copied)
        return copied

    def _destination(
        self, *arguments: Any, **keywords: Any
    ) -> tuple[torch.device | None, torch.dtype | None, bool, bool, torch.memory_format]:
        """Device, dtype, non_blocking, copy and memory format, as `Tensor.to` understands them."""
        device, dtype, flags = keywords.get("device"), keywords.get("dtype"), []
        for argument in [*arguments, keywords.get("other")]:
            if isinstance(argument, Tensor):
                device, dtype = self.device_of(argument), argument.dtype
            elif isinstance(argument, torch.dtype):
                dtype = argument
            elif isinstance(argument, bool):
                flags.append(argument)
            elif argument is not None:
                device = argument
        non_blocking, copy = [*flags, *[False] * 2][:2]
        return (
            None if device is None else self.state.device(device),
            dtype,
            keywords.get("non_blocking", non_blocking),
            keywords.get("copy", copy),
            keywords.get("memory_format") or torch.preserve_format,
        )

    def cuda(self, tensor: Tensor, device: Any = None, non_blocking: bool = False, **_: Any) -> Tensor:
        return self.to(tensor, "cuda" if device is None else device, non_blocking=non_blocking)

    def cpu(self, tensor: Tensor, **_: Any) -> Tensor:
        return self.to(tensor, CPU)

    def pin_memory(self, tensor: Tensor, *_: Any) -> Tensor:
        if self.device_of(tensor) != CPU:
            raise RuntimeError("cannot pin a tensor of a device: only dense CPU tensors can be pinned")
        return tensor if self.is_pinned(tensor) else self.state.placement.pin(tensor.clone())

    def is_pinned(self, tensor: Tensor, *_: Any) -> bool:
        return self.state.placement.is_pinned(tensor)

    def tolist(self, tensor: Tensor) -> Any:
        if self.device_of(tensor).type == "cuda":
            self.state.waits.note("tolist")
        with self.state.graphs.quiet():
            return _plain.tolist(tensor)

    def numpy(self, tensor: Tensor, *arguments: Any, **keywords: Any) -> Any:
        device = self.device_of(tensor)
        if device.type == "cuda":
            raise TypeError(f"can't convert {device} device type tensor to numpy. Use Tensor.cpu() first.")
        return _plain.numpy(tensor, *arguments, **keywords)
