from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tombola.engines.stacked.cuda_graph import WARM_UP, CapturedGraph

log: list[str] = []


class FakeGraph:
    def replay(self) -> None:
        log.append("replayed")


class FakeStream:
    def wait_stream(self, other: FakeStream) -> None:
        pass


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of CUDA as can be had without: the order of things."""
    log.clear()

    @contextlib.contextmanager
    def recording(graph: FakeGraph, stream: FakeStream) -> Iterator[None]:  # noqa: ARG001
        before = len(log)
        try:
            yield
        finally:
            del log[before:]  # recorded, not done

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())


def calls(work: Callable[[], Any], device: str, count: int) -> None:
    captured = CapturedGraph(work, torch.device(device))
    for _ in range(count):
        captured()


def test_work_that_is_not_on_cuda_is_just_done() -> None:
    log.clear()
    calls(lambda: log.append("done"), "cpu", 5)
    assert log == ["done"] * 5


@pytest.mark.usefixtures("fake_cuda")
def test_each_call_does_the_work_once_first_by_itself_and_then_by_replay() -> None:
    calls(lambda: log.append("done"), "cuda", WARM_UP + 3)
    assert log == ["done"] * WARM_UP + ["replayed"] * 3


@pytest.mark.usefixtures("fake_cuda")
def test_work_that_cannot_be_captured_is_done_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        log.append("done")
        attempts.append(len(attempts))
        if len(attempts) == WARM_UP + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    attempts: list[int] = []
    with caplog.at_level(logging.WARNING):
        calls(work, "cuda", WARM_UP + 3)
    assert log == ["done"] * (WARM_UP + 3)
    reason = "operation not permitted when stream is capturing"
    assert [record.getMessage() for record in caplog.records] == [f"training goes on without a CUDA graph: {reason}"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_too_work_that_cannot_be_captured_is_done_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    device = torch.device("cuda")
    total = torch.zeros((), device=device)

    def waits() -> None:
        total.add_(1)
        total.item()

    work = CapturedGraph(waits, device)
    for _ in range(6):
        work()
    assert total.item() == 6
    assert "without a CUDA graph" in caplog.text
