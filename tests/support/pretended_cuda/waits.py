"""Waits: where the host would have waited for the device."""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

import torch
from torch import Tensor

_OURS = re.compile(r".*/((?:tombola|tests|benchmarks)/.*)")
_PRETENDED = "tests/support/pretended_cuda/"


class Wait(NamedTuple):
    what: str
    where: str
    """File and line of the innermost frame of this project."""


class Waits:
    """Those that were noted. While they are forbidden, or a graph is captured, a wait raises `RuntimeError`."""

    def __init__(self) -> None:
        self.noted: list[Wait] = []
        self.forbidden = False
        self.capturing = False
        self._on_the_way: list[tuple[Tensor, Tensor]] = []

    def note(self, what: str) -> None:
        """The host waits here."""
        where = _innermost_frame()
        if self.capturing:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what} at {where}")
        if self.forbidden:
            raise RuntimeError(f"called a synchronizing CUDA operation: {what} at {where}")
        self.noted.append(Wait(what, where))
        with torch.no_grad():
            for target, value in self._on_the_way:
                target.copy_(value)
        self._on_the_way.clear()

    def arrive_later(self, target: Tensor, value: Tensor) -> None:
        """`target`, on the host, has the value of a non-blocking copy after the next wait, and until then another."""
        self._on_the_way.append((target, value.clone()))
        target.fill_(torch.nan if target.is_floating_point() else 1)


def _innermost_frame() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        match = _OURS.match(frame.f_code.co_filename)
        if match and not match[1].startswith(_PRETENDED):
            return f"{match[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
