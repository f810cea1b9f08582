"""GPUs, memory and compilers."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from tombola.report.diagnosis import machine


def _driver(monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if found else None)


@pytest.mark.parametrize(("driver", "state"), [(True, "warning"), (False, "ok")])
def test_a_torch_for_the_cpu_uses_no_gpu(driver: bool, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(monkeypatch, driver)
    monkeypatch.setattr(torch.version, "cuda", None)
    (found,) = machine.gpus()
    assert found.state == state
    assert bool(found.advice) == driver


@pytest.mark.parametrize(("driver", "state"), [(True, "warning"), (False, "ok")])
def test_the_reason_is_given_if_no_gpu_can_be_used(driver: bool, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(monkeypatch, driver)
    monkeypatch.setattr(torch.version, "cuda", "12.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = machine.gpus()
    assert found.state == state
    assert "CUDA_VISIBLE_DEVICES" in found.text


def test_a_gpu_that_computes_nothing_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="Test GPU", total_memory=8e9, major=9, minor=0)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution")

    monkeypatch.setattr(torch.version, "cuda", "12.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))
    (found,) = machine.gpus()
    assert (found.name, found.state) == ("GPU 0", "ok")
    assert found.text == "Test GPU, 8.0 GB, capability 9.0"
    monkeypatch.setattr(torch, "zeros", fail)
    (found,) = machine.gpus()
    assert found.state == "warning"
    assert found.text.endswith("no kernel image is available")


@pytest.mark.parametrize(("total", "state"), [(16e9, "ok"), (1e9, "warning"), (0, "ok")])
def test_little_memory_is_a_warning(total: float, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.utils.memory.total_memory", lambda: total)
    assert [each.state for each in machine.memory()] == [state]


def test_a_compiler_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/no/such/cc" if name == "cc" else None)
    (found,) = machine.compilers()
    assert "/no/such/cc" in found.text
