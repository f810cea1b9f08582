from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tombola.engines.stacked.cuda_graph import WARM_UP_CALLS, CudaGraphs

log: list[str] = []


class FakeGraph:
    def replay(self) -> None:
        log.append("replayed")


class FakeStream:
    def wait_stream(self, other: FakeStream) -> None:
        pass


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes of CUDA streams and graphs that log the order of calls."""
    log.clear()

    @contextlib.contextmanager
    def recording(graph: FakeGraph, pool: object, stream: FakeStream) -> Iterator[None]:  # noqa: ARG001
        before = len(log)
        try:
            yield
        finally:
            del log[before:]  # a capture does not execute

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())


def calls(work: Callable[[], Any], device: str, count: int) -> None:
    graphs = CudaGraphs(torch.device(device))
    for _ in range(count):
        graphs.call("work", work)


def test_on_a_cpu_the_function_is_called() -> None:
    log.clear()
    calls(lambda: log.append("done"), "cpu", 5)
    assert log == ["done"] * 5


@pytest.mark.usefixtures("fake_cuda")
def test_after_the_warm_up_calls_the_graph_is_replayed() -> None:
    calls(lambda: log.append("done"), "cuda", WARM_UP_CALLS + 3)
    assert log == ["done"] * WARM_UP_CALLS + ["replayed"] * 3


@pytest.mark.usefixtures("fake_cuda")
def test_without_a_capture_the_function_is_still_called(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        log.append("done")
        attempts.append(len(attempts))
        if len(attempts) == WARM_UP_CALLS + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    attempts: list[int] = []
    with caplog.at_level(logging.WARNING):
        calls(work, "cuda", WARM_UP_CALLS + 3)
    assert log == ["done"] * (WARM_UP_CALLS + 3)
    (record,) = caplog.records
    assert record.getMessage().endswith("operation not permitted when stream is capturing")  # one line


@pytest.mark.usefixtures("cuda")
def test_on_cuda_a_function_that_cannot_be_captured_is_still_called(caplog: pytest.LogCaptureFixture) -> None:
    device = torch.device("cuda")
    total = torch.zeros((), device=device)

    def waits() -> None:
        total.add_(1)
        total.item()

    graphs = CudaGraphs(device)
    for _ in range(6):
        graphs.call("waits", waits)
    assert total.item() == 6
    assert len(caplog.records) == 1
