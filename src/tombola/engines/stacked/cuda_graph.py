"""CUDA graphs: a function that does the same work in every call, launched on a GPU as one."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)

WARM_UP_CALLS = 3
"""Calls before the capture, in which libraries initialise themselves and optimizers create their state."""


class CapturedGraph:
    """Calls `function`. On CUDA, after a few calls, it replays a CUDA graph of it instead, with far less overhead.

    `function` must read and write the same tensors each time, and never wait for the device. Random draws are as
    without a graph: torch gives a replay the current state of its generator. If capturing fails, the reason is logged
    and `function` is called without a graph.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self.function = function
        self.device = device
        self.capturing = device.type == "cuda"
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Call the function, or replay its graph."""
        if not self.capturing:
            self.function()
            return
        with torch.cuda.device(self.device):
            if self.graph is None and self.calls >= WARM_UP_CALLS:
                self._capture()
            if self.graph is not None:
                self.graph.replay()
            elif self.capturing:
                self._call_on_side_stream()
            else:
                self.function()
        self.calls += 1

    def _call_on_side_stream(self) -> None:
        """Call the function on another stream, which torch requires before a capture."""
        current = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self.function()
        current.wait_stream(side)

    def _capture(self) -> None:
        """Record the function's work, which does not execute it."""
        graph = torch.cuda.CUDAGraph()
        try:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            with torch.cuda.graph(graph, stream=stream):
                self.function()
        except Exception as error:  # noqa: BLE001 - torch raises several kinds; without a graph it is only slower
            self.capturing = False
            log.warning("no CUDA graph is used: %s", str(error).partition("\n")[0])
            return
        self.graph = graph
