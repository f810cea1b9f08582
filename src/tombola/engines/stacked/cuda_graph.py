"""Captured: work that is the same every time, launched on a GPU as one."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)

WARM_UP = 3
"""How often work is done before it is captured: libraries set themselves up, and an optimizer makes its state."""


class CapturedGraph:
    """Calls `work`. On CUDA, after a few calls, it replays a CUDA graph of it instead, at a fraction of the overhead.

    `work` reads and writes tensors that stay where they are, and never waits for the device. Its randomness is as
    without a graph: torch hands a replay the present state of its generator.
    Where capturing fails, the reason is logged and the work goes on without.
    """

    def __init__(self, work: Callable[[], None], device: torch.device) -> None:
        self.work = work
        self.device = device
        self.capturing = device.type == "cuda"
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do the work once."""
        if not self.capturing:
            self.work()
            return
        with torch.cuda.device(self.device):
            if self.graph is None and self.calls >= WARM_UP:
                self._capture()
            if self.graph is not None:
                self.graph.replay()
            elif self.capturing:
                self._beside()
            else:
                self.work()
        self.calls += 1

    def _beside(self) -> None:
        """Do the work on a stream of its own, as torch wants it before a capture."""
        present = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(present)
        with torch.cuda.stream(side):
            self.work()
        present.wait_stream(side)

    def _capture(self) -> None:
        """Record the work, without doing it."""
        graph = torch.cuda.CUDAGraph()
        try:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            with torch.cuda.graph(graph, stream=stream):
                self.work()
        except Exception as error:  # noqa: BLE001 - whatever torch raises, it is only slower without
            self.capturing = False
            log.warning("training goes on without a CUDA graph: %s", str(error).partition("\n")[0])
            return
        self.graph = graph
