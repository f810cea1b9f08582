"""Patches: what of torch is replaced while the device is pretended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.support.pretended_cuda.graphs import PretendedGraph
from tests.support.pretended_cuda.placement import CPU
from tests.support.pretended_cuda.state import State
from tests.support.pretended_cuda.streams import PretendedEvent
from tests.support.pretended_cuda.transfers import Transfers

NAME = "pretended CUDA device"


@contextlib.contextmanager
def patched(owner: Any, **values: object) -> Iterator[None]:
    """Attributes of `owner` have these values within it."""
    with contextlib.ExitStack() as restored:
        for name, value in values.items():
            if name in vars(owner):
                restored.callback(setattr, owner, name, vars(owner)[name])
            else:  # it was inherited, or is not there
                restored.callback(delattr, owner, name)
            setattr(owner, name, value)
        yield


def tensor_methods(state: State) -> dict[str, object]:
    transfers, plain_deepcopy = Transfers(state), Tensor.__deepcopy__

    def deepcopy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        return state.placement.put(plain_deepcopy(tensor, memo), state.placement.device_of(tensor))

    def method(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **keywords: function(*arguments, **keywords)  # a function is bound to the tensor

    return {
        "device": property(transfers.device_of),
        "is_cuda": property(lambda tensor: transfers.device_of(tensor).type == "cuda"),
        "is_cpu": property(lambda tensor: transfers.device_of(tensor).type == "cpu"),
        "get_device": lambda tensor: -1 if (device := transfers.device_of(tensor)) == CPU else device.index,
        "__deepcopy__": deepcopy,
    } | {
        name: method(getattr(transfers, name))
        for name in ("to", "cuda", "cpu", "pin_memory", "is_pinned", "tolist", "numpy")
    }


def cuda_functions(state: State, free: int, total: int, capability: tuple[int, int]) -> dict[str, object]:
    """Of `torch.cuda`; `free` and `total` are bytes of memory."""

    def device_of(name: Any) -> torch.device:
        return state.device("cuda" if name is None else name)

    @contextlib.contextmanager
    def device(name: Any) -> Iterator[None]:
        before, state.current_device = state.current_device, device_of(name).index
        try:
            yield
        finally:
            state.current_device = before

    @contextlib.contextmanager
    def graph(captured: PretendedGraph, pool: Any = None, stream: Any = None, **_: object) -> Iterator[None]:
        """As with torch, the end of a capture that failed raises an error of its own, and the stream stays."""
        with contextlib.ExitStack() as entered:
            entered.enter_context(state.streams.entered(stream))
            try:
                with state.graphs.capture(captured, pool):
                    yield
            except RuntimeError as error:
                entered.pop_all()
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from error

    properties = SimpleNamespace(
        name=NAME, major=capability[0], minor=capability[1], total_memory=total, multi_processor_count=132
    )
    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "device_count": lambda: state.devices,
        "current_device": lambda: state.current_device,
        "set_device": lambda name: setattr(state, "current_device", device_of(name).index),
        "device": device,
        "get_device_name": lambda *_: NAME,
        "get_device_capability": lambda *_: capability,
        "get_device_properties": lambda *_: properties,
        "is_bf16_supported": lambda *_, **__: True,
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
        "mem_get_info": lambda *_: (free, total),
        "memory_allocated": lambda name=None: state.placement.allocated[device_of(name)],
        "memory_reserved": lambda name=None: state.placement.allocated[device_of(name)],
        "max_memory_allocated": lambda name=None: state.placement.most_allocated[device_of(name)],
        "max_memory_reserved": lambda name=None: state.placement.most_allocated[device_of(name)],
        "reset_peak_memory_stats": lambda name=None: state.placement.most_allocated.pop(device_of(name), None),
        "synchronize": lambda *_: state.waits.note("synchronize"),
        "set_sync_debug_mode": lambda mode: setattr(state.waits, "forbidden", mode in ("error", 2)),
        "get_sync_debug_mode": lambda: 2 if state.waits.forbidden else 0,
        "Stream": state.streams.new,
        "Event": lambda *_, **__: PretendedEvent(state.waits),
        "stream": state.streams.entered,
        "current_stream": state.streams.get,
        "default_stream": state.streams.get,
        "CUDAGraph": lambda *_, **__: PretendedGraph(state.graphs),
        "graph": graph,
        "graph_pool_handle": state.graphs.new_pool,
        "is_current_stream_capturing": lambda: state.waits.capturing,
        "manual_seed": torch.default_generator.manual_seed,
        "manual_seed_all": torch.default_generator.manual_seed,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda value, *_: torch.set_rng_state(value),
    }


class AutocastOnTheCpu(torch.autocast):
    """Autocast of the pretended device: its kernels are those of the CPU."""

    def __init__(self, device_type: str, *arguments: Any, **keywords: Any) -> None:  # noqa: ARG002
        super().__init__("cpu", *arguments, **keywords)


def group_by_device(state: State) -> object:
    """Of `torch.optim.Optimizer`: the original, which is C++, would find the CPU."""
    plain = torch.optim.Optimizer._group_tensors_by_device_and_dtype

    def group(lists: Any, *arguments: Any, **keywords: Any) -> Any:
        groups = plain(lists, *arguments, **keywords).items()
        return {(state.placement.device_of(value[0][0][0]), key[1]): value for key, value in groups}

    return staticmethod(group)
