"""PretendedCuda: a machine with CUDA devices that are not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType

import torch

from tests.support.pretended_cuda.factories import Factories
from tests.support.pretended_cuda.operations import Operations
from tests.support.pretended_cuda.patches import (
    AutocastOnTheCpu,
    cuda_functions,
    group_by_device,
    patched,
    tensor_methods,
)
from tests.support.pretended_cuda.placement import Placement
from tests.support.pretended_cuda.state import Operation, State
from tests.support.pretended_cuda.waits import Waits


class PretendedCuda:
    """Within it the machine has `devices` CUDA devices, each with `total` bytes of memory, of which `free` are free.
    More than `limit` bytes on one of them raise `torch.cuda.OutOfMemoryError`."""

    def __init__(
        self,
        devices: int = 1,
        *,
        free: int = 130 * 2**30,
        total: int = 140 * 2**30,
        limit: int | None = None,
        capability: tuple[int, int] = (9, 0),
    ) -> None:
        self._state = State(devices, Placement(limit))
        self._memory = free, total
        self._capability = capability

    @property
    def waits(self) -> Waits:
        """Where the host has waited for a device."""
        return self._state.waits

    @property
    def placement(self) -> Placement:
        """Where tensors are, and how many bytes are on each device."""
        return self._state.placement

    @contextlib.contextmanager
    def operations(self) -> Iterator[list[Operation]]:
        """A list of the operations that devices do within it, and the bytes of their tensors, also of replays."""
        before, self._state.operations = self._state.operations, []
        try:
            yield self._state.operations
        finally:
            self._state.operations = before

    def __enter__(self) -> PretendedCuda:
        state = self._state
        with contextlib.ExitStack() as entered:
            entered.enter_context(patched(torch.Tensor, **tensor_methods(state)))
            entered.enter_context(patched(torch.cuda, **cuda_functions(state, *self._memory, self._capability)))
            entered.enter_context(patched(torch, autocast=AutocastOnTheCpu))
            entered.enter_context(
                patched(torch.optim.Optimizer, _group_tensors_by_device_and_dtype=group_by_device(state))
            )
            if hasattr(torch, "accelerator"):
                entered.enter_context(
                    patched(
                        torch.accelerator,
                        current_accelerator=lambda **_: torch.device("cuda"),
                        current_stream=state.streams.get,
                    )
                )
            entered.enter_context(Factories(state))
            entered.enter_context(Operations(state))
            self._entered = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, traceback)
