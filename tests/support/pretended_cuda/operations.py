"""Operations: the devices of their tensors, waits, and what is recorded of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.pretended_cuda.graphs import RecordedOperation
from tests.support.pretended_cuda.placement import ANYWHERE, CPU, storage_of, tensors_in
from tests.support.pretended_cuda.state import Operation, State

_aten = torch.ops.aten
WAITING = {
    _aten._local_scalar_dense.default,
    _aten._unique2.default,
    _aten.bincount.default,
    _aten.equal.default,
    _aten.is_nonzero.default,
    _aten.masked_select.default,
    _aten.nonzero.default,
    _aten.unique_consecutive.default,
    _aten.unique_dim.default,
}
"""Their result is a number of the host, or has a size that depends on values."""
INDEXING = {
    _aten._index_put_impl_.default,
    _aten._unsafe_index.Tensor,
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
}
NOT_DETERMINISTIC = {_aten.bincount.default, _aten.histc.default, _aten.kthvalue.default, _aten.put_.default}
"""Some of those that `torch.use_deterministic_algorithms` lists for CUDA."""
Devices = Sequence[torch.device | None]


class Operations(TorchDispatchMode):
    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state
        state.graphs.replayed = self._count_replayed

    def __torch_dispatch__(
        self,
        function: Any,
        types: Iterable[type],
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        keywords, graphs = keywords or {}, self.state.graphs
        if graphs.off:
            return function(*arguments, **keywords)
        given = tensors_in((arguments, keywords))
        devices = self.state.placement.devices_of(given)
        device = next((device for device in devices if device is not None and device.type == "cuda"), None)
        if device is not None:
            self._check(function, arguments, keywords, given, devices)
            _warn_if_not_deterministic(function)
            if graphs.capturing is not None and not function.is_view:
                graphs.remember(given)
        elif graphs.capturing is not None and CPU in devices and not function.is_view:
            raise RuntimeError(f"{function} on the CPU while capturing: a replay would not do it")
        result = function(*arguments, **keywords)
        made = tensors_in(result)
        self._place(made, given, devices, device)
        if graphs.capturing is not None and (
            device is not None or CPU not in self.state.placement.devices_of([*given, *made])
        ):
            graphs.record(function, arguments, keywords, result)
        if device is not None:
            self._count(function, [*given, *made])
        return result

    def _place(
        self, made: Sequence[Tensor], given: Sequence[Tensor], devices: Devices, device: torch.device | None
    ) -> None:
        """Put new tensors where those of the operation are."""
        if device is None:
            if given and not all(there is ANYWHERE for there in devices):
                return  # on the CPU
            device = ANYWHERE if given else self.state.making
        known = {storage._cdata for tensor in given if (storage := storage_of(tensor)) is not None}
        for tensor in made:
            storage = storage_of(tensor)
            if storage is not None and storage._cdata not in known:
                self.state.placement.put(tensor, device)

    def _check(
        self, function: Any, arguments: Any, keywords: dict[str, Any], given: Sequence[Tensor], devices: Devices
    ) -> None:
        """Note the waits of an operation with a tensor on a device. Raises `RuntimeError` if devices are mixed."""
        waits = self.state.waits
        if function in WAITING or (function is _aten.repeat_interleave.Tensor and not keywords.get("output_size")):
            waits.note(str(function))
        if function is _aten.copy_.default:
            self._check_copy(given, devices, non_blocking=[*arguments, False][2])
        elif function in INDEXING and devices[0] != CPU:
            for index in arguments[1]:
                if index is not None and self.state.placement.device_of(index) == CPU:
                    waits.note("index on the CPU")
                elif index is not None and index.dtype in (torch.bool, torch.uint8):
                    waits.note("boolean index")
            _check_mixed(function, given[:1], devices[:1])
        else:
            self._check_written(function, arguments, devices)
            _check_mixed(function, given, devices)

    def _check_copy(self, given: Sequence[Tensor], devices: Devices, non_blocking: bool) -> None:
        target, source = given
        if CPU not in devices:
            return
        host = target if devices[0] == CPU else source
        if not (non_blocking and self.state.placement.is_pinned(host)):
            self.state.waits.note(f"copy from {devices[1]} to {devices[0]}")

    def _check_written(self, function: Any, arguments: Any, devices: Devices) -> None:
        """A result on the CPU may not be computed from tensors of a device, not even without dimensions."""
        for argument, value in zip(function._schema.arguments, arguments, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = self.state.placement.devices_of(tensors_in(value))
                if CPU in written:
                    raise _mixed(function, devices)

    def _count(self, function: Any, tensors: Sequence[Tensor]) -> None:
        if self.state.operations is not None and not function.is_view and function is not _aten.detach.default:
            sizes = {(tensor.data_ptr(), tensor.numel()): tensor.nbytes for tensor in tensors}
            self.state.operations.append(Operation(str(function), sum(sizes.values())))

    def _count_replayed(self, operation: RecordedOperation) -> None:
        tensors = tensors_in((operation.arguments, operation.keywords, operation.results))
        self._count(operation.function, tensors)


def _check_mixed(function: Any, given: Sequence[Tensor], devices: Devices) -> None:
    found = {device for tensor, device in zip(given, devices, strict=True) if tensor.numel() and device is not None}
    found.discard(CPU)
    elsewhere = [tensor for tensor, device in zip(given, devices, strict=True) if device == CPU and tensor.numel()]
    names = ("foreach", "fused", "where", "fill")
    may_mix = torch.Tag.pointwise in function.tags or any(name in str(function) for name in names)
    if len(found) > 1 or (elsewhere and not (may_mix and all(tensor.dim() == 0 for tensor in elsewhere))):
        raise _mixed(function, devices)


def _mixed(function: Any, devices: Devices) -> RuntimeError:
    found = ", ".join(sorted({str(device) for device in devices if device is not None}))
    return RuntimeError(f"Expected all tensors to be on the same device, but {function} found {found}")


def _warn_if_not_deterministic(function: Any) -> None:
    if function not in NOT_DETERMINISTIC or not torch.are_deterministic_algorithms_enabled():
        return
    message = f"{function} does not have a deterministic implementation"
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, stacklevel=2)
