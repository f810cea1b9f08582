"""Factories: tensors that Python makes are on the device that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.support.pretended_cuda.placement import CPU
from tests.support.pretended_cuda.state import State

_NAMES = (
    "arange as_tensor empty empty_strided eye from_numpy frombuffer full hann_window linspace logspace normal ones "
    "rand randint randn randperm scalar_tensor tensor tril_indices triu_indices zeros"
)
FACTORIES = {getattr(torch, name) for name in _NAMES.split()}
"""They make a tensor on the CPU where no device is named; what torch makes within other functions is anywhere."""
FROM_VALUES = {torch.tensor, torch.as_tensor, Tensor.new_tensor}
"""They copy from the host's memory."""


class Factories(TorchFunctionMode):
    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        state, keywords = self.state, dict(keywords or {})
        pinned = function in FACTORIES and keywords.pop("pin_memory", False)
        device = self._device(function, arguments, keywords)
        if device is None or device.type == "meta":
            return function(*arguments, **keywords)
        if function is torch.as_tensor and isinstance(arguments[0], Tensor):
            return arguments[0].to(device, keywords.get("dtype"))
        if keywords.get("device") is not None:
            keywords["device"] = CPU
        if function in FROM_VALUES and device != CPU:
            state.waits.note(f"{function.__name__} on {device}")
        before, state.making = state.making, device
        try:
            made = function(*arguments, **keywords)
        finally:
            state.making = before
        if isinstance(made, Tensor):
            state.placement.put(made, device)
            if pinned:
                state.placement.pin(made)
        return made

    def _device(self, function: Callable[..., Any], arguments: Any, keywords: dict[str, Any]) -> torch.device | None:
        """Where the function makes its tensor; None if it is no factory."""
        if keywords.get("device") is not None:
            return self.state.device(keywords["device"])
        if function is Tensor.new_tensor:
            return self.state.placement.device_of(arguments[0])
        if function is torch.as_tensor and isinstance(arguments[0], Tensor):
            return self.state.placement.device_of(arguments[0])
        return CPU if function in FACTORIES else None
