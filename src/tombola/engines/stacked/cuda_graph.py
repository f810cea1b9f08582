"""CUDA graphs: functions that do the same work in every call, each launched on a GPU as one."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Hashable

import torch

from tombola.utils.text import first_line

log = logging.getLogger(__name__)

WARM_UP_CALLS = 3
"""Calls before a capture, in which libraries initialise themselves and optimizers create their state."""


class CudaGraphs:
    """Calls functions. On CUDA, after a few calls, it replays a CUDA graph of each instead, with far less overhead.

    A function must read and write the same tensors each time, and never wait for the device. Random draws are as
    without a graph: torch gives a replay the current state of its generator. If capturing fails, the reason is
    logged and functions are called without graphs.

    All graphs share one memory pool, so their temporary tensors use the same memory: nothing that a function leaves
    in a temporary tensor may be read after another one was called.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.capturing = device.type == "cuda"
        self._calls: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def call(self, name: Hashable, function: Callable[[], None]) -> None:
        """Call `function`, which is the same in all calls with this name, or replay its graph.

        It is not kept: it may be a method of an object that owns this one, which then is freed without the garbage
        collector, and its GPU memory with it.
        """
        if not self.capturing:
            function()
            return
        with torch.cuda.device(self.device):
            if name not in self._graphs and self._calls[name] >= WARM_UP_CALLS:
                self._capture(name, function)
            if name in self._graphs:
                self._graphs[name].replay()
            elif self.capturing:
                self._call_on_side_stream(function)
            else:
                function()
        self._calls[name] += 1

    def _call_on_side_stream(self, function: Callable[[], None]) -> None:
        """Call the function on another stream, which torch requires before a capture."""
        current, side = torch.cuda.current_stream(), _side_stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            function()
        current.wait_stream(side)

    def _capture(self, name: Hashable, function: Callable[[], None]) -> None:
        """Record the function's work, which does not execute it."""
        graph = torch.cuda.CUDAGraph()
        try:
            pool = next((other.pool() for other in self._graphs.values()), None)
            with (
                torch.cuda.stream(torch.cuda.current_stream()),  # which a failed capture does not restore
                torch.cuda.graph(graph, pool=pool, stream=_side_stream(self.device)),
            ):
                function()
        except Exception as error:  # noqa: BLE001 - torch raises several kinds; without a graph it is only slower
            # The end of a failed capture raises an error of its own.
            reason = error.__context__ if isinstance(error.__context__, Exception) else error
            if isinstance(reason, torch.cuda.OutOfMemoryError):
                raise reason from None
            self.capturing = False
            self._graphs.clear()  # a failed capture may leave the pool unusable
            log.warning("no CUDA graph is used: %s", first_line(reason))
            return
        self._graphs[name] = graph


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for the whole process: cuBLAS keeps a workspace, of 32 MiB, for each stream that it was used on."""
    with torch.cuda.device(device):
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]
