"""A CUDA device for tests: of this machine, or a pretended one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from tests.support.pretended_cuda import PretendedCuda


@dataclass(frozen=True)
class CudaDevice:
    """What tests may ask of either; everything else is `torch.cuda`."""

    pretended: PretendedCuda | None = None
    """None if the device is real."""
    device: torch.device = field(default_factory=lambda: torch.device("cuda"))


@contextlib.contextmanager
def cuda_device() -> Iterator[CudaDevice]:
    """The device of this machine, or a pretended one while the context lasts."""
    if torch.cuda.is_available():
        yield CudaDevice()
        return
    with PretendedCuda() as pretended:
        yield CudaDevice(pretended)


@contextlib.contextmanager
def forbid_waits() -> Iterator[None]:
    """An operation for which the host waits for a CUDA device raises `RuntimeError`."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextlib.contextmanager
def no_log_warnings() -> Iterator[None]:
    """Raises `RuntimeError` if something was logged as a warning, such as a graph that could not be captured."""
    logger, messages = logging.getLogger("tombola"), []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Collect(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if messages:
        raise RuntimeError(f"warnings were logged: {messages}")
